//! A worker of the demo model on a slow device that breaks when a line arrives on standard input. Told to end, it ends as
//! `windlass worker` does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use tokio::signal::unix::{SignalKind, signal};
use windlass_kernels::{Cpu, Faulty};
use windlass_model::{Local, ModelFolder, Network};
use windlass_worker::{Worker, WorkerConfig};

#[tokio::main]
async fn main() -> Result<()> {
    let broken = Arc::new(AtomicBool::new(false));
    let device = Faulty { cpu: Cpu::new(1), broken: broken.clone(), stuck: Arc::default() };
    let mut config = WorkerConfig::new(ModelFolder::demo())?;
    // On a device that takes its time whatever the rows, guesses would make up for it.
    config.engine.draft = "off".parse()?;
    let network = Network::load(device, &config.model.checkpoint()?, &config.model.config()?, &mut |_| {})?;
    let worker = Worker::new(&config, Local::new(network))?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    // Before anybody knows that it is there.
    let mut told_to_end = signal(SignalKind::terminate())?;
    println!("worker listening on {}", listener.local_addr()?);
    std::thread::spawn(move || {
        let mut line = String::new();
        if std::io::stdin().read_line(&mut line).is_ok_and(|length| length > 0) {
            broken.store(true, Ordering::Relaxed);
        }
    });
    let shutdown = async move {
        told_to_end.recv().await;
    };
    Ok(worker.serve(listener, shutdown).await?)
}

//! `windlass workers`: the workers behind a coordinator.

use std::io::{IsTerminal, Write, stdout};
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use futures::StreamExt;
use serde_json::{Value, json};
use windlass_client::{Client, Worker};

use crate::connection_options::ConnectionOptions;
use crate::table::table;

/// Lists, drains and watches the workers behind a coordinator
#[derive(Debug, Args)]
pub(crate) struct WorkersArguments {
    /// Address of the coordinator's gRPC service
    #[arg(
        long,
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:8001",
        env = "WINDLASS_ADDRESS",
        global = true
    )]
    address: String,
    /// Write JSON, one list per line, instead of a table
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    connection: ConnectionOptions,
    #[command(subcommand)]
    command: WorkersCommand,
}

#[derive(Debug, Subcommand)]
enum WorkersCommand {
    /// The workers, and what each is good for
    List,
    /// The same again whenever something changes, until interrupted
    Watch,
    /// Tells a worker to take no more requests; those that run go on
    Drain {
        /// As in the list
        id: String,
        /// Hand over what still runs after this many milliseconds, to go on at another worker; 0 for at once [default:
        /// the worker's drain_deadline_s]
        #[arg(long, value_name = "MS")]
        deadline_ms: Option<u64>,
    },
    /// Tells a worker to take requests again
    Undrain {
        /// As in the list
        id: String,
    },
}

/// Runs the command.
pub(crate) async fn run(arguments: WorkersArguments) -> Result<()> {
    let WorkersArguments { address, json, connection, command } = arguments;
    let client = connection.grpc_client(&address).await?;
    match command {
        WorkersCommand::List => {
            let workers = client.list_workers().await?;
            Ok(writeln!(stdout(), "{}", shown(&workers, json))?)
        }
        WorkersCommand::Watch => watch(&client, json).await,
        WorkersCommand::Drain { id, deadline_ms } => {
            client.drain_worker(&id, deadline_ms.map(Duration::from_millis)).await?;
            done(&id, "draining", json)
        }
        WorkersCommand::Undrain { id } => {
            client.undrain_worker(&id).await?;
            done(&id, "ready", json)
        }
    }
}

/// Shows every list that differs from the one before; on a terminal in its place.
async fn watch(client: &Client, json: bool) -> Result<()> {
    let mut lists = std::pin::pin!(client.watch_workers().await?);
    let mut last = None;
    while let Some(workers) = lists.next().await {
        let text = shown(&workers?, json);
        if last.as_ref() == Some(&text) {
            continue;
        }
        let clear = if !json && stdout().is_terminal() { "\x1b[2J\x1b[H" } else { "" };
        writeln!(stdout(), "{clear}{text}")?;
        stdout().flush()?;
        last = Some(text);
    }
    bail!("the coordinator ended");
}

fn done(id: &str, state: &str, json: bool) -> Result<()> {
    let line = if json {
        json!({"id": id, "state": state}).to_string()
    } else {
        format!("{id} is told; it is {state} now")
    };
    Ok(writeln!(stdout(), "{line}")?)
}

fn shown(workers: &[Worker], json: bool) -> String {
    if json {
        return Value::Array(workers.iter().map(object).collect()).to_string();
    }
    if workers.is_empty() {
        return "no workers".to_owned();
    }
    let header = ["worker", "state", "model", "version", "requests", "core iterations", "K/V blocks", "why"];
    let mut rows = table(header.map(str::to_owned).to_vec());
    for worker in workers {
        rows.add_row([
            worker.id.clone(),
            worker.state.name().to_owned(),
            model(worker),
            worker.version.clone(),
            format!("{} + {}", worker.running, worker.waiting),
            worker.predicted_core_iterations.to_string(),
            format!("{} / {}", worker.blocks_used, worker.blocks_total),
            worker.reason.clone(),
        ]);
    }
    rows.to_string()
}

/// The model's name, and whether anyone computes it.
fn model(worker: &Worker) -> String {
    if worker.simulated { format!("{} (simulated)", worker.model) } else { worker.model.clone() }
}

fn object(worker: &Worker) -> Value {
    json!({
        "id": worker.id,
        "address": worker.address,
        "state": worker.state.name(),
        "reason": worker.reason,
        "model": worker.model,
        "simulated": worker.simulated,
        "version": worker.version,
        "requests": worker.requests,
        "predicted_core_iterations": worker.predicted_core_iterations,
        "running": worker.running,
        "waiting": worker.waiting,
        "blocks_used": worker.blocks_used,
        "blocks_total": worker.blocks_total,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use windlass_client::WorkerState;

    fn worker() -> Worker {
        Worker {
            id: "a:1".into(),
            address: "a:1".into(),
            state: WorkerState::Draining,
            reason: "it drains".into(),
            model: "demo".into(),
            simulated: true,
            version: "1".into(),
            requests: 2,
            predicted_core_iterations: 640,
            running: 3,
            waiting: 1,
            blocks_used: 5,
            blocks_total: 9,
        }
    }

    #[test]
    fn a_list_says_who_does_what_and_why_not() {
        let text = shown(&[worker()], false);
        for part in ["a:1", "draining", "demo (simulated)", "3 + 1", "640", "5 / 9", "it drains"] {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(shown(&[], false), "no workers");
        let list: Value = serde_json::from_str(&shown(&[worker()], true)).unwrap();
        assert_eq!((&list[0]["state"], &list[0]["requests"]), (&json!("draining"), &json!(2)));
        assert_eq!(shown(&[], true), "[]");
    }
}

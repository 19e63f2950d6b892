//! Ranks in processes of their own, on one machine or several, that are one worker.
//!
//! Rank 0 is the worker: it serves, registers, and leads. Every other rank joins it by the `windlass.v1.Ranks` service, obeys its
//! orders, and hands it what sums need; rank 0 adds up in the order of ranks, as ranks that are threads do, so answers are the same
//! to the bit. A rank that is lost, by a broken connection or by silence, takes the group with it.

mod error;
mod host;
mod hub;
mod member;
mod wire;

use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::Handle;
use windlass_kernels::{Arithmetic, Backend, Cpu, CpuConfig};
use windlass_model::ranks::RankLink;
use windlass_model::{LoadError, LoadProgress, ModelFolder, Network, Ranks, Shard};
use windlass_transport::ServerTls;
use xxhash_rust::xxh3::xxh3_64;

pub use error::RankError;
pub(crate) use host::Host;
use host::Members;
pub use member::{RankConfig, serve_rank};

use crate::config::WorkerConfig;
use crate::error::WorkerError;

/// How long a rank may be silent unless set otherwise.
pub(crate) const RANK_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest message: initial latents, or a sum, of as many rows as a launch may have.
const MAX_MESSAGE_BYTES: usize = 1 << 30;
/// Room for such a message on its way.
const WINDOW_BYTES: u32 = 16 << 20;
/// Messages that wait for the other end; ranks are never further apart than the next sum.
const QUEUE: usize = 4;

/// Waits for all ranks to join, and loads rank 0's part of the model while they load theirs.
pub(crate) fn lead(
    config: &WorkerConfig,
    (listener, tls): (TcpListener, Option<ServerTls>),
    progress: &mut dyn FnMut(LoadProgress),
) -> Result<(Ranks<Cpu>, Host), WorkerError> {
    let WorkerConfig { model: folder, tp, .. } = config;
    let runtime = Handle::current();
    let rank_timeout = config.rank_timeout.unwrap_or(RANK_TIMEOUT);
    let cpu = Cpu::with(CpuConfig { weights: config.weights, ..CpuConfig::new(config.threads) });
    let identity = fingerprint(folder, cpu.arithmetic())?;
    tracing::info!(ranks = tp, "waiting for the other ranks to join");
    let (host, members) = runtime.block_on(Host::gather(listener, tls, *tp, identity, rank_timeout))?;
    let model = folder.config()?;
    let shard = Shard::all(&model, *tp).map_err(LoadError::from)?.swap_remove(0);
    let Members { hub, links, ready } = members;
    let network = Network::load_shard(cpu.in_group(hub), &folder.checkpoint()?, &model, shard, progress)?;
    runtime.block_on(host.ready(ready))?;
    let links = links.into_iter().map(|link| -> Box<dyn RankLink> { Box::new(link) });
    Ok((Ranks::new(network, links.collect()), host))
}

/// What ranks must agree in before they compute together.
fn fingerprint(model: &ModelFolder, arithmetic: Arithmetic) -> Result<String, WorkerError> {
    let identity = format!("{} {:?} {arithmetic}", model.checkpoint()?.fingerprint(), model.config()?);
    Ok(format!("{:016x}", xxh3_64(identity.as_bytes())))
}

//! Ranks in processes of their own, on one machine or several, that are one worker.
//!
//! Rank 0 is the worker: it serves, registers, and leads. Every other rank joins it by the `windlass.v1.Ranks` service, obeys its
//! orders, and hands it what sums need; rank 0 adds up in the order of ranks, as ranks that are threads do, so answers are the same
//! to the bit. Ranks may be those of several stages; what one stage leaves for the next goes by rank 0 as well. Ranks on GPUs exchange both
//! among themselves. A rank that is lost, by a broken connection or by silence, takes the group with it.

#[cfg(all(test, feature = "cuda-emulator"))]
mod emulated_tests;
mod error;
mod host;
mod hub;
mod member;
mod place;
mod process;
mod wire;

use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::Handle;
#[cfg(feature = "cuda")]
use windlass_kernels::WeightFormat;
use windlass_kernels::{Arithmetic, Cpu, CpuConfig, KvFormat};
use windlass_model::ranks::Device;
use windlass_model::split::measured_cut;
use windlass_model::stages::{LocalRanks, StageRanks};
use windlass_model::{LoadProgress, ModelConfig, ModelFolder, Network, Ranks, Ring, Runner};
use windlass_transport::ServerTls;
use xxhash_rust::xxh3::xxh3_64;

pub use error::RankError;
pub(crate) use host::Host;
use host::Joined;
use hub::{FirstStage, Hub, RemoteRank, RemoteStage, others};
pub use member::{RankConfig, serve_rank};
use place::Place;
use process::ProcessRank;

use crate::config::{WorkerBackend, WorkerConfig};
#[cfg(feature = "cuda")]
use crate::device_plan::DevicePlan;
use crate::error::WorkerError;
use crate::memory;

/// How long a rank may be silent unless set otherwise.
pub(crate) const RANK_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest message: initial latents, or a sum, of as many rows as a launch may have.
const MAX_MESSAGE_BYTES: usize = 1 << 30;
/// Room for such a message on its way.
const WINDOW_BYTES: u32 = 16 << 20;
/// Messages that wait for the other end; who sends more is held up.
const QUEUE: usize = 4;

/// Waits for all ranks to join, and loads rank 0's part of the model while they load theirs. Must be called inside a tokio runtime,
/// where it may block.
pub(crate) fn lead(
    config: &WorkerConfig,
    door: (TcpListener, Option<ServerTls>),
    progress: &mut dyn FnMut(LoadProgress),
) -> Result<(Box<dyn Runner>, Host), WorkerError> {
    match &config.backend {
        WorkerBackend::Cuda(gpus) => {
            #[cfg(feature = "cuda")]
            {
                let (gpu, device) = process::open(gpus, config.weights)?;
                lead_on(gpu, config, door, progress, |model, place| {
                    fits_gpu(model, place, config.weights, device)
                })
            }
            #[cfg(not(feature = "cuda"))]
            {
                let _ = gpus;
                Err(windlass_kernels::CudaError::NotBuilt.into())
            }
        }
        WorkerBackend::Cpu | WorkerBackend::Simulated(_) => {
            let cpu = Cpu::with(CpuConfig { weights: config.weights, ..CpuConfig::new(config.threads) });
            let kv = config.weights.kv();
            lead_on(cpu, config, door, progress, |model, place| fits_machine(model, place, kv))
        }
    }
}

/// Whether this machine has memory for what a place asks of it, but for weights.
fn fits_machine(model: &ModelConfig, place: &Place, kv: KvFormat) -> Result<(), WorkerError> {
    let (shard, core) = place.part(model)?;
    memory::check(place.capacity.part_bytes(model, (&shard, &core), kv))
}

/// Whether a GPU has memory for a place; it is given by its number and the bytes that are free there.
#[cfg(feature = "cuda")]
fn fits_gpu(
    model: &ModelConfig,
    place: &Place,
    weights: WeightFormat,
    device: (usize, u64),
) -> Result<(), WorkerError> {
    let plan = DevicePlan::of_part(model, weights, place.capacity, place.ranks, &place.part(model)?);
    let plan = if place.is_linked() { plan.linked(model, place.capacity, place.stages) } else { plan };
    Ok(DevicePlan::check(&[plan], &[device])?)
}

/// The same on a backend, once `check` has found that rank 0's part fits.
fn lead_on<B: ProcessRank>(
    backend: B,
    config: &WorkerConfig,
    (listener, tls): (TcpListener, Option<ServerTls>),
    progress: &mut dyn FnMut(LoadProgress),
    check: impl FnOnce(&ModelConfig, &Place) -> Result<(), WorkerError>,
) -> Result<(Box<dyn Runner>, Host), WorkerError> {
    let WorkerConfig { model: folder, tp, .. } = config;
    let (runtime, model) = (Handle::current(), folder.config()?);
    let arithmetic = backend.arithmetic();
    let (stages, mut backends) = measured_cut(vec![backend], config.stages, &model)?;
    let backend = backends.remove(0);
    let capacity = config.engine.capacity(&model, arithmetic.kv());
    let places = Place::all(*tp, &stages, capacity, B::new_id)?;
    let (place, part) = (places[0].clone(), places[0].part(&model)?);
    check(&model, &place)?;
    tracing::info!(ranks = places.len(), "waiting for the other ranks to join");
    let rank_timeout = config.rank_timeout.unwrap_or(RANK_TIMEOUT);
    let identity = fingerprint(folder, arithmetic)?;
    let (host, joined) = runtime.block_on(Host::gather(listener, tls, places, identity, rank_timeout))?;
    let hub = |_| (Hub::new(host.group()), Vec::new());
    let (mut by_stage, mut ready): (Vec<_>, Vec<_>) = (stages.iter().map(hub).collect(), Vec::new());
    for Joined { rank, to, summands, parts, outcomes, ready: is_ready } in joined {
        let (hub, ranks) = &mut by_stage[rank / tp];
        hub.add(rank, to.clone(), summands);
        ranks.push(RemoteRank::new(rank, to, (parts, outcomes), host.group()));
        ready.push(is_ready);
    }
    let (hub, ranks) = by_stage.remove(0);
    let load = || -> Result<_, WorkerError> {
        let backend = backend.connected(&place, hub, &host.loss())?;
        Ok(Network::load_part(backend, &folder.checkpoint()?, &model, part, progress)?)
    };
    let first = load().inspect_err(|error| host.group().lose(0, &error.to_string()))?;
    runtime.block_on(host.ready(ready))?;
    let (vocabulary, others) = (model.vocabulary, others(ranks));
    if by_stage.is_empty() {
        return Ok((Box::new(Ranks::new(first, others)), host));
    }
    let first = LocalRanks::new(Device::in_ring(first, stages.len()), others);
    // All stages have as many ranks on devices of one kind.
    let draws = first.draws();
    let mut ring: Vec<Box<dyn StageRanks>> = vec![Box::new(FirstStage::new(first, host.group()))];
    for (stage, (hub, ranks)) in (1..).zip(by_stage) {
        if *tp > 1 && B::BY_MESSAGES {
            hub.relay(stage);
        }
        ring.push(Box::new(RemoteStage::new(ranks, vocabulary, (draws, place.is_linked()))));
    }
    Ok((Box::new(Ring::of(model, arithmetic, *tp, ring, place.is_linked())), host))
}

/// What ranks must agree in before they compute together: the model, how they compute, and what they say to each other.
fn fingerprint(model: &ModelFolder, arithmetic: Arithmetic) -> Result<String, WorkerError> {
    let build = (env!("CARGO_PKG_VERSION"), windlass_proto::RANKS, Arithmetic::REVISION);
    let identity =
        format!("{} {:?} {arithmetic} {build:?}", model.checkpoint()?.fingerprint(), model.config()?);
    Ok(format!("{:016x}", xxh3_64(identity.as_bytes())))
}

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Deserialize;
use windlass_engine::Draft;
use windlass_store::membership::WorkerId;
use windlass_worker::{ServerTlsFiles, SimulatedCost, WorkerBackend, WorkerConfig};

use super::{
    EtcdOptions, TlsOptions, checked_address, gpu_config, model_folder, rank_timeout, set, thread_count,
    weight_format,
};
use crate::text_files;

/// Deepest `max_depth` that is taken for meant.
const DEEPEST: u32 = 10_000;

/// What can be set of a worker. The same names in flags, in the environment and in the file's section `worker`.
#[derive(Debug, Clone, Default, PartialEq, Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[command(next_help_heading = "Worker")]
pub(crate) struct WorkerOptions {
    /// Address of the worker's gRPC service; port 0 takes a free one
    /// [default: 127.0.0.1:8002; with `serve` 127.0.0.1:0]
    #[arg(long, value_name = "HOST:PORT", env = "WINDLASS_LISTEN")]
    pub(crate) listen: Option<String>,
    /// What computes: cpu; cuda, a GPU; or simulated, which computes nothing and draws answers that take as long as
    /// simulated_tick_us and simulated_row_us say, whatever is set of the computation. For trying out clusters [default: cpu]
    #[arg(long, value_name = "cpu|cuda|simulated", env = "WINDLASS_BACKEND")]
    pub(crate) backend: Option<String>,
    /// With backend cuda, which GPUs, as the driver counts: one for each rank of each stage, stage by stage [default: the first]
    #[arg(long, value_name = "N,…", value_delimiter = ',', env = "WINDLASS_CUDA_DEVICES")]
    pub(crate) cuda_devices: Option<Vec<usize>>,
    /// With backend cuda, folder of compiled kernels [default: windlass/kernels in the user's cache folder]
    #[arg(long, value_name = "DIR", env = "WINDLASS_CUDA_KERNEL_CACHE")]
    pub(crate) cuda_kernel_cache: Option<PathBuf>,
    /// With backend simulated, what a core iteration takes whatever the rows, in microseconds [default: 1000]
    #[arg(long, value_name = "US", env = "WINDLASS_SIMULATED_TICK_US")]
    pub(crate) simulated_tick_us: Option<u64>,
    /// With backend simulated, what each row in flight adds to a core iteration, in microseconds [default: 10]
    #[arg(long, value_name = "US", env = "WINDLASS_SIMULATED_ROW_US")]
    pub(crate) simulated_row_us: Option<u64>,
    /// Folder of the model, or `demo` for the one in this program; with backend simulated, demo is the default
    #[arg(long, value_name = "DIR|demo", env = "WINDLASS_MODEL")]
    pub(crate) model: Option<String>,
    /// Ranks that the model is split over, 1 to its attention heads (tensor parallelism). The same for all workers of one model,
    /// since answers depend on it [default: 1]
    #[arg(long, value_name = "N", env = "WINDLASS_TP")]
    pub(crate) tp: Option<usize>,
    /// Where the other ranks join, each a `windlass rank` on this machine or another; this worker is rank 0 of tp × stages then
    /// [default: all ranks are threads of this process]
    #[arg(long, value_name = "HOST:PORT", env = "WINDLASS_TP_LISTEN")]
    pub(crate) tp_listen: Option<String>,
    /// How long a rank in another process may be silent before it is lost, and with it the worker, in milliseconds
    /// [default: 10000]
    #[arg(long, value_name = "MS", env = "WINDLASS_RANK_TIMEOUT_MS")]
    pub(crate) rank_timeout_ms: Option<u64>,
    /// Threads of the computation; ranks in one process share them, each has at least one [default: all cores]
    #[arg(long, value_name = "N", env = "WINDLASS_THREADS")]
    pub(crate) threads: Option<usize>,
    /// Stages that the model is cut into, each with a part of its layers and of the threads, and with its own ranks where tp is
    /// more than 1: rows go round them in several launches at a time. 1 leaves it whole. Changes when answers come, never what they are [default: 1]
    #[arg(long, value_name = "N", env = "WINDLASS_STAGES")]
    pub(crate) stages: Option<usize>,
    /// How weights are stored: f32, as loaded; bf16, half the memory and up to twice as fast or more; int8, a quarter. Keys
    /// and values are f32 beside f32, else bf16. The same for all workers of one model, since answers depend on it [default: f32]
    #[arg(long, value_name = "f32|bf16|int8", env = "WINDLASS_WEIGHTS")]
    pub(crate) weights: Option<String>,
    /// Most sequences served at once [default: 64]
    #[arg(long, value_name = "N", env = "WINDLASS_MAX_LANES")]
    pub(crate) max_lanes: Option<usize>,
    /// Most positions in one launch of the core [default: 256]
    #[arg(long, value_name = "N", env = "WINDLASS_MAX_ROWS")]
    pub(crate) max_rows: Option<usize>,
    /// Most prompt positions of one sequence in one launch [default: 128]
    #[arg(long, value_name = "N", env = "WINDLASS_PREFILL_CHUNK")]
    pub(crate) prefill_chunk: Option<usize>,
    /// Most prompt positions of all sequences in flight; longer prompts are refused
    /// [default: the model's context length, at least 4096]
    #[arg(long, value_name = "N", env = "WINDLASS_PREFILL_POSITIONS")]
    pub(crate) prefill_positions: Option<usize>,
    /// Most requests that wait for their turn; further ones are told to come back later [default: 1024]
    #[arg(long, value_name = "N", env = "WINDLASS_MAX_WAITING")]
    pub(crate) max_waiting: Option<usize>,
    /// Memory for keys and values, in bytes [default: 1073741824]
    #[arg(long, value_name = "BYTES", env = "WINDLASS_KV_BYTES")]
    pub(crate) kv_bytes: Option<usize>,
    /// How long a token that is done iterating may wait to share prelude and coda with others: off, auto, or a number of
    /// ticks. Changes when answers come, never what they are [default: auto]
    #[arg(long, value_name = "off|auto|TICKS", env = "WINDLASS_COALESCE")]
    pub(crate) coalesce: Option<String>,
    /// Most ticks that a token waits for that [default: 16]
    #[arg(long, value_name = "TICKS", env = "WINDLASS_COALESCE_LIMIT")]
    pub(crate) coalesce_limit: Option<u32>,
    /// Let positions run on guesses of the tokens before them, as far as ticks have room: off, auto, or with a guess every so many
    /// iterations; under kv ring and anchor, and where exits look at logits, nothing is guessed. Changes when answers come, never what they
    /// are [default: auto]
    #[arg(long, value_name = "off|auto|ITERATIONS", env = "WINDLASS_DRAFT")]
    pub(crate) draft: Option<String>,
    /// Keep keys and values of prompts for prompts that begin alike [default: true]
    #[arg(long, value_name = "BOOL", env = "WINDLASS_PREFIX_CACHE")]
    pub(crate) prefix_cache: Option<bool>,
    /// Under kv ring and anchor, prompt positions that move through the depths together, a multiple of 16; only then can
    /// such prompts be kept. The same for all workers of one model, since answers depend on it
    /// [default: whole prompts, which are not kept]
    #[arg(long, value_name = "N", env = "WINDLASS_PREFILL_SEGMENT")]
    pub(crate) prefill_segment: Option<usize>,
    /// Most core iterations a request may ask for [default: what the model's folder says]
    #[arg(long, value_name = "N", env = "WINDLASS_MAX_DEPTH")]
    pub(crate) max_depth: Option<u32>,
    /// Seed of the initial latents; the same for all workers of one model [default: 0]
    #[arg(long, value_name = "S", env = "WINDLASS_LATENT_SEED")]
    pub(crate) latent_seed: Option<u64>,
    /// How long running generations may go on once the worker drains or is told to end, in seconds; those that still run then
    /// are handed over to other workers [default: 30]
    #[arg(long, value_name = "SECONDS", env = "WINDLASS_DRAIN_DEADLINE_S")]
    pub(crate) drain_deadline_s: Option<u64>,
    // Of the worker's section; the flags are `TlsOptions`, which worker and coordinator share.
    #[arg(skip)]
    pub(crate) tls_certificate: Option<PathBuf>,
    #[arg(skip)]
    pub(crate) tls_key: Option<PathBuf>,
    #[arg(skip)]
    pub(crate) tls_client_ca: Option<PathBuf>,
    /// How long the engine may be busy without an answer before coordinators take the worker for stuck, in milliseconds; more
    /// than its longest tick takes [default: 10000]
    #[arg(long, value_name = "MS", env = "WINDLASS_STUCK_AFTER_MS")]
    pub(crate) stuck_after_ms: Option<u64>,
    /// Where the worker registers, so that coordinators find it: none, or etcd [default: etcd if it has endpoints, else
    /// none]
    #[arg(long, value_name = "none|etcd", env = "WINDLASS_REGISTRY")]
    pub(crate) registry: Option<String>,
    /// Its name in the registry, unlike all others [default: a random one]
    #[arg(long, value_name = "NAME", env = "WINDLASS_WORKER_ID")]
    pub(crate) worker_id: Option<String>,
    /// Address at which coordinators reach it; needed where it listens on all addresses [default: where it listens]
    #[arg(long, value_name = "HOST:PORT", env = "WINDLASS_ADVERTISE")]
    pub(crate) advertise: Option<String>,
    /// How long a worker that died without a word stays registered, in seconds, 2 to 3600 [default: 10]
    #[arg(long, value_name = "SECONDS", env = "WINDLASS_LEASE_TTL_S")]
    pub(crate) lease_ttl_s: Option<u64>,
}

/// A worker's settings, checked.
#[derive(Debug)]
pub(crate) struct WorkerSettings {
    pub(crate) listen: String,
    pub(crate) config: WorkerConfig,
    /// `None`: all ranks are in the worker's process.
    pub(crate) tp_listen: Option<String>,
    /// `None`: the worker registers nowhere.
    pub(crate) registration: Option<RegistrationSettings>,
}

/// How a worker registers in etcd.
#[derive(Debug)]
pub(crate) struct RegistrationSettings {
    pub(crate) id: WorkerId,
    /// `None`: where it listens.
    pub(crate) advertise: Option<String>,
    pub(crate) time_to_live: Duration,
}

impl WorkerOptions {
    /// These options, completed by others.
    pub(crate) fn or(self, other: Self) -> Self {
        Self {
            listen: self.listen.or(other.listen),
            backend: self.backend.or(other.backend),
            cuda_devices: self.cuda_devices.or(other.cuda_devices),
            cuda_kernel_cache: self.cuda_kernel_cache.or(other.cuda_kernel_cache),
            simulated_tick_us: self.simulated_tick_us.or(other.simulated_tick_us),
            simulated_row_us: self.simulated_row_us.or(other.simulated_row_us),
            model: self.model.or(other.model),
            tp: self.tp.or(other.tp),
            tp_listen: self.tp_listen.or(other.tp_listen),
            rank_timeout_ms: self.rank_timeout_ms.or(other.rank_timeout_ms),
            threads: self.threads.or(other.threads),
            stages: self.stages.or(other.stages),
            weights: self.weights.or(other.weights),
            max_lanes: self.max_lanes.or(other.max_lanes),
            max_rows: self.max_rows.or(other.max_rows),
            prefill_chunk: self.prefill_chunk.or(other.prefill_chunk),
            prefill_positions: self.prefill_positions.or(other.prefill_positions),
            max_waiting: self.max_waiting.or(other.max_waiting),
            kv_bytes: self.kv_bytes.or(other.kv_bytes),
            coalesce: self.coalesce.or(other.coalesce),
            coalesce_limit: self.coalesce_limit.or(other.coalesce_limit),
            draft: self.draft.or(other.draft),
            prefix_cache: self.prefix_cache.or(other.prefix_cache),
            prefill_segment: self.prefill_segment.or(other.prefill_segment),
            max_depth: self.max_depth.or(other.max_depth),
            latent_seed: self.latent_seed.or(other.latent_seed),
            drain_deadline_s: self.drain_deadline_s.or(other.drain_deadline_s),
            tls_certificate: self.tls_certificate.or(other.tls_certificate),
            tls_key: self.tls_key.or(other.tls_key),
            tls_client_ca: self.tls_client_ca.or(other.tls_client_ca),
            stuck_after_ms: self.stuck_after_ms.or(other.stuck_after_ms),
            registry: self.registry.or(other.registry),
            worker_id: self.worker_id.or(other.worker_id),
            advertise: self.advertise.or(other.advertise),
            lease_ttl_s: self.lease_ttl_s.or(other.lease_ttl_s),
        }
    }

    /// These options, with TLS as the flags have it.
    pub(crate) fn with_tls(self, tls: TlsOptions) -> Self {
        let TlsOptions { tls_certificate, tls_key, tls_client_ca } = tls;
        Self { tls_certificate, tls_key, tls_client_ca, ..self }
    }

    /// These options for a worker to which etcd is known: it registers there unless told otherwise.
    pub(crate) fn with_etcd(self, etcd: &EtcdOptions) -> Self {
        let by_default = etcd.endpoints.as_ref().map(|_| "etcd".to_owned());
        Self { registry: self.registry.or(by_default), ..self }
    }

    /// Fills in defaults and checks every value. Reads the model's configs, and none of its weights.
    pub(crate) fn settings(self, default_listen: &str) -> Result<WorkerSettings> {
        let backend = self.backend()?;
        self.check_partners(&backend)?;
        let registration = self.registration()?;
        let tp_listen = self.tp_listen(&backend)?;
        let listen = checked_address("listen", self.listen.unwrap_or_else(|| default_listen.to_owned()))?;
        let default_model = matches!(backend, WorkerBackend::Simulated(_)).then(|| "demo".to_owned());
        let model = self.model.or(default_model);
        let model =
            model.context("model is not set: name its folder, or demo for the one in this program")?;
        let mut config = WorkerConfig::new(model_folder(&model)?)?;
        config.backend = backend;
        text_files::check(&config.model)?;
        set(&mut config.tp, self.tp);
        config.rank_timeout = tp_listen.as_ref().map(|_| rank_timeout(self.rank_timeout_ms)).transpose()?;
        config.threads = thread_count(self.threads)?;
        set(&mut config.stages, self.stages);
        set(&mut config.weights, self.weights.as_deref().map(weight_format).transpose()?);
        set(&mut config.engine.max_lanes, self.max_lanes);
        set(&mut config.engine.max_rows, self.max_rows);
        set(&mut config.engine.prefill_chunk, self.prefill_chunk);
        set(&mut config.engine.prefill_positions, self.prefill_positions);
        set(&mut config.engine.max_waiting, self.max_waiting);
        set(&mut config.engine.kv_bytes, self.kv_bytes);
        set(&mut config.engine.max_depth, self.max_depth);
        set(&mut config.engine.coalesce, self.coalesce.as_deref().map(str::parse).transpose()?);
        set(&mut config.engine.coalesce_limit, self.coalesce_limit);
        set(&mut config.engine.draft, self.draft.as_deref().map(str::parse).transpose()?);
        set(&mut config.engine.prefix_cache, self.prefix_cache);
        set(&mut config.engine.prefill_segment, self.prefill_segment.map(Some));
        set(&mut config.latent_seed, self.latent_seed);
        set(&mut config.drain_deadline, self.drain_deadline_s.map(Duration::from_secs));
        config.tls = ServerTlsFiles::from_settings(self.tls_certificate, self.tls_key, self.tls_client_ca)?;
        set(&mut config.stuck_after, self.stuck_after_ms.map(Duration::from_millis));
        config.validate()?;
        check_sense(&config)?;
        check_advertise(&listen, registration.as_ref())?;
        Ok(WorkerSettings { listen, config, tp_listen, registration })
    }
}

impl WorkerOptions {
    fn registration(&self) -> Result<Option<RegistrationSettings>> {
        match self.registry.as_deref() {
            None => return self.refuse_unregistered().map(|()| None),
            Some("none") => return Ok(None),
            Some("etcd") => {}
            Some(name) => bail!("registry is '{name}': use none or etcd"),
        }
        let id = match &self.worker_id {
            Some(id) => WorkerId::new(id).context("worker_id")?,
            None => WorkerId::random(),
        };
        let advertise =
            self.advertise.clone().map(|address| checked_address("advertise", address)).transpose()?;
        let seconds = self.lease_ttl_s.unwrap_or(10);
        if !(2..=3600).contains(&seconds) {
            bail!("lease_ttl_s is {seconds}: use 2 to 3600");
        }
        Ok(Some(RegistrationSettings { id, advertise, time_to_live: Duration::from_secs(seconds) }))
    }

    /// Where other processes join as ranks, if they do.
    fn tp_listen(&self, backend: &WorkerBackend) -> Result<Option<String>> {
        let tp = self.tp.unwrap_or(1);
        match backend {
            WorkerBackend::Simulated(_) if tp > 1 => {
                bail!("tp is {tp}, but backend is simulated, which computes nothing: leave tp out")
            }
            WorkerBackend::Cpu | WorkerBackend::Cuda(_) | WorkerBackend::Simulated(_) => {}
        }
        match (&self.tp_listen, self.rank_timeout_ms) {
            (None, Some(_)) => {
                bail!(
                    "rank_timeout_ms is set and tp_listen is not: leave it out, ranks in one process are lost together"
                )
            }
            (None, None) => Ok(None),
            (Some(_), _) if tp == 1 && self.stages.unwrap_or(1) == 1 => {
                bail!(
                    "tp_listen is set, and tp and stages are 1: set one of them to how many processes share the model"
                )
            }
            (Some(address), _) => checked_address("tp_listen", address.clone()).map(Some),
        }
    }

    /// The name of the first setting that is only of use where the worker registers, if one is set.
    pub(crate) fn first_of_registration(&self) -> Option<&'static str> {
        let fields = [
            ("worker_id", self.worker_id.is_some()),
            ("advertise", self.advertise.is_some()),
            ("lease_ttl_s", self.lease_ttl_s.is_some()),
        ];
        fields.into_iter().find_map(|(field, is_set)| is_set.then_some(field))
    }

    fn refuse_unregistered(&self) -> Result<()> {
        match self.first_of_registration() {
            Some(field) => bail!(
                "{field} is set, and the worker registers nowhere: set etcd_endpoints, leave it out, or set registry to none"
            ),
            None => Ok(()),
        }
    }

    /// Refuses what is only of use with other settings than these.
    fn check_partners(&self, backend: &WorkerBackend) -> Result<()> {
        let is_simulated = matches!(backend, WorkerBackend::Simulated(_));
        let is_cuda = matches!(backend, WorkerBackend::Cuda(_));
        let partners = [
            ("simulated_tick_us", self.simulated_tick_us.is_some(), "simulated", is_simulated),
            ("simulated_row_us", self.simulated_row_us.is_some(), "simulated", is_simulated),
            ("cuda_devices", self.cuda_devices.is_some(), "cuda", is_cuda),
            ("cuda_kernel_cache", self.cuda_kernel_cache.is_some(), "cuda", is_cuda),
        ];
        for (field, is_set, name, is_backend) in partners {
            if is_set && !is_backend {
                bail!("{field} is set, and backend is not {name}: set backend to {name}, or leave it out");
            }
        }
        if self.coalesce_limit.is_some() && self.coalesce.as_deref() == Some("off") {
            bail!("coalesce_limit is set, and coalesce is off: leave it out, or set coalesce to auto");
        }
        Ok(())
    }

    fn backend(&self) -> Result<WorkerBackend> {
        match self.backend.as_deref() {
            None | Some("cpu") => Ok(WorkerBackend::Cpu),
            Some("cuda") => {
                let ranks = match self.tp_listen {
                    Some(_) => 1,
                    None => self.tp.unwrap_or(1) * self.stages.unwrap_or(1),
                };
                let cache = self.cuda_kernel_cache.clone();
                Ok(WorkerBackend::Cuda(gpu_config(self.cuda_devices.clone(), cache, ranks)?))
            }
            Some("simulated") => {
                let mut cost = SimulatedCost::default();
                set(&mut cost.tick, self.simulated_tick_us.map(Duration::from_micros));
                set(&mut cost.row, self.simulated_row_us.map(Duration::from_micros));
                Ok(WorkerBackend::Simulated(cost))
            }
            Some(name) => bail!("backend is '{name}': use cpu, cuda or simulated"),
        }
    }
}

/// Refuses to register an address that leads nowhere.
fn check_advertise(listen: &str, registration: Option<&RegistrationSettings>) -> Result<()> {
    let lacks_address = registration.is_some_and(|registration| registration.advertise.is_none());
    if lacks_address && ["0.0.0.0:", "[::]:"].iter().any(|any| listen.starts_with(any)) {
        bail!("listen is {listen}, which is no address to be reached at: set advertise to HOST:PORT");
    }
    Ok(())
}

/// Refuses limits that would work and that nobody can mean.
fn check_sense(config: &WorkerConfig) -> Result<()> {
    let (positions, chunk) = (config.engine.prefill_positions, config.engine.prefill_chunk);
    if positions < chunk {
        bail!("prefill_positions is {positions}: use at least prefill_chunk, which is {chunk}");
    }
    let max_depth = config.engine.max_depth;
    if max_depth > DEEPEST {
        bail!("max_depth is {max_depth}: use 1 to {DEEPEST}");
    }
    if let Draft::Every(interval) = config.engine.draft
        && interval >= max_depth
    {
        bail!("draft is {interval}: use less than max_depth, which is {max_depth}, or off");
    }
    Ok(())
}

#[cfg(test)]
#[path = "worker_tests.rs"]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Deserialize;
use windlass_kernels::GpuConfig;
use windlass_worker::{ClientTlsFiles, PemFile, RankConfig, WorkerError};

use super::{checked_address, gpu_config, model_folder, rank_timeout, set, thread_count, weight_format};

/// What can be set of a rank. The same names in flags, in the environment and in the file's section `rank`.
#[derive(Debug, Clone, Default, PartialEq, Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[command(next_help_heading = "Rank")]
pub(crate) struct RankOptions {
    /// The worker's `tp_listen`; a worker that is not there yet is waited for
    #[arg(long, value_name = "HOST:PORT", env = "WINDLASS_JOIN")]
    pub(crate) join: Option<String>,
    /// Which rank this is, 1 to one less than the worker's `tp` × `stages`, stage by stage
    #[arg(long, value_name = "I", env = "WINDLASS_RANK")]
    pub(crate) rank: Option<usize>,
    /// Folder of the model, or `demo` for the one in this program; the same as the worker's
    #[arg(long, value_name = "DIR|demo", env = "WINDLASS_MODEL")]
    pub(crate) model: Option<String>,
    /// What computes, as the worker does: cpu, or cuda, a GPU [default: cpu]
    #[arg(long, value_name = "cpu|cuda", env = "WINDLASS_BACKEND")]
    pub(crate) backend: Option<String>,
    /// With backend cuda, which GPU, as the driver counts [default: the first]
    #[arg(long, value_name = "N", value_delimiter = ',', env = "WINDLASS_CUDA_DEVICES")]
    pub(crate) cuda_devices: Option<Vec<usize>>,
    /// With backend cuda, folder of compiled kernels [default: windlass/kernels in the user's cache folder]
    #[arg(long, value_name = "DIR", env = "WINDLASS_CUDA_KERNEL_CACHE")]
    pub(crate) cuda_kernel_cache: Option<PathBuf>,
    /// Threads of this rank [default: all cores]
    #[arg(long, value_name = "N", env = "WINDLASS_THREADS")]
    pub(crate) threads: Option<usize>,
    /// How weights are stored, as the worker does [default: f32]
    #[arg(long, value_name = "f32|bf16|int8", env = "WINDLASS_WEIGHTS")]
    pub(crate) weights: Option<String>,
    /// PEM file of the authority that signed the worker's certificate; it is reached by TLS then
    #[arg(long, value_name = "FILE", env = "WINDLASS_JOIN_CA")]
    pub(crate) join_ca: Option<PathBuf>,
    /// PEM file of the certificate to show to a worker that asks for one
    #[arg(long, value_name = "FILE", env = "WINDLASS_JOIN_CERTIFICATE")]
    pub(crate) join_certificate: Option<PathBuf>,
    /// PEM file of that certificate's private key
    #[arg(long, value_name = "FILE", env = "WINDLASS_JOIN_KEY")]
    pub(crate) join_key: Option<PathBuf>,
    /// Name that the worker's certificate must carry, where it is not that of its address
    #[arg(long, value_name = "NAME", env = "WINDLASS_JOIN_TLS_NAME")]
    pub(crate) join_tls_name: Option<String>,
    /// How long the worker may be silent before it is lost, in milliseconds [default: 10000]
    #[arg(long, value_name = "MS", env = "WINDLASS_RANK_TIMEOUT_MS")]
    pub(crate) rank_timeout_ms: Option<u64>,
    /// How long the worker may go on once this rank is told to end, in seconds [default: 30]
    #[arg(long, value_name = "SECONDS", env = "WINDLASS_DRAIN_DEADLINE_S")]
    pub(crate) drain_deadline_s: Option<u64>,
}

impl RankOptions {
    /// These options, completed by others.
    pub(crate) fn or(self, other: Self) -> Self {
        Self {
            join: self.join.or(other.join),
            rank: self.rank.or(other.rank),
            model: self.model.or(other.model),
            backend: self.backend.or(other.backend),
            cuda_devices: self.cuda_devices.or(other.cuda_devices),
            cuda_kernel_cache: self.cuda_kernel_cache.or(other.cuda_kernel_cache),
            threads: self.threads.or(other.threads),
            weights: self.weights.or(other.weights),
            join_ca: self.join_ca.or(other.join_ca),
            join_certificate: self.join_certificate.or(other.join_certificate),
            join_key: self.join_key.or(other.join_key),
            join_tls_name: self.join_tls_name.or(other.join_tls_name),
            rank_timeout_ms: self.rank_timeout_ms.or(other.rank_timeout_ms),
            drain_deadline_s: self.drain_deadline_s.or(other.drain_deadline_s),
        }
    }

    /// Fills in defaults and checks every value but the rank's upper bound, which the worker knows.
    pub(crate) fn config(self) -> Result<RankConfig> {
        let join = self.join.clone().context("join is not set: name the worker's tp_listen as HOST:PORT")?;
        let rank = self.rank.context("rank is not set: use 1 to one less than the worker's tp × stages")?;
        if rank == 0 {
            bail!("rank is 0: use 1 to one less than the worker's tp × stages, rank 0 is the worker itself");
        }
        let model = self.model.as_deref();
        let model =
            model.context("model is not set: name its folder, or demo for the one in this program")?;
        let mut config = RankConfig::new(checked_address("join", join)?, rank, model_folder(model)?);
        config.threads = thread_count(self.threads)?;
        set(&mut config.weights, self.weights.as_deref().map(weight_format).transpose()?);
        config.gpu = self.gpu()?;
        config.rank_timeout = rank_timeout(self.rank_timeout_ms)?;
        set(&mut config.drain_deadline, self.drain_deadline_s.map(Duration::from_secs));
        config.tls = self.tls()?;
        Ok(config)
    }

    fn gpu(&self) -> Result<Option<GpuConfig>> {
        match self.backend.as_deref() {
            None | Some("cpu") => {
                let of_cuda = [
                    ("cuda_devices", self.cuda_devices.is_some()),
                    ("cuda_kernel_cache", self.cuda_kernel_cache.is_some()),
                ];
                match of_cuda.iter().find(|(_, is_set)| *is_set) {
                    Some((field, _)) => {
                        bail!("{field} is set, and backend is not cuda: set backend to cuda, or leave it out")
                    }
                    None => Ok(None),
                }
            }
            Some("cuda") => {
                let gpus = gpu_config(self.cuda_devices.clone(), self.cuda_kernel_cache.clone(), 1)?;
                match gpus.devices.len() {
                    1 => Ok(Some(gpus)),
                    devices => Err(WorkerError::Devices { devices, ranks: 1 }.into()),
                }
            }
            Some(name) => bail!("backend is '{name}': use cpu or cuda"),
        }
    }

    fn tls(self) -> Result<Option<ClientTlsFiles>> {
        let Some(ca) = self.join_ca else {
            let needs_ca = [
                ("join_certificate", self.join_certificate.is_some()),
                ("join_key", self.join_key.is_some()),
                ("join_tls_name", self.join_tls_name.is_some()),
            ];
            return match needs_ca.iter().find(|(_, is_set)| *is_set) {
                Some((field, _)) => bail!(
                    "join_ca is not set, but {field} is: set it to the authority that signed the worker's certificate"
                ),
                None => Ok(None),
            };
        };
        let files = ClientTlsFiles::new(PemFile::new("join_ca", ca))
            .with_identity(("join_certificate", self.join_certificate), ("join_key", self.join_key))?
            .with_server_name(self.join_tls_name);
        Ok(Some(files))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> RankOptions {
        let [join, model] = ["a:1", "demo"].map(|text| Some(text.to_owned()));
        RankOptions { join, model, rank: Some(1), ..RankOptions::default() }
    }

    #[test]
    fn defaults_are_those_of_the_help() {
        let config = options().config().unwrap();
        assert_eq!((config.rank_timeout.as_millis(), config.drain_deadline.as_secs()), (10_000, 30));
        assert_eq!((config.weights.to_string().as_str(), config.tls), ("f32", None));
        assert_eq!(config.gpu, None);
    }

    #[test]
    fn a_rank_has_one_gpu() {
        let cuda = |devices: Option<Vec<usize>>| {
            let backend = Some("cuda".to_owned());
            RankOptions { backend, cuda_devices: devices, ..options() }.config()
        };
        let devices = |config: RankConfig| config.gpu.unwrap().devices;
        assert_eq!(devices(cuda(None).unwrap()), [0]);
        assert_eq!(devices(cuda(Some(vec![3])).unwrap()), [3]);
        let error = cuda(Some(vec![0, 1])).unwrap_err().to_string();
        assert!(error.starts_with("cuda_devices names 2 GPUs and this process has 1 ranks"), "{error}");
    }

    #[test]
    fn wrong_values_are_named_with_a_remedy() {
        let cases = [
            (RankOptions { join: None, ..options() }, "join is not set: name the worker's tp_listen"),
            (RankOptions { join: Some("a".into()), ..options() }, "join is 'a': use HOST:PORT"),
            (RankOptions { rank: None, ..options() }, "rank is not set: use 1 to"),
            (RankOptions { rank: Some(0), ..options() }, "rank is 0: use 1 to"),
            (RankOptions { model: None, ..options() }, "model is not set: name its folder"),
            (RankOptions { backend: Some("gpu".into()), ..options() }, "backend is 'gpu': use cpu or cuda"),
            (
                RankOptions { cuda_devices: Some(vec![0]), ..options() },
                "cuda_devices is set, and backend is not cuda",
            ),
            (RankOptions { threads: Some(0), ..options() }, "threads is 0: use 1 to 1024"),
            (RankOptions { weights: Some("f16".into()), ..options() }, "weights is 'f16': use f32,"),
            (RankOptions { rank_timeout_ms: Some(0), ..options() }, "rank_timeout_ms is 0: use 100 to"),
            (RankOptions { join_key: Some("k".into()), ..options() }, "join_ca is not set, but join_key is"),
        ];
        for (options, expected) in cases {
            let message = options.config().unwrap_err().to_string();
            assert!(message.starts_with(expected), "{message}");
        }
    }
}

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use serde::Deserialize;
use windlass_wording::plain;

use super::{CoordinatorOptions, EtcdOptions, JobsOptions, RankOptions, WorkerOptions};

/// A file of settings. One file may serve workers, their ranks and coordinators: each takes its own section.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ConfigFile {
    pub(crate) worker: WorkerOptions,
    pub(crate) rank: RankOptions,
    pub(crate) coordinator: CoordinatorOptions,
    pub(crate) etcd: EtcdOptions,
    pub(crate) jobs: JobsOptions,
}

impl ConfigFile {
    /// Reads the file, if there is one. A key that is not known is an error.
    pub(crate) fn read(path: Option<&Path>) -> Result<Self> {
        let Some(path) = path else { return Ok(Self::default()) };
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("{} is no valid config", path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        toml::from_str(text).map_err(|error| {
            let said = error.message();
            anyhow!("{}", error.to_string().replace(said, &plain(said)).trim_end())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ConfigFile, String> {
        ConfigFile::parse(text).map_err(|error| error.to_string())
    }

    #[test]
    fn all_sections_are_read() {
        let file = parse(
            "[worker]\nlisten = '127.0.0.1:1'\nmodel = 'demo'\nthreads = 2\nkv_bytes = 1048576\nlatent_seed = 7\n\
             [coordinator]\nworkers = ['a:1', 'b:2']\nmax_concurrent_requests = 9\n[jobs]\njobs_dir = '/data'\n",
        )
        .unwrap();
        assert_eq!(
            (file.worker.threads, file.worker.kv_bytes, file.worker.latent_seed),
            (Some(2), Some(1 << 20), Some(7))
        );
        assert_eq!(file.coordinator.workers, Some(vec!["a:1".to_owned(), "b:2".to_owned()]));
        assert_eq!(file.coordinator.http, None);
        assert_eq!(file.jobs.jobs_dir, Some("/data".into()));
    }

    #[test]
    fn unknown_keys_and_wrong_types_are_named() {
        let cases = [
            ("[worker]\nlanes = 3", "unknown field 'lanes': use one of listen, backend, "),
            ("[coordinator]\nhttps = 'x'", "unknown field 'https': use one of http, grpc, "),
            ("[engine]", "unknown field 'engine': use one of worker, rank, coordinator, etcd, jobs"),
            ("threads = 3", "unknown field 'threads': use one of worker, rank, coordinator, etcd, jobs"),
            ("[worker]\nthreads = 'many'", "threads = 'many'"),
            (
                "[worker]\nthreads = 'many'",
                "expected a whole number from 0 to 18446744073709551615, not \"many\"",
            ),
            ("[worker]\nmax_lanes = -1", "max_lanes = -1"),
        ];
        for (text, expected) in cases {
            let message = parse(text).unwrap_err();
            assert!(message.contains(expected), "{message}");
        }
    }
}

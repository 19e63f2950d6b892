use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use serde::Deserialize;
use url::Url;
use windlass_jobs::{Blobs, Jobs, JobsConfig};
use windlass_store::{LocalStore, Store};

use super::{EtcdSettings, set};

/// Name of the database in the folder of jobs.
const DATABASE: &str = "jobs.redb";

/// What can be set of jobs. The same names in flags, in the environment and in the file's section `jobs`.
#[derive(Debug, Clone, Default, PartialEq, Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[command(next_help_heading = "Jobs")]
pub(crate) struct JobsOptions {
    /// Folder for jobs where there is no etcd: a database, and their items and results; it is made if there is none. One
    /// coordinator at a time can use it [default: none, and jobs are refused]
    #[arg(long, value_name = "DIR", env = "WINDLASS_JOBS_DIR")]
    pub(crate) jobs_dir: Option<PathBuf>,
    /// Where items and results are kept: file:///…, s3://…, gs://… or az://…, with the credentials of the environment. With
    /// etcd, which holds the rest, a place that all coordinators of the cluster reach [default: jobs_dir; with etcd none,
    /// and jobs are refused]
    #[arg(long, value_name = "URL", env = "WINDLASS_JOBS_URL")]
    pub(crate) jobs_url: Option<String>,
    /// Folders that jobs may read their input from and write their output to, as URLs separated by commas. Whoever may
    /// submit jobs reads and writes there with this server's rights [default: none]
    #[arg(long, value_name = "URL,...", env = "WINDLASS_JOBS_URIS", value_delimiter = ',')]
    pub(crate) jobs_uris: Option<Vec<String>>,
    /// Most items of jobs that are generated at once, besides other requests [default: 64]
    #[arg(long, value_name = "N", env = "WINDLASS_JOBS_CONCURRENCY")]
    pub(crate) jobs_concurrency: Option<usize>,
    /// How long jobs are kept once they have ended, in seconds; looked at every five minutes [default: for ever]
    #[arg(long, value_name = "SECONDS", env = "WINDLASS_JOBS_RETENTION_S")]
    pub(crate) jobs_retention_s: Option<u64>,
    /// Most items of a job [default: 1000000]
    #[arg(long, value_name = "N", env = "WINDLASS_JOBS_MAX_ITEMS")]
    pub(crate) jobs_max_items: Option<u64>,
    /// Largest item [default: 262144]
    #[arg(long, value_name = "BYTES", env = "WINDLASS_JOBS_MAX_ITEM_BYTES")]
    pub(crate) jobs_max_item_bytes: Option<usize>,
    /// Most jobs that have not ended; further ones are told to come back later [default: 1000]
    #[arg(long, value_name = "N", env = "WINDLASS_JOBS_MAX_OPEN")]
    pub(crate) jobs_max_open: Option<usize>,
}

/// What is set of jobs, checked.
#[derive(Debug)]
pub(crate) struct JobsSettings {
    place: Option<Place>,
    config: JobsConfig,
}

/// Where jobs are kept.
#[derive(Debug)]
enum Place {
    /// All in a folder, or items and results elsewhere.
    Folder { dir: PathBuf, url: Option<Url> },
    /// In the cluster's store, and items and results where all its coordinators reach them.
    Shared { store: Arc<dyn Store>, url: Url },
}

impl JobsOptions {
    /// These options, completed by others.
    pub(crate) fn or(self, other: Self) -> Self {
        Self {
            jobs_dir: self.jobs_dir.or(other.jobs_dir),
            jobs_url: self.jobs_url.or(other.jobs_url),
            jobs_uris: self.jobs_uris.or(other.jobs_uris),
            jobs_concurrency: self.jobs_concurrency.or(other.jobs_concurrency),
            jobs_retention_s: self.jobs_retention_s.or(other.jobs_retention_s),
            jobs_max_items: self.jobs_max_items.or(other.jobs_max_items),
            jobs_max_item_bytes: self.jobs_max_item_bytes.or(other.jobs_max_item_bytes),
            jobs_max_open: self.jobs_max_open.or(other.jobs_max_open),
        }
    }

    /// Fills in defaults and checks every value; without etcd, jobs are this process's own.
    pub(crate) fn settings(self, etcd: Option<&EtcdSettings>) -> Result<JobsSettings> {
        let place = self.place(etcd)?;
        let uris = self.jobs_uris.unwrap_or_default();
        let mut config = JobsConfig {
            uris: uris.iter().map(|text| self::url("jobs_uris", text)).collect::<Result<_>>()?,
            retention: self.jobs_retention_s.map(Duration::from_secs),
            ..JobsConfig::default()
        };
        set(&mut config.cluster, etcd.map(|etcd| etcd.cluster.clone()));
        set(&mut config.concurrency, self.jobs_concurrency);
        set(&mut config.max_items, self.jobs_max_items);
        set(&mut config.max_item_bytes, self.jobs_max_item_bytes);
        set(&mut config.max_open, self.jobs_max_open);
        let at_least_one = [
            ("jobs_concurrency", config.concurrency == 0),
            ("jobs_max_items", config.max_items == 0),
            ("jobs_max_item_bytes", config.max_item_bytes == 0),
            ("jobs_max_open", config.max_open == 0),
        ];
        if let Some((field, _)) = at_least_one.iter().find(|(_, is_none)| *is_none) {
            bail!("{field} is 0: use at least 1");
        }
        Ok(JobsSettings { place, config })
    }

    /// The name of the first of these that is set, besides where jobs are kept.
    fn first_set(&self) -> Option<&'static str> {
        let fields = [
            ("jobs_uris", self.jobs_uris.is_some()),
            ("jobs_concurrency", self.jobs_concurrency.is_some()),
            ("jobs_retention_s", self.jobs_retention_s.is_some()),
            ("jobs_max_items", self.jobs_max_items.is_some()),
            ("jobs_max_item_bytes", self.jobs_max_item_bytes.is_some()),
            ("jobs_max_open", self.jobs_max_open.is_some()),
        ];
        fields.into_iter().find_map(|(field, is_set)| is_set.then_some(field))
    }

    fn place(&self, etcd: Option<&EtcdSettings>) -> Result<Option<Place>> {
        let url = self.jobs_url.as_deref().map(|text| url("jobs_url", text)).transpose()?;
        let place = match (etcd, &self.jobs_dir, url) {
            (Some(_), Some(_), _) => bail!(
                "jobs_dir and etcd_endpoints are both set: with etcd jobs are shared, so set jobs_url to a place that all \
                 coordinators reach, and leave jobs_dir out"
            ),
            (Some(etcd), None, Some(url)) => Some(Place::Shared { store: Arc::clone(&etcd.store), url }),
            (None, Some(dir), url) => Some(Place::Folder { dir: dir.clone(), url }),
            (None, None, Some(_)) => {
                bail!("jobs_url is set and jobs_dir is not: set it too, the database of jobs lies there")
            }
            (_, None, None) => None,
        };
        if let (None, Some(field)) = (&place, self.first_set()) {
            let missing = if etcd.is_some() { "jobs_url" } else { "jobs_dir" };
            bail!("{field} is set and {missing} is not: set it to where jobs are kept");
        }
        Ok(place)
    }
}

impl JobsSettings {
    /// Opens what jobs are kept in; `None` where there is no place for them. Must be called inside a tokio runtime.
    pub(crate) fn open(self) -> Result<Option<Jobs>> {
        let (dir, url) = match self.place {
            None => return Ok(None),
            Some(Place::Shared { store, url }) => {
                return Ok(Some(Jobs::new(self.config, store, Blobs::at(&url)?)));
            }
            Some(Place::Folder { dir, url }) => (dir, url),
        };
        let failed = || format!("jobs_dir: cannot use {}", dir.display());
        fs::create_dir_all(&dir).with_context(failed)?;
        let dir = dir.canonicalize().with_context(failed)?;
        let store = LocalStore::open(&dir.join(DATABASE)).with_context(failed)?;
        let beside = || Url::from_directory_path(&dir).map_err(|()| anyhow!(failed()));
        let url = url.map_or_else(beside, Ok)?;
        Ok(Some(Jobs::new(self.config, Arc::new(store), Blobs::at(&url)?)))
    }
}

fn url(field: &str, text: &str) -> Result<Url> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "file" | "s3" | "gs" | "az"));
    url.with_context(|| format!("{field} is '{text}': use file:///…, s3://…, gs://… or az://…"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::EtcdOptions;

    fn options() -> JobsOptions {
        JobsOptions { jobs_dir: Some("/data".into()), ..JobsOptions::default() }
    }

    #[test]
    fn defaults_are_those_of_the_help() {
        let JobsSettings { config, .. } = options().settings(None).unwrap();
        assert_eq!((config.concurrency, config.max_items, config.max_item_bytes), (64, 1_000_000, 262_144));
        assert_eq!((config.max_open, config.retention, config.uris.len()), (1000, None, 0));
    }

    #[test]
    fn wrong_values_are_named_with_a_remedy() {
        let cases = [
            (JobsOptions { jobs_url: Some("/x".into()), ..options() }, "jobs_url is '/x': use file:///…"),
            (
                JobsOptions { jobs_uris: Some(vec!["http://x".into()]), ..options() },
                "jobs_uris is 'http://x'",
            ),
            (JobsOptions { jobs_concurrency: Some(0), ..options() }, "jobs_concurrency is 0: use at least 1"),
            (JobsOptions { jobs_max_open: Some(0), ..options() }, "jobs_max_open is 0: use at least 1"),
            (
                JobsOptions { jobs_url: Some("s3://b/x".into()), ..JobsOptions::default() },
                "jobs_url is set and jobs_dir is not",
            ),
            (
                JobsOptions { jobs_uris: Some(vec!["s3://b".into()]), ..JobsOptions::default() },
                "jobs_uris is set and jobs_dir is not: set it",
            ),
            (
                JobsOptions { jobs_retention_s: Some(9), ..JobsOptions::default() },
                "jobs_retention_s is set and jobs_dir is not: set it",
            ),
        ];
        for (options, expected) in cases {
            let message = options.settings(None).unwrap_err().to_string();
            assert!(message.starts_with(expected), "{message}");
        }
    }

    #[tokio::test]
    async fn with_etcd_jobs_are_those_of_its_cluster_and_need_a_place_for_all() {
        let etcd = EtcdOptions {
            endpoints: Some(vec!["http://etcd:2379".into()]),
            cluster: Some("second".into()),
            ..EtcdOptions::default()
        };
        let etcd = etcd.settings().unwrap();
        let url = Some("s3://bucket/jobs".to_owned());
        let with_url = JobsOptions { jobs_url: url.clone(), ..JobsOptions::default() };
        let JobsSettings { place, config } = with_url.settings(etcd.as_ref()).unwrap();
        assert!(matches!(place, Some(Place::Shared { .. })) && config.cluster == "second");
        let without = JobsOptions::default().settings(etcd.as_ref()).unwrap();
        assert!(without.place.is_none(), "jobs are refused");
        for (options, expected) in [
            (
                options(),
                "jobs_dir and etcd_endpoints are both set: with etcd jobs are shared, so set jobs_url",
            ),
            (JobsOptions { jobs_url: url, ..options() }, "jobs_dir and etcd_endpoints are both set"),
            (
                JobsOptions { jobs_uris: Some(vec!["s3://b".into()]), ..JobsOptions::default() },
                "jobs_uris is set and jobs_url is not: set it",
            ),
        ] {
            let message = options.settings(etcd.as_ref()).unwrap_err().to_string();
            assert!(message.starts_with(expected), "{message}");
        }
    }
}

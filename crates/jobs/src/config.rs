use std::path::Path;
use std::time::Duration;

use url::Url;

use crate::containment::contained;
use crate::error::JobsError;

/// What jobs may be, and how many items run at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobsConfig {
    /// Name of the cluster; its coordinators share their jobs.
    pub cluster: String,
    /// Items in flight at once in this process.
    pub concurrency: usize,
    /// Where `input_uri` and `output_uri` may point to: these and what lies below. Empty: nowhere.
    pub uris: Vec<Url>,
    /// How long jobs are kept once they have ended. `None`: for ever.
    pub retention: Option<Duration>,
    /// Most items of a job.
    pub max_items: u64,
    /// Largest item, as stored or as a line of JSON.
    pub max_item_bytes: usize,
    /// Most jobs that have not ended.
    pub max_open: usize,
    /// How long after its end a process's work is taken over by others.
    pub lease: Duration,
}

impl Default for JobsConfig {
    fn default() -> Self {
        Self {
            cluster: "main".into(),
            concurrency: 64,
            uris: Vec::new(),
            retention: None,
            max_items: 1_000_000,
            max_item_bytes: 256 << 10,
            max_open: 1000,
            lease: Duration::from_secs(10),
        }
    }
}

impl JobsConfig {
    /// The URL of this field, if jobs may use it. Of files see also [`Self::check_file`].
    pub(crate) fn allowed(&self, field: &'static str, text: &str) -> Result<Url, JobsError> {
        let url = Url::parse(text).map_err(|error| {
            JobsError::invalid(
                field,
                format!("'{text}' is no URL ({error}): use file:///…, s3://…, gs://… or az://…"),
            )
        })?;
        if self.uris.iter().any(|allowed| lies_in(&url, allowed)) {
            return Ok(url);
        }
        let allowed: Vec<_> = self.uris.iter().map(Url::as_str).collect();
        let remedy = match allowed.as_slice() {
            [] => "the server's setting jobs_uris allows none".to_owned(),
            allowed => format!("use what lies in {} (the server's setting jobs_uris)", allowed.join(", ")),
        };
        Err(JobsError::invalid(field, format!("'{text}' is not allowed here: {remedy}")))
    }

    /// Refuses a file of this field that a link puts outside of where jobs may read and write.
    pub(crate) fn check_file(&self, field: &'static str, path: &Path) -> Result<(), JobsError> {
        contained(path, &self.uris).map_err(|real| {
            let message = format!(
                "'{}' leads to '{}', which is not allowed here: put the file itself there instead of a link",
                path.display(),
                real.display()
            );
            JobsError::invalid(field, message)
        })
    }
}

/// Whether a URL is another or lies below it. Dots are resolved already, in URLs as in `object_store`'s paths.
fn lies_in(url: &Url, folder: &Url) -> bool {
    let path = folder.path().trim_end_matches('/');
    let below = url.path().strip_prefix(path);
    let same_place = url.scheme() == folder.scheme() && url.host() == folder.host();
    same_place && below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_in_an_allowed_folder_may_be_used() {
        let uris = vec!["file:///data/jobs".parse().unwrap(), "s3://bucket/".parse().unwrap()];
        let config = JobsConfig { uris, ..JobsConfig::default() };
        for allowed in ["file:///data/jobs/a.jsonl", "file:///data/jobs", "s3://bucket/x/y"] {
            assert!(config.allowed("input_uri", allowed).is_ok(), "{allowed}");
        }
        for foreign in [
            "file:///data/jobs2/a",
            "file:///data/jobs/../secret",
            "file:///data/jobs/%2e%2e/secret",
            "s3://other/x",
            "file:///etc/passwd",
        ] {
            let error = config.allowed("input_uri", foreign).unwrap_err().to_string();
            assert!(error.contains("jobs_uris"), "{error}");
        }
        let none = JobsConfig::default().allowed("output_uri", "file:///x").unwrap_err().to_string();
        assert!(none.starts_with("output_uri: 'file:///x' is not allowed here"), "{none}");
        assert!(config.allowed("input_uri", "a.jsonl").unwrap_err().to_string().contains("is no URL"));
    }
}

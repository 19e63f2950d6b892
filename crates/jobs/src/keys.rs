use crate::id::JobId;

/// Where the store has what. All keys begin with `prefix`, so that one watch sees all.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    pub(crate) prefix: String,
}

impl Keys {
    pub(crate) fn new(cluster: &str) -> Self {
        Self { prefix: format!("/windlass/v1/{cluster}/jobs/") }
    }

    /// All records, newest first.
    pub(crate) fn records(&self) -> String {
        format!("{}records/", self.prefix)
    }

    /// A job's record: what it is, and how it ended.
    pub(crate) fn record(&self, id: JobId) -> String {
        format!("{}{}", self.records(), id.newest_first())
    }

    /// All jobs that have not ended, oldest first; each entry keeps its owner's name.
    pub(crate) fn open(&self) -> String {
        format!("{}open/", self.prefix)
    }

    /// Is there as long as the job has not ended.
    pub(crate) fn open_job(&self, id: JobId) -> String {
        format!("{}{id}", self.open())
    }

    /// Who works on what, under leases.
    pub(crate) fn claims(&self) -> String {
        format!("{}claims/", self.prefix)
    }

    pub(crate) fn claims_of(&self, id: JobId) -> String {
        format!("{}{id}/", self.claims())
    }

    /// Who works on this shard.
    pub(crate) fn shard_claim(&self, id: JobId, shard: u64) -> String {
        format!("{}{shard:08}", self.claims_of(id))
    }

    /// Who writes the output.
    pub(crate) fn output_claim(&self, id: JobId) -> String {
        format!("{}output", self.claims_of(id))
    }

    /// Shards of a job that are done, in order.
    pub(crate) fn done_of(&self, id: JobId) -> String {
        format!("{}done/{id}/", self.prefix)
    }

    /// Where this shard's results are.
    pub(crate) fn done(&self, id: JobId, shard: u64) -> String {
        format!("{}{shard:08}", self.done_of(id))
    }

    /// The job that was submitted under a key of the submitter's. Each owner has keys of its own.
    pub(crate) fn idempotency(&self, owner: Option<&str>, key: &str) -> String {
        match owner {
            None => format!("{}keys/{key}", self.prefix),
            Some(owner) => format!("{}keys-of/{owner}/{key}", self.prefix),
        }
    }

    /// Jobs' folders, from before there is anything in them until they are deleted.
    pub(crate) fn folders(&self) -> String {
        format!("{}folders/", self.prefix)
    }

    /// Is there as long as the job's folder may be.
    pub(crate) fn folder(&self, id: JobId) -> String {
        format!("{}{id}", self.folders())
    }

    /// A submission under way, under a lease.
    pub(crate) fn submission(&self, id: JobId) -> String {
        format!("{}submissions/{id}", self.prefix)
    }
}

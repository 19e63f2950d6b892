//! Puts a job's results together, and ends it.

use tokio::io::AsyncWriteExt;
use url::Url;

use super::claim::Claim;
use crate::blobs::Blobs;
use crate::end::succeed;
use crate::error::JobsError;
use crate::record::{self, Done, Totals};

pub(super) async fn run(claim: &Claim) -> Result<(), JobsError> {
    let Claim { context, record, .. } = claim;
    let mut shards: Vec<Done> = Vec::new();
    for entry in context.list(&context.keys.done_of(record.id), None).await? {
        shards.push(record::from_entry(&entry)?);
    }
    if let Some(uri) = &record.output_uri {
        let url = Url::parse(uri).map_err(|error| JobsError::damaged(uri, &error))?;
        let output = Blobs::at(&url)?;
        if let Some(file) = output.file() {
            // Links may have come since the job was accepted.
            context.config.check_file("output_uri", &file)?;
        }
        write(claim, &shards, &output).await?;
    }
    let totals = shards.iter().fold(Totals::default(), |sum, done| sum + done.totals);
    if succeed(context, record, claim.record_revision, claim.revision, totals).await? {
        tracing::info!(job = %record.id, items = record.items, failed = totals.failed, "a job is finished");
    }
    Ok(())
}

/// Writes the output in one piece, or nothing of it. Whoever does it again writes the same.
async fn write(claim: &Claim, shards: &[Done], output: &Blobs) -> Result<(), JobsError> {
    let folder = claim.context.folder(claim.record.id);
    let mut writer = output.writer();
    let written = async {
        for shard in shards {
            let lines = folder.below(&shard.results).read().await?;
            writer.put(lines.into()).await.map_err(|source| output.failed("write", source))?;
        }
        Ok(())
    };
    if let Err(error) = written.await {
        if let Err(error) = writer.abort().await {
            tracing::debug!(%error, "an output that was begun cannot be taken back");
        }
        return Err(error);
    }
    // Whether it works or not, afterwards there is nothing to take back.
    writer.shutdown().await.map_err(|error| output.failed("write", cause(error)))
}

/// What the object store said before it was made an error of input and output.
fn cause(error: std::io::Error) -> object_store::Error {
    error
        .downcast()
        .unwrap_or_else(|error| object_store::Error::Generic { store: "output", source: Box::new(error) })
}

use std::fs::File;
use std::io::{BufWriter, Write, stdout};
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context, Result};
use futures::StreamExt;
use windlass_client::{Client, ClientError};
use windlass_jobs::result_line;

/// How long a server that went away is waited for, in all.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(500);

/// Writes all results of a job, from behind the one that `resume` names, to a file or to standard output.
pub(super) async fn fetch(client: &Client, id: &str, resume: &str, output: Option<&Path>) -> Result<()> {
    match output {
        None => write(client, id, resume, stdout().lock()).await,
        Some(path) => into(client, id, resume, create(path)?).await,
    }
}

/// A file for results.
pub(super) fn create(path: &Path) -> Result<File> {
    File::create(path).with_context(|| format!("output: cannot write {}", path.display()))
}

/// The same into a file that is there.
pub(super) async fn into(client: &Client, id: &str, resume: &str, file: File) -> Result<()> {
    write(client, id, resume, BufWriter::new(file)).await
}

/// Where the stream breaks off, it is taken up again behind the last result.
async fn write(client: &Client, id: &str, resume: &str, mut to: impl Write) -> Result<()> {
    let mut token = resume.to_owned();
    let mut waited = Duration::ZERO;
    loop {
        match read(client, id, &mut token, &mut to).await {
            Err(error) if is_away(&error) && waited < PATIENCE => {
                waited += PAUSE;
                tokio::time::sleep(PAUSE).await;
            }
            ended => {
                to.flush()?;
                return ended;
            }
        }
    }
}

async fn read(client: &Client, id: &str, token: &mut String, to: &mut impl Write) -> Result<()> {
    let mut results = pin!(client.job_results(id, token).await?);
    while let Some(result) = results.next().await {
        let (result, behind) = result?;
        writeln!(to, "{}", result_line(&result))?;
        *token = behind;
    }
    Ok(())
}

/// Whether the server may come back.
pub(super) fn is_away(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(ClientError::Unavailable { .. }))
}

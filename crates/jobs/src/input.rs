//! Items from an object store: one object of JSON lines, or a folder of them.

use std::collections::VecDeque;

use futures::stream::{BoxStream, Stream, StreamExt, try_unfold};
use url::Url;
use windlass_proto::v1::JobItem;

use crate::blobs::Blobs;
use crate::config::JobsConfig;
use crate::error::JobsError;
use crate::line::parse_line;

const FIELD: &str = "input_uri";
const SUFFIX: &str = ".jsonl";

/// The items of the objects that the URL names, read as they are asked for. No line may be longer than an item.
pub(crate) async fn read(
    url: &Url,
    config: &JobsConfig,
) -> Result<impl Stream<Item = Result<JobItem, JobsError>> + Send + use<>, JobsError> {
    let at = Blobs::at(url)?;
    let unreadable = |error: JobsError| JobsError::invalid(FIELD, error.to_string());
    let objects = if at.exists().await.map_err(unreadable)? {
        vec![at]
    } else {
        at.objects(SUFFIX).await.map_err(unreadable)?
    };
    if objects.is_empty() {
        let message = format!("{url} is no object, and no folder of objects that end with {SUFFIX}");
        return Err(JobsError::invalid(FIELD, message));
    }
    for file in objects.iter().filter_map(Blobs::file) {
        config.check_file(FIELD, &file)?;
    }
    let reader = Reader { objects: objects.into(), current: None, max_bytes: config.max_item_bytes };
    Ok(try_unfold(reader, |mut reader| async move {
        let item = reader.next().await?;
        Ok(item.map(|item| (item, reader)))
    }))
}

struct Reader {
    objects: VecDeque<Blobs>,
    current: Option<Lines>,
    max_bytes: usize,
}

/// What is left of one object.
struct Lines {
    object: Blobs,
    chunks: BoxStream<'static, Result<Vec<u8>, object_store::Error>>,
    read: Vec<u8>,
    /// Bytes of `read` that were given out.
    taken: usize,
    number: u64,
    ended: bool,
}

impl Reader {
    /// The next item; `None` after the last. Empty lines are passed over.
    async fn next(&mut self) -> Result<Option<JobItem>, JobsError> {
        loop {
            let Some(lines) = &mut self.current else {
                let Some(object) = self.objects.pop_front() else { return Ok(None) };
                let chunks = object.stream().await?;
                let (read, taken, number, ended) = (Vec::new(), 0, 0, false);
                self.current = Some(Lines { object, chunks, read, taken, number, ended });
                continue;
            };
            match lines.next(self.max_bytes).await? {
                None => self.current = None,
                Some(line) if line.trim_ascii().is_empty() => {}
                Some(line) => return parse_line(&line).map(Some).map_err(|error| lines.at_fault(&error)),
            }
        }
    }
}

impl Lines {
    async fn next(&mut self, max_bytes: usize) -> Result<Option<Vec<u8>>, JobsError> {
        let mut searched = self.taken;
        loop {
            let end = self.read[searched..].iter().position(|byte| *byte == b'\n').map(|at| searched + at);
            let end = end.or_else(|| (self.ended && self.taken < self.read.len()).then_some(self.read.len()));
            if let Some(end) = end {
                let line = self.read[self.taken..end].to_vec();
                self.taken = (end + 1).min(self.read.len());
                self.number += 1;
                return if line.len() > max_bytes { Err(self.too_long(max_bytes)) } else { Ok(Some(line)) };
            }
            if self.ended {
                return Ok(None);
            }
            self.read.drain(..self.taken);
            self.taken = 0;
            searched = self.read.len();
            if searched > max_bytes {
                self.number += 1;
                return Err(self.too_long(max_bytes));
            }
            match self.chunks.next().await {
                Some(chunk) => self.read.extend(chunk.map_err(|source| self.object.failed("read", source))?),
                None => self.ended = true,
            }
        }
    }

    fn too_long(&self, max_bytes: usize) -> JobsError {
        let reason =
            format!("it is longer than {max_bytes} bytes (the server's setting jobs_max_item_bytes)");
        self.at_fault(&reason)
    }

    fn at_fault(&self, reason: &impl ToString) -> JobsError {
        let message = format!("{} line {}: {}", self.object.name(), self.number, reason.to_string());
        JobsError::invalid(FIELD, message)
    }
}

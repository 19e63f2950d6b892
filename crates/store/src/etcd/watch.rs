use etcd_client::{Client, EventType, WatchOptions, WatchResponse, WatchStream};
use tokio::sync::mpsc;

use super::call::{Call, Repeat};
use super::connection::Connection;
use super::error::fault;
use super::{behind_prefix, entry};
use crate::{Change, Revision, StoreError, Watch};

/// Changes that wait to be taken; etcd keeps the others.
const BUFFER: usize = 1024;

/// Begins a watch; a task carries its changes until either side ends it.
pub(super) async fn watch(
    connection: &Connection,
    prefix: &str,
    after: Revision,
) -> Result<Watch, StoreError> {
    let key = if prefix.is_empty() { vec![0] } else { prefix.into() };
    let options = WatchOptions::new()
        .with_range(behind_prefix(prefix))
        .with_start_revision(after as i64 + 1)
        .with_progress_notify();
    let begin = |client: Client| -> Call<_> {
        let (key, options) = (key.clone(), options.clone());
        Box::pin(async move {
            let mut watches = client.watch_client().max_decoding_message_size(usize::MAX);
            let mut stream = watches.watch(key, Some(options)).await?;
            let first = stream.message().await?;
            Ok((stream, first))
        })
    };
    let (stream, first) = connection.call(Repeat::Freely, begin).await?;
    let first = changes(first, after)?;
    let (sender, receiver) = mpsc::channel(BUFFER);
    let timeout = connection.timeout();
    tokio::spawn(async move {
        let ended = tokio::select! {
            ended = carry(stream, first, after, &sender) => ended.unwrap_or_else(|fault| fault.into_error(timeout)),
            () = sender.closed() => return,
        };
        // Nobody may be left to hear it.
        let _ = sender.send(Err(ended)).await;
    });
    Ok(Watch::new(receiver))
}

/// Passes changes on; what ended it.
async fn carry(
    mut stream: WatchStream,
    mut next: Vec<Change>,
    after: Revision,
    sender: &mpsc::Sender<Result<Change, StoreError>>,
) -> Result<StoreError, super::error::Fault> {
    loop {
        for change in next {
            if sender.send(Ok(change)).await.is_err() {
                return Ok(gone());
            }
        }
        let response = stream.message().await.map_err(|error| fault(&error))?;
        next = match changes(response, after) {
            Ok(changes) => changes,
            Err(error) => return Ok(error),
        };
    }
}

/// What a response tells, or why there will be no other.
fn changes(response: Option<WatchResponse>, after: Revision) -> Result<Vec<Change>, StoreError> {
    let response = response.ok_or_else(gone)?;
    if response.compact_revision() > 0 {
        return Err(StoreError::Compacted { revision: after });
    }
    if response.canceled() {
        let reason = response.cancel_reason().to_owned();
        let refused = reason.contains("permission denied") || reason.contains("PermissionDenied");
        return Err(if refused {
            StoreError::Refused { reason }
        } else {
            StoreError::Unavailable { reason }
        });
    }
    let changed =
        response.events().iter().filter_map(|event| Some((event.event_type(), event.kv()?.clone())));
    changed
        .map(|(kind, found)| {
            let entry = entry(found)?;
            Ok(if kind == EventType::Put { Change::Put(entry) } else { Change::Deleted(entry.key) })
        })
        .collect()
}

fn gone() -> StoreError {
    StoreError::Unavailable { reason: "etcd ended the watch".into() }
}

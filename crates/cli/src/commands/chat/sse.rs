//! Server-sent events, as far as this API uses them: `data:` lines, each event ended by an empty line.

use anyhow::{Context, Result};
use reqwest::Response;

/// The events of a response.
pub(super) struct Events {
    response: Response,
    buffer: Buffer,
}

impl Events {
    pub(super) fn new(response: Response) -> Self {
        Self { response, buffer: Buffer::default() }
    }

    /// The data of the next event; none when the response has ended.
    pub(super) async fn next(&mut self) -> Result<Option<String>> {
        loop {
            if let Some(data) = self.buffer.take()? {
                return Ok(Some(data));
            }
            match self.response.chunk().await.context("the connection broke")? {
                Some(bytes) => self.buffer.bytes.extend_from_slice(&bytes),
                None => return Ok(None),
            }
        }
    }
}

/// Bytes of events that are not complete.
#[derive(Default)]
struct Buffer {
    bytes: Vec<u8>,
}

impl Buffer {
    /// The data of the first complete event.
    fn take(&mut self) -> Result<Option<String>> {
        while let Some(end) = self.bytes.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.bytes.drain(..=end).collect();
            let line = String::from_utf8(line).context("the answer is not UTF-8")?;
            if let Some(data) = line.trim_end().strip_prefix("data:") {
                return Ok(Some(data.trim_start().to_owned()));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_whole_however_they_are_cut() {
        let stream = "data: {\"text\":\"ü\"}\n\n: comment\n\ndata: [DONE]\r\n\r\n".as_bytes();
        for size in 1..=stream.len() {
            let mut buffer = Buffer::default();
            let mut events = Vec::new();
            for part in stream.chunks(size) {
                buffer.bytes.extend_from_slice(part);
                while let Some(data) = buffer.take().unwrap() {
                    events.push(data);
                }
            }
            assert_eq!(events, ["{\"text\":\"ü\"}", "[DONE]"]);
        }
    }
}

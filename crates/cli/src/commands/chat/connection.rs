use std::fmt::{self, Display, Formatter};

use anyhow::{Context, Result, bail};
use reqwest::{Client, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::sse::Events;
use crate::connection_options::ConnectionOptions;

/// A coordinator to talk to.
pub(super) struct Connection {
    client: Client,
    url: String,
    pub(super) model: String,
    /// The end of the scale of depths.
    pub(super) deepest: u32,
    effort: Option<String>,
    temperature: Option<f32>,
}

/// One message of the conversation.
#[derive(Debug, Serialize)]
pub(super) struct Turn {
    role: &'static str,
    content: String,
}

/// A part of an answer.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Delta {
    pub(super) text: String,
    /// Core iterations of the tokens of this part.
    pub(super) depths: Vec<u32>,
}

/// The parts of an answer as they come.
pub(super) struct Deltas {
    events: Events,
}

/// What the coordinator says of a request that it does not take; it may take the next.
#[derive(Debug)]
pub(super) struct Refusal {
    message: String,
}

impl Display for Refusal {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Refusal {}

#[derive(Deserialize)]
struct Models {
    data: Vec<Model>,
}

#[derive(Deserialize)]
struct Model {
    id: String,
    default_depth: u32,
}

#[derive(Deserialize)]
struct Chunk {
    choices: Vec<Choice>,
}

#[derive(Deserialize)]
struct Choice {
    delta: Content,
    #[serde(default)]
    depths: Vec<u32>,
}

#[derive(Deserialize)]
struct Content {
    #[serde(default)]
    content: String,
}

impl Turn {
    pub(super) fn user(message: &str) -> Self {
        Self { role: "user", content: message.to_owned() }
    }

    pub(super) fn assistant(message: String) -> Self {
        Self { role: "assistant", content: message }
    }
}

impl Connection {
    /// Asks the coordinator at `url`, which may lack its scheme, for its models, and takes `model` or the first.
    pub(super) async fn open(
        url: &str,
        options: &ConnectionOptions,
        model: Option<String>,
        effort: Option<String>,
        temperature: Option<f32>,
    ) -> Result<Self> {
        let url = url.trim_end_matches('/');
        let url =
            if url.contains("://") { url.to_owned() } else { format!("{}://{url}", options.http_scheme()) };
        let client = options.http_client(&url)?;
        let response = client.get(format!("{url}/v1/models")).send().await.with_context(|| {
            format!("cannot reach a coordinator at {url}: is `windlass serve` running there, and is that its HTTP address?")
        })?;
        let models: Models = accepted(response)
            .await?
            .json()
            .await
            .with_context(|| format!("{url} does not answer as a windlass coordinator does"))?;
        let names = models.data.iter().map(|model| model.id.clone()).collect::<Vec<_>>().join(", ");
        let chosen = match &model {
            None => models
                .data
                .into_iter()
                .next()
                .context("the coordinator serves no model yet: try again later")?,
            Some(name) => models.data.into_iter().find(|model| model.id == *name).with_context(|| {
                format!("model: the coordinator does not serve '{name}': use one of {names}")
            })?,
        };
        Ok(Self { client, url, model: chosen.id, deepest: chosen.default_depth, effort, temperature })
    }

    /// Sends the conversation, and returns what is said next.
    pub(super) async fn send(&self, turns: &[Turn]) -> Result<Deltas> {
        let request = json!({
            "model": self.model,
            "messages": turns,
            "stream": true,
            "return_depths": true,
            "reasoning_effort": self.effort,
            "temperature": self.temperature,
        });
        let response = self
            .client
            .post(format!("{}/v1/chat/completions", self.url))
            .json(&request)
            .send()
            .await
            .with_context(|| format!("cannot reach the coordinator at {}", self.url))?;
        Ok(Deltas { events: Events::new(accepted(response).await?) })
    }
}

impl Deltas {
    /// The next part; none after the last.
    pub(super) async fn next(&mut self) -> Result<Option<Delta>> {
        let data = self.events.next().await?.context("the coordinator broke the answer off")?;
        if data == "[DONE]" {
            return Ok(None);
        }
        read_chunk(&data).map(Some)
    }
}

fn read_chunk(data: &str) -> Result<Delta> {
    let value: Value = serde_json::from_str(data).context("the answer is not JSON")?;
    if let Some(message) = value.pointer("/error/message").and_then(Value::as_str) {
        bail!("{message}");
    }
    let chunk: Chunk = serde_json::from_value(value).context("the answer is no chat completion")?;
    Ok(chunk
        .choices
        .into_iter()
        .next()
        .map_or_else(Delta::default, |choice| Delta { text: choice.delta.content, depths: choice.depths }))
}

/// The response, if it is no error. A [`Refusal`] if the request is to blame.
async fn accepted(response: Response) -> Result<Response> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let body = response.text().await.unwrap_or_default();
    let value: Value = serde_json::from_str(&body).unwrap_or_default();
    let message = match value.pointer("/error/message").and_then(Value::as_str) {
        Some(message) => message.to_owned(),
        None => format!("the server answers {status}: {body}"),
    };
    if status.is_client_error() {
        return Err(Refusal { message }.into());
    }
    bail!("{message}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_read_with_and_without_tokens() {
        let delta = read_chunk(r#"{"choices":[{"index":0,"delta":{"content":"8"},"depths":[16]}]}"#).unwrap();
        assert_eq!(delta, Delta { text: "8".into(), depths: vec![16] });
        let empty = [r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#, r#"{"choices":[],"usage":{}}"#];
        assert!(empty.iter().all(|data| read_chunk(data).unwrap() == Delta::default()));
    }

    #[test]
    fn an_error_in_the_stream_is_an_error() {
        let error =
            read_chunk(r#"{"error":{"message":"the worker is gone","code":"worker_lost"}}"#).unwrap_err();
        assert_eq!(error.to_string(), "the worker is gone");
    }
}

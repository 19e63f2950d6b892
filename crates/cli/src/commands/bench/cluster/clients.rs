//! The two ways to a worker's tokens.

use std::sync::Arc;

use anyhow::{Context, Result};
use futures::future::try_join_all;
use serde::Serialize;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};
use windlass_proto::v1::inference_client::InferenceClient;
use windlass_proto::v1::worker_client::WorkerClient;
use windlass_proto::v1::{
    GenerateRequest, GenerateResponse, GenerateTaskRequest, GenerateTaskResponse, GenerationParameters,
    LoadRequest, LoadResponse, Token, TokenIds, generate_request, generate_response, generate_task_response,
};

/// Connections to the coordinator, each for many streams.
const CONNECTIONS: usize = 8;

/// Whom a request is sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Way {
    /// A worker, one after the other.
    Direct,
    /// The coordinator.
    Coordinator,
}

/// What to generate.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) prompt: Vec<u32>,
    pub(super) parameters: GenerationParameters,
}

/// Connections to all workers and to the coordinator. Cheap to clone.
#[derive(Clone)]
pub(super) struct Clients {
    workers: Arc<[WorkerClient<Channel>]>,
    coordinator: Arc<[InferenceClient<Channel>]>,
}

/// The tokens of one answer.
pub(super) enum Tokens {
    Direct(Streaming<GenerateTaskResponse>),
    Coordinator(Streaming<GenerateResponse>),
}

impl Clients {
    pub(super) fn new(workers: &[String], coordinator: &str) -> Result<Self> {
        let worker = |address: &String| Ok(WorkerClient::new(channel(address)?));
        let front = |_| Ok(InferenceClient::new(channel(coordinator)?));
        Ok(Self {
            workers: workers.iter().map(worker).collect::<Result<_>>()?,
            coordinator: (0..CONNECTIONS).map(front).collect::<Result<_>>()?,
        })
    }

    /// Sends the request, by the connection that has its turn at `index`.
    pub(super) async fn generate(&self, way: Way, index: usize, request: Request) -> Result<Tokens> {
        let Request { prompt, parameters } = request;
        let parameters = Some(parameters);
        match way {
            Way::Direct => {
                let request = GenerateTaskRequest { prompt, parameters, ..GenerateTaskRequest::default() };
                let mut worker = self.workers[index % self.workers.len()].clone();
                Ok(Tokens::Direct(worker.generate(request).await?.into_inner()))
            }
            Way::Coordinator => {
                let prompt = Some(generate_request::Prompt::TokenIds(TokenIds { ids: prompt }));
                let request = GenerateRequest { prompt, parameters, ..GenerateRequest::default() };
                let mut coordinator = self.coordinator[index % self.coordinator.len()].clone();
                Ok(Tokens::Coordinator(coordinator.generate(request).await?.into_inner()))
            }
        }
    }

    /// How busy each worker is, and what it has done.
    pub(super) async fn loads(&self) -> Result<Vec<LoadResponse>> {
        let load = |worker: &WorkerClient<Channel>| {
            let mut worker = worker.clone();
            async move { Ok(worker.load(LoadRequest {}).await?.into_inner()) }
        };
        try_join_all(self.workers.iter().map(load)).await
    }
}

impl Tokens {
    /// The next token; `None` after the finish.
    pub(super) async fn next(&mut self) -> Result<Option<Token>> {
        const CUT_SHORT: &str = "the answer ended without a finish";
        loop {
            match self {
                Self::Direct(events) => {
                    return match events.message().await?.and_then(|response| response.event) {
                        Some(generate_task_response::Event::Token(token)) => Ok(Some(token)),
                        Some(generate_task_response::Event::Finish(_)) => Ok(None),
                        None => anyhow::bail!(CUT_SHORT),
                    };
                }
                Self::Coordinator(events) => {
                    match events.message().await?.and_then(|response| response.event).context(CUT_SHORT)? {
                        generate_response::Event::Finish(_) => return Ok(None),
                        // Text that was held back comes without a token.
                        generate_response::Event::Delta(mut delta) => match delta.tokens.pop() {
                            Some(token) => return Ok(Some(token)),
                            None => continue,
                        },
                    }
                }
            }
        }
    }

    /// All that is still to come.
    pub(super) async fn rest(mut self) -> Result<Vec<Token>> {
        let mut tokens = Vec::new();
        while let Some(token) = self.next().await? {
            tokens.push(token);
        }
        Ok(tokens)
    }
}

/// A channel that connects when first used.
fn channel(address: &str) -> Result<Channel> {
    Ok(Endpoint::from_shared(format!("http://{address}"))?.tcp_nodelay(true).connect_lazy())
}

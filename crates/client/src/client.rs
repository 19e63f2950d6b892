use std::time::Duration;

use futures::stream::{Stream, StreamExt, TryStreamExt};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use windlass_proto::v1::cluster_client::ClusterClient;
use windlass_proto::v1::inference_client::InferenceClient;
use windlass_proto::v1::jobs_client::JobsClient;
use windlass_proto::v1::{ListModelsRequest, ModelInfo, TokenizeRequest};

use crate::api_key::Authorization;
use crate::config::ClientConfig;
use crate::error::ClientError;
use crate::event::{Event, Generated};
use crate::options::GenerateRequest;
use crate::transport::what_broke;

/// A connection that carries the API key.
pub(crate) type Transport = InterceptedService<Channel, Authorization>;

/// A connection to a coordinator. Clones share it; any number of calls run at once.
#[derive(Debug, Clone)]
pub struct Client {
    inner: InferenceClient<Transport>,
    cluster: ClusterClient<Transport>,
    pub(crate) jobs: JobsClient<Transport>,
}

impl Client {
    /// Connects to `host:port` or `http://host:port`, in plain text and without an API key.
    pub async fn connect(address: &str) -> Result<Self, ClientError> {
        Self::connect_with(ClientConfig::new(address)).await
    }

    /// Connects as configured.
    pub async fn connect_with(config: ClientConfig) -> Result<Self, ClientError> {
        let transport = connect(config).await?;
        Ok(Self {
            inner: InferenceClient::new(transport.clone()),
            cluster: ClusterClient::new(transport.clone()),
            jobs: JobsClient::new(transport),
        })
    }

    /// The operators' service over the same connection.
    pub(crate) fn cluster(&self) -> ClusterClient<Transport> {
        self.cluster.clone()
    }

    /// Generates token by token. Dropping the stream aborts the generation; the last event is a `Finish`.
    pub async fn generate(
        &self,
        request: GenerateRequest,
    ) -> Result<impl Stream<Item = Result<Event, ClientError>> + Send + use<>, ClientError> {
        let response =
            self.inner.clone().generate(windlass_proto::v1::GenerateRequest::from(request)).await?;
        let events = response.into_inner().map_err(ClientError::from);
        Ok(events.and_then(|response| async {
            Event::read(response).ok_or_else(|| ClientError::Failed {
                code: "unknown event".into(),
                message: "the server speaks a newer API: update this client".into(),
            })
        }))
    }

    /// Generates, and returns the whole answer.
    pub async fn generate_whole(&self, request: GenerateRequest) -> Result<Generated, ClientError> {
        let mut events = std::pin::pin!(self.generate(request).await?);
        let mut text = String::new();
        let mut tokens = Vec::new();
        while let Some(event) = events.next().await {
            match event? {
                Event::Delta(delta) => {
                    text.push_str(&delta.text);
                    tokens.extend(delta.tokens);
                }
                Event::Finish(finish) => return Ok(Generated { text, tokens, finish }),
            }
        }
        Err(ClientError::Interrupted {
            message: "the server ended the generation without finishing it".into(),
        })
    }

    /// Token ids of a text, each with its own text. `add_special_tokens`: as `generate` tokenises a prompt.
    pub async fn tokenize(
        &self,
        model: &str,
        text: &str,
        add_special_tokens: bool,
    ) -> Result<Vec<(u32, String)>, ClientError> {
        let request = TokenizeRequest { model: model.to_owned(), text: text.to_owned(), add_special_tokens };
        let response = self.inner.clone().tokenize(request).await?.into_inner();
        Ok(response.ids.into_iter().zip(response.pieces).collect())
    }

    /// The models served.
    pub async fn list_models(&self) -> Result<Vec<ModelInfo>, ClientError> {
        Ok(self.inner.clone().list_models(ListModelsRequest {}).await?.into_inner().models)
    }
}

async fn connect(config: ClientConfig) -> Result<Transport, ClientError> {
    let ClientConfig { address, tls, api_key } = config;
    let endpoint = endpoint(&address, tls.is_some())?
        .tcp_nodelay(true)
        .connect_timeout(Duration::from_secs(5))
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_while_idle(true);
    let in_tls = tls.is_some();
    let unavailable = |error: tonic::transport::Error| ClientError::Unavailable {
        message: format!("cannot connect to {address}: {}", what_broke(&error, in_tls)),
    };
    let endpoint = match tls {
        None => endpoint,
        Some(tls) => endpoint.tls_config(tls.for_grpc()).map_err(unavailable)?,
    };
    let channel = endpoint.connect().await.map_err(unavailable)?;
    Ok(InterceptedService::new(channel, Authorization::new(api_key.as_ref())))
}

/// Refuses a scheme that contradicts the configuration: what is meant to be secret never goes out in plain text.
fn endpoint(address: &str, tls: bool) -> Result<Endpoint, ClientError> {
    let wrong = || ClientError::Address { address: address.to_owned() };
    let authority = match (address.split_once("://"), tls) {
        (None, _) => address,
        (Some(("http", authority)), false) | (Some(("https", authority)), true) => authority,
        (Some(("http" | "https", _)), _) => return Err(ClientError::Scheme { address: address.to_owned() }),
        (Some(_), _) => return Err(wrong()),
    };
    let scheme = if tls { "https" } else { "http" };
    Endpoint::from_shared(format!("{scheme}://{authority}")).map_err(|_| wrong())
}

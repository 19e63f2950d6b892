use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use tokio::time::Instant;
use tonic::{Request, Response, Status};
use windlass_proto::v1::inference_server::Inference;
use windlass_proto::v1::{
    Chat, GenerateRequest, GenerateResponse, ListModelsRequest, ListModelsResponse, TextDelta, TokenIds,
    TokenizeRequest, TokenizeResponse, generate_request, generate_response,
};

use super::deadline::allowed_ms;
use super::status::status;
use crate::generation::{Generation, GenerationError, GenerationEvent, Generator, Prompt, Wanted, with_text};
use crate::registry::Registry;
use crate::security::Caller;

/// The public service, on the same generation as the HTTP front.
pub(crate) struct InferenceService {
    pub(crate) registry: Arc<Registry>,
    pub(crate) generator: Arc<Generator>,
}

type Responses = Pin<Box<dyn Stream<Item = Result<GenerateResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Inference for InferenceService {
    type GenerateStream = Responses;

    async fn generate(&self, request: Request<GenerateRequest>) -> Result<Response<Responses>, Status> {
        let caller = Caller::of(request.extensions());
        let allowed = allowed_ms(request.metadata());
        let generation = self.start(&caller, request.into_inner(), allowed).await.map_err(status)?;
        let responses = generation.into_stream().map(|event| match event {
            Ok(event) => Ok(response(event)),
            Err(error) => Err(status(error)),
        });
        Ok(Response::new(Box::pin(responses)))
    }

    async fn tokenize(
        &self,
        request: Request<TokenizeRequest>,
    ) -> Result<Response<TokenizeResponse>, Status> {
        let response = self.tokens(request.into_inner()).await.map_err(status)?;
        Ok(Response::new(response))
    }

    async fn list_models(
        &self,
        _request: Request<ListModelsRequest>,
    ) -> Result<Response<ListModelsResponse>, Status> {
        let models = self.registry.served_models().values().map(|model| model.info.clone()).collect();
        Ok(Response::new(ListModelsResponse { models }))
    }
}

impl InferenceService {
    /// `allowed`: how many milliseconds the client waits for the whole answer.
    async fn start(
        &self,
        caller: &Caller,
        request: GenerateRequest,
        allowed: Option<u32>,
    ) -> Result<Generation, GenerationError> {
        let received = Instant::now();
        let GenerateRequest { model, prompt, parameters, stop } = request;
        let model = self.generator.model(&model)?;
        let prompt = prompt.ok_or_else(|| {
            GenerationError::invalid("prompt", "it is missing: set one of text, token_ids and chat")
        })?;
        let mut parameters = parameters.unwrap_or_default();
        parameters.timeout_ms = allowed.into_iter().chain(parameters.timeout_ms).min();
        if parameters.depth.is_some() && parameters.effort.is_some() {
            return Err(GenerationError::invalid("depth", "effort is set too: use only one of the two"));
        }
        self.generator.expect_room(1, 1, &parameters)?;
        let prompt = self.generator.prompt_ids(&model, read_prompt(prompt)?).await?;
        let prompts = [prompt];
        let wanted = Wanted { prompts: &prompts, choices: 1, parameters: &parameters, stop: &stop };
        let admission = self.generator.admit(caller, &model, wanted, received).await?;
        let [prompt] = prompts;
        self.generator.start(model, prompt, parameters, stop, admission, received).await
    }

    async fn tokens(&self, request: TokenizeRequest) -> Result<TokenizeResponse, GenerationError> {
        let model = self.generator.model(&request.model)?;
        let tokenizer = model.tokenizer.clone().ok_or_else(|| {
            let message = format!("model '{}' has no tokenizer", model.info.name);
            GenerationError::invalid("text", message)
        })?;
        with_text(request.text.len(), move || {
            let encoded = tokenizer.encode(&request.text, request.add_special_tokens);
            let ids =
                encoded.map_err(|error| GenerationError::from(error).rename_field(|_| "text".into()))?;
            let pieces = ids.iter().map(|id| tokenizer.token_text(*id)).collect();
            Ok(TokenizeResponse { ids, pieces })
        })
        .await?
    }
}

fn read_prompt(prompt: generate_request::Prompt) -> Result<Prompt, GenerationError> {
    match prompt {
        generate_request::Prompt::Text(text) => Ok(Prompt::Text(text)),
        generate_request::Prompt::TokenIds(TokenIds { ids }) => Ok(Prompt::TokenIds(ids)),
        generate_request::Prompt::Chat(Chat { messages }) => {
            Prompt::chat(messages.into_iter().map(|message| (message.role, message.content)).collect())
        }
    }
}

fn response(event: GenerationEvent) -> GenerateResponse {
    let event = match event {
        GenerationEvent::Delta { text, tokens } => {
            generate_response::Event::Delta(TextDelta { text, tokens })
        }
        GenerationEvent::Finish(finish) => generate_response::Event::Finish(finish),
    };
    GenerateResponse { event: Some(event) }
}

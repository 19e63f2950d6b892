use std::sync::Arc;

use tokio::time::Instant;
use windlass_proto::v1::{
    EmittedToken, Finish, FinishReason, GenerateTaskRequest, GenerationParameters, Token,
};

use crate::registry::{DepthLimit, Model};
use crate::routing::{Estimate, affinity};

/// A request with what came of it so far: all that another worker needs to go on.
pub(crate) struct Task {
    pub(crate) model: Arc<Model>,
    request: GenerateTaskRequest,
    depth: DepthLimit,
    deadline: Option<Instant>,
    affinity: Option<u64>,
    has_stopped: bool,
}

impl Task {
    /// The parameters must name a seed. After `deadline` the answer ends with what it has.
    pub(crate) fn new(
        model: Arc<Model>,
        prompt: Vec<u32>,
        parameters: GenerationParameters,
        deadline: Option<Instant>,
    ) -> Self {
        let depth = model.depth_limit(&parameters);
        let affinity = affinity(&prompt, &parameters, depth.max);
        let request = GenerateTaskRequest {
            prompt,
            parameters: Some(parameters),
            fingerprint: model.info.fingerprint.clone(),
            emitted: Vec::new(),
        };
        Self { model, request, depth, deadline, affinity, has_stopped: false }
    }

    /// What prompts that begin alike have in common.
    pub(super) fn affinity(&self) -> Option<u64> {
        self.affinity
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Whether no token has come yet.
    pub(super) fn is_fresh(&self) -> bool {
        self.request.emitted.is_empty()
    }

    /// A token came.
    pub(super) fn token(&mut self, token: &Token) {
        self.request.emitted.push(EmittedToken { id: token.id, depth: token.depth });
        self.has_stopped = token.is_stop;
    }

    /// The request as the next worker is to get it.
    pub(super) fn request(&self) -> GenerateTaskRequest {
        let mut request = self.request.clone();
        if let (Some(deadline), Some(parameters)) = (self.deadline, &mut request.parameters) {
            let left = deadline.saturating_duration_since(Instant::now()).as_millis();
            parameters.timeout_ms = Some(u32::try_from(left).unwrap_or(u32::MAX).max(1));
        }
        request
    }

    /// The core iterations it still takes at a worker that begins with it now.
    pub(super) fn estimate(&self) -> Estimate {
        let emitted = self.request.emitted.iter().map(|token| u64::from(token.depth)).sum();
        let prompt = self.request.prompt.len() as u64 * u64::from(self.depth.max);
        let left = self.most_tokens().saturating_sub(self.request.emitted.len());
        let left = u32::try_from(left).unwrap_or(u32::MAX);
        let depth = self.model.expected_depth(self.depth);
        Estimate::new(prompt.saturating_add(emitted), left, depth, self.depth.max)
    }

    /// Its finish, if only that is missing: then no worker is needed any more. Usage is the receiver's to count.
    pub(super) fn finish(&self) -> Option<Finish> {
        let is_late = self.deadline.is_some_and(|deadline| Instant::now() >= deadline);
        let reason = match self.request.emitted.len() {
            _ if self.has_stopped => FinishReason::Stop,
            emitted if emitted > 0 && emitted >= self.most_tokens() => FinishReason::Length,
            _ if is_late => FinishReason::Timeout,
            _ => return None,
        };
        let sampling = self.request.parameters.as_ref().and_then(|parameters| parameters.sampling.as_ref());
        let seed = sampling.and_then(|sampling| sampling.seed).unwrap_or_default();
        Some(Finish { reason: reason.into(), usage: None, seed })
    }

    fn most_tokens(&self) -> usize {
        let room = (self.model.info.context_length as usize).saturating_sub(self.request.prompt.len());
        let asked = self.request.parameters.as_ref().and_then(|parameters| parameters.max_tokens);
        asked.map_or(room, |asked| room.min(asked as usize))
    }
}

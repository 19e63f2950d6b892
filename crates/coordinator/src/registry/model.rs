use std::sync::{Arc, Mutex};

use windlass_proto::v1::{
    DepthPolicy, GenerationParameters, ModelInfo, TokenizerResponse, depth_policy::Policy,
};

use super::identity::Identity;
use crate::locks::lock;
use crate::metrics::ModelMetrics;
use crate::routing::{DepthEstimates, DepthPolicyKey, Estimate};
use crate::text::{ChatTemplate, TextError, Tokenizer, TokenizerInfo};

/// A model that some worker serves: what it can do, and its way from text to tokens and back.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) info: ModelInfo,
    /// `None`: prompts are token ids only, and answers have no text.
    pub(crate) tokenizer: Option<Arc<Tokenizer>>,
    pub(crate) template: Option<ChatTemplate>,
    pub(crate) tokenizer_info: TokenizerInfo,
    pub(crate) metrics: ModelMetrics,
    pub(super) identity: Identity,
    depths: Mutex<DepthEstimates>,
}

/// The most iterations a request's positions can take, and the policy by which they may take fewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DepthLimit {
    pub(crate) max: u32,
    pub(crate) adaptive: Option<DepthPolicyKey>,
}

impl Model {
    pub(crate) fn new(identity: Identity, files: &TokenizerResponse) -> Result<Self, TextError> {
        let config = &files.tokenizer_config_json;
        let tokenizer = match files.tokenizer_json.as_slice() {
            [] => None,
            json => Some(Arc::new(Tokenizer::new(json, config)?)),
        };
        let template = ChatTemplate::from_config(config)?;
        let info = identity.info.clone();
        let tokenizer_info = TokenizerInfo::from_config(config)?;
        let (metrics, depths) = (ModelMetrics::new(&info.name), Mutex::default());
        Ok(Self { info, tokenizer, template, tokenizer_info, metrics, identity, depths })
    }

    /// How deep a request can go. An effort that the model lacks counts as its default: the worker refuses it.
    pub(crate) fn depth_limit(&self, parameters: &GenerationParameters) -> DepthLimit {
        let effort = parameters.effort.as_deref().unwrap_or(&self.info.default_effort);
        let named =
            || self.info.efforts.iter().find(|known| known.name == effort).and_then(|known| known.depth);
        let policy = parameters.depth.or_else(named).and_then(|DepthPolicy { policy }| policy);
        // The worker refuses what is deeper than it goes; until then it must not count.
        let most = self.info.max_depth.max(1);
        match policy {
            Some(Policy::Fixed(max)) => DepthLimit { max: max.min(most), adaptive: None },
            Some(Policy::Adaptive(depth)) => {
                let max = depth.max.unwrap_or(self.info.default_depth).min(most);
                let key = DepthPolicyKey {
                    criterion: depth.criterion,
                    threshold: depth.threshold.map(f64::to_bits),
                    min: depth.min.unwrap_or(1),
                    max,
                    every: depth.every.unwrap_or(1),
                };
                DepthLimit { max, adaptive: Some(key) }
            }
            None => DepthLimit { max: self.info.default_depth, adaptive: None },
        }
    }

    /// Core iterations a generated position is expected to take.
    pub(crate) fn expected_depth(&self, limit: DepthLimit) -> f64 {
        limit.adaptive.map_or(f64::from(limit.max), |policy| lock(&self.depths).expected(policy))
    }

    /// Core iterations a request is expected to take.
    pub(crate) fn expected_core_iterations(&self, prompt: usize, parameters: &GenerationParameters) -> u64 {
        let limit = self.depth_limit(parameters);
        let room = self.info.context_length.saturating_sub(u32::try_from(prompt).unwrap_or(u32::MAX));
        let tokens = parameters.max_tokens.unwrap_or(room).min(room);
        let known = (prompt as u64).saturating_mul(limit.max.into());
        Estimate::new(known, tokens, self.expected_depth(limit), limit.max).expected()
    }

    /// Learns from a generation how deep positions go.
    pub(crate) fn observe_depth(&self, limit: DepthLimit, tokens: u32, core_iterations: u64) {
        if let Some(policy) = limit.adaptive {
            lock(&self.depths).observe(policy, tokens, core_iterations);
        }
    }
}

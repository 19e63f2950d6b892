use std::sync::{Arc, Mutex, PoisonError};

use windlass_proto::v1::{
    DepthPolicy, GenerationParameters, ModelInfo, TokenizerResponse, depth_policy::Policy,
};

use super::identity::Identity;

use crate::routing::DepthEstimates;
use crate::text::{ChatTemplate, TextError, Tokenizer, TokenizerInfo};

/// A model that some worker serves: what it can do, and its way from text to tokens and back.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) info: ModelInfo,
    /// `None`: prompts are token ids only, and answers have no text.
    pub(crate) tokenizer: Option<Arc<Tokenizer>>,
    pub(crate) template: Option<ChatTemplate>,
    pub(crate) tokenizer_info: TokenizerInfo,
    pub(super) identity: Identity,
    depths: Mutex<DepthEstimates>,
}

/// The most iterations a request's positions can take, and whether they may take fewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DepthLimit {
    pub(crate) max: u32,
    pub(crate) adaptive: bool,
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
        Ok(Self { info, tokenizer, template, tokenizer_info, identity, depths: Mutex::default() })
    }

    /// How deep a request can go. An effort that the model lacks counts as its default: the worker refuses it.
    pub(crate) fn depth_limit(&self, parameters: &GenerationParameters) -> DepthLimit {
        let effort = parameters.effort.as_deref().unwrap_or(&self.info.default_effort);
        let named =
            || self.info.efforts.iter().find(|known| known.name == effort).and_then(|known| known.depth);
        let policy = parameters.depth.or_else(named).and_then(|DepthPolicy { policy }| policy);
        match policy {
            Some(Policy::Fixed(max)) => DepthLimit { max, adaptive: false },
            Some(Policy::Adaptive(depth)) => {
                DepthLimit { max: depth.max.unwrap_or(self.info.default_depth), adaptive: true }
            }
            None => DepthLimit { max: self.info.default_depth, adaptive: false },
        }
    }

    /// Core iterations a position is expected to take.
    pub(crate) fn expected_depth(&self, limit: DepthLimit) -> f64 {
        if !limit.adaptive {
            return f64::from(limit.max);
        }
        self.depths.lock().unwrap_or_else(PoisonError::into_inner).expected(limit.max)
    }

    /// Learns from a generation how deep positions go.
    pub(crate) fn observe_depth(&self, limit: DepthLimit, tokens: u32, core_iterations: u64) {
        if limit.adaptive {
            let mut depths = self.depths.lock().unwrap_or_else(PoisonError::into_inner);
            depths.observe(limit.max, tokens, core_iterations);
        }
    }
}

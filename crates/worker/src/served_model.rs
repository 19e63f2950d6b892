//! What a worker knows of its model besides the weights.

use windlass_engine::RequestLimits;
use windlass_kernels::Arithmetic;
use windlass_model::{Depth, DepthPolicy, KvPolicy, ModelConfig};
use windlass_proto::v1::{Effort, InfoResponse, KvPlan, ModelInfo, TokenizerResponse};

use xxhash_rust::xxh3::xxh3_64;

use crate::answer::depth_policy;
use crate::config::WorkerConfig;
use crate::error::WorkerError;
use crate::tokenizer::tokenizer_files;

/// How tokens are drawn from logits; another number wherever the same logits and seed may give another token.
const DRAWING: u32 = 2;

/// The fingerprint of a model that is computed: of weights, config, arithmetic, number of ranks, latent seed, prefill segment and the
/// way of drawing. Where the ranks are does not matter.
pub(crate) fn fingerprint(
    config: &WorkerConfig,
    arithmetic: Arithmetic,
    ranks: usize,
) -> Result<String, WorkerError> {
    let WorkerConfig { model: folder, engine, latent_seed, .. } = config;
    let (model, weights) = (folder.config()?, folder.checkpoint()?.fingerprint());
    let (segment, revision) = (engine.prefill_segment, Arithmetic::REVISION);
    let identity =
        format!("{weights} {model:?} {latent_seed} {segment:?} {arithmetic} {revision} {ranks} {DRAWING}");
    Ok(format!("{:016x}", xxh3_64(identity.as_bytes())))
}

/// How fingerprints of models begin that are simulated.
const SIMULATED: &str = "simulated-";

/// The fingerprint of a model that is simulated, which no computed one has.
pub(crate) fn simulated_fingerprint(model: &ModelConfig) -> String {
    format!("{SIMULATED}{:016x}", xxh3_64(format!("{model:?}").as_bytes()))
}

/// What a worker knows of its model besides the weights; never changes.
#[derive(Debug)]
pub(crate) struct ServedModel {
    name: String,
    pub(crate) config: ModelConfig,
    /// By depth, the shallowest first.
    pub(crate) efforts: Vec<(String, DepthPolicy)>,
    pub(crate) default_effort: String,
    pub(crate) default_policy: DepthPolicy,
    max_depth: Depth,
    /// Of requests that bring none.
    pub(crate) latent_seed: u64,
    kv: KvPlan,
    /// Of all that answers depend on besides the request.
    pub(crate) fingerprint: String,
    pub(crate) tokenizer: TokenizerResponse,
}

impl ServedModel {
    /// Reads the folder's small files. The weights are only named, by `fingerprint`.
    pub(crate) fn read(config: &WorkerConfig, fingerprint: String, kv: KvPlan) -> Result<Self, WorkerError> {
        let folder = &config.model;
        let model = folder.config()?;
        let efforts = folder.efforts(&model)?;
        let default_policy = efforts.default_policy();
        let mut by_depth: Vec<_> = efforts.by_name.into_iter().collect();
        by_depth.sort_by_key(|(_, policy)| policy.max());
        Ok(Self {
            name: folder.name(),
            config: model,
            efforts: by_depth,
            default_effort: efforts.default,
            default_policy,
            max_depth: config.engine.max_depth,
            latent_seed: config.latent_seed,
            kv,
            fingerprint,
            tokenizer: tokenizer_files(folder)?,
        })
    }

    /// What requests are checked against.
    pub(crate) fn limits(&self) -> RequestLimits<'_> {
        RequestLimits { model: &self.config, max_depth: self.max_depth }
    }

    /// As clients and coordinators see it.
    pub(crate) fn info(&self) -> InfoResponse {
        let effort =
            |(name, policy): &(String, _)| Effort { name: name.clone(), depth: Some(depth_policy(policy)) };
        InfoResponse {
            model: Some(ModelInfo {
                name: self.name.clone(),
                context_length: self.config.context_length as u32,
                vocabulary: self.config.vocabulary as u32,
                default_depth: self.config.mean_recurrence,
                max_depth: self.max_depth,
                efforts: self.efforts.iter().map(effort).collect(),
                default_effort: self.default_effort.clone(),
                parameters: self.config.parameters(),
                fingerprint: self.fingerprint.clone(),
                simulated: self.fingerprint.starts_with(SIMULATED),
            }),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kv: Some(self.kv),
        }
    }

    /// Tells the log what is served and how much of it fits.
    pub(crate) fn log(&self) {
        let KvPlan { blocks, block_bytes, .. } = self.kv;
        let fit = |kv| self.positions_that_fit(kv, &self.default_policy);
        let (full, ring, context) = (fit(KvPolicy::Full), fit(KvPolicy::Ring(1)), self.config.context_length);
        tracing::info!(
            model = self.name,
            parameters = self.config.parameters(),
            kv_blocks = blocks,
            kv_bytes = u64::from(blocks) * block_bytes,
            tokens_at_kv_full = full,
            lanes_at_kv_full = full / context,
            tokens_at_kv_ring_1 = ring,
            lanes_at_kv_ring_1 = ring / context,
            effort = self.default_effort,
            "model is ready"
        );
    }

    /// Positions of all lanes together that the K/V blocks hold at the least.
    pub(crate) fn positions_that_fit(&self, kv: KvPolicy, depth: &DepthPolicy) -> usize {
        let slots = 1 + kv.slots(depth.max()).min(self.max_depth);
        (self.kv.blocks / slots) as usize * self.kv.block_positions as usize
    }
}

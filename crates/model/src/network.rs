//! The model's three parts over a kernel backend: prelude, core, coda.
//!
//! Each part takes the rows of one launch. What a row is, when it enters and whether it may leave is the engine's
//! business; the network only knows where each row's latent, embedding and K/V live.

mod layer;

use windlass_kernels::{Arithmetic, Backend, KvRows, KvShape, LargestOutput, LatentChange, Rows};

use crate::checkpoint::Checkpoint;
use crate::config::ModelConfig;
use crate::error::LoadError;
use crate::shard::Shard;
use crate::synthetic;
use crate::weights::{LoadProgress, Weights};
use layer::{Finish, Layer, Scratch};

/// A model's weights, or a rank's shard of them, on a device. Immutable; what changes is in [`Workspace`].
pub struct Network<B: Backend> {
    backend: B,
    config: ModelConfig,
    shard: Shard,
    /// `[vocabulary, hidden]`.
    embedding: B::Buffer,
    /// `[shard's vocabulary, hidden]`.
    head: B::Matrix,
    /// Onto the core's input from a latent and an embedding, `[hidden, 2 · hidden]`.
    adapter: B::Matrix,
    final_norm: Vec<f32>,
    prelude: Vec<Layer<B>>,
    core: Vec<Layer<B>>,
    coda: Vec<Layer<B>>,
    /// `[context, head_dim]`, a cosine and a sine per pair.
    rotary: B::Buffer,
}

/// How much a [`Workspace`] holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Rows of one launch.
    pub rows: usize,
    /// Latents (and embeddings) of positions in flight.
    pub latents: usize,
    /// K/V blocks.
    pub blocks: usize,
}

impl Capacity {
    /// Room for nothing.
    pub const NOTHING: Self = Self { rows: 0, latents: 0, blocks: 0 };

    /// Bytes of a shard's workspace of this capacity.
    pub fn bytes(&self, config: &ModelConfig, shard: &Shard) -> u64 {
        let (hidden, width) = (config.hidden, shard.heads.len() * config.head_dim);
        let row = (3 * hidden + 4 * width + shard.columns.len() + shard.vocabulary.len()) as u64;
        let block = shard.kv_shape(config, 1).block_len() as u64;
        let Self { rows, latents, blocks } = *self;
        let values = [(rows, row), (latents, 2 * hidden as u64), (blocks, block)];
        values
            .iter()
            .fold(0, |sum, (count, size)| (*count as u64).saturating_mul(4 * size).saturating_add(sum))
    }
}

/// Everything a network writes: latents, embeddings, K/V and scratch.
pub struct Workspace<B: Backend> {
    latents: B::Buffer,
    embeddings: B::Buffer,
    cache: B::KvCache,
    /// `[rows, hidden]`, what flows through the layers.
    x: B::Buffer,
    scratch: Scratch<B>,
    /// `[rows, shard's vocabulary]`.
    logits: B::Buffer,
}

/// The rows of one launch: row i has its latent and embedding at `latents[i]`, its K/V at `kv[i]`.
#[derive(Clone, Copy)]
pub struct Launch<'a> {
    /// Rows of the workspace's latents.
    pub latents: &'a [u32],
    /// One per row.
    pub kv: KvRows<'a>,
}

impl Launch<'_> {
    fn rows(&self) -> Rows<'_> {
        assert_eq!(self.latents.len(), self.kv.len(), "one latent and one K/V row per row");
        Rows::At(self.latents)
    }
}

impl<B: Backend> Network<B> {
    /// Loads and packs a checkpoint layer by layer; `progress` hears of every layer.
    pub fn load(
        backend: B,
        checkpoint: &Checkpoint,
        config: &ModelConfig,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<Self, LoadError> {
        Self::load_shard(backend, checkpoint, config, Shard::whole(config), progress)
    }

    /// The same of a rank's part alone; `backend` is that of the rank.
    pub fn load_shard(
        backend: B,
        checkpoint: &Checkpoint,
        config: &ModelConfig,
        shard: Shard,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<Self, LoadError> {
        let pack = |layer| Layer::new(&backend, layer, config, &shard);
        let weights = Weights::load_with(checkpoint, config, progress, pack)?;
        Ok(Self::assemble(backend, config, shard, weights))
    }

    /// A rank's part of a network of any shape with random weights, packed layer by layer: for measurements.
    pub fn synthetic(backend: B, config: &ModelConfig, shard: Shard, seed: u64) -> Self {
        let weights = synthetic::weights(config, seed, |layer| Layer::new(&backend, layer, config, &shard));
        Self::assemble(backend, config, shard, weights)
    }

    fn assemble(backend: B, config: &ModelConfig, shard: Shard, weights: Weights<Layer<B>>) -> Self {
        let hidden = config.hidden;
        let head = weights.head.as_ref().unwrap_or(&weights.wte);
        let head = &head[shard.vocabulary.start * hidden..shard.vocabulary.end * hidden];
        Self {
            head: backend.matrix(head, shard.vocabulary.len(), hidden),
            adapter: backend.matrix(&weights.adapter, hidden, 2 * hidden),
            embedding: upload(&backend, &weights.wte, hidden),
            rotary: upload(&backend, &rotary_table(config), config.head_dim),
            final_norm: weights.ln_f,
            prelude: weights.prelude,
            core: weights.core,
            coda: weights.coda,
            config: config.clone(),
            shard,
            backend,
        }
    }

    /// What decides the bits of products.
    pub fn arithmetic(&self) -> Arithmetic {
        self.backend.arithmetic()
    }

    /// The model's sizes.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Memory for `capacity`.
    pub fn workspace(&self, capacity: Capacity) -> Workspace<B> {
        let Self { config, shard, backend, .. } = self;
        Workspace {
            latents: backend.buffer(capacity.latents, config.hidden),
            embeddings: backend.buffer(capacity.latents, config.hidden),
            cache: backend.kv_cache(shard.kv_shape(config, capacity.blocks)),
            x: backend.buffer(capacity.rows, config.hidden),
            scratch: Scratch::new(backend, config, shard, capacity.rows),
            logits: backend.buffer(capacity.rows, shard.vocabulary.len()),
        }
    }

    /// Reads `tokens` (one per row) into the rows' embeddings, and sets their latents to `initial`, `[rows, hidden]`.
    pub fn prelude(&self, workspace: &mut Workspace<B>, tokens: &[u32], initial: &[f32], launch: Launch<'_>) {
        let Workspace { latents, embeddings, cache, x, scratch, .. } = workspace;
        let scale = (self.config.hidden as f32).sqrt();
        self.backend.upload(initial, latents, launch.rows());
        self.backend.embed(&self.embedding, tokens, scale, x);
        Layer::forward_all(&self.prelude, self, x, scratch, cache, launch.kv, 0, Finish::Keep);
        self.backend.scatter(x, embeddings, launch.rows());
    }

    /// One core iteration of every row, at whatever depth each is. Replaces `changes` by how far each latent moved.
    pub fn core(&self, workspace: &mut Workspace<B>, launch: Launch<'_>, changes: &mut Vec<LatentChange>) {
        let Workspace { latents, embeddings, cache, x, scratch, .. } = workspace;
        self.backend.adapter(latents, embeddings, launch.rows(), &self.adapter, x);
        let finish = Finish::Commit { latents, rows: launch.rows(), changes };
        Layer::forward_all(&self.core, self, x, scratch, cache, launch.kv, 0, finish);
    }

    /// Runs the coda on the rows' latents, and the head on the rows listed in `wanted`. Replaces `logits` by theirs,
    /// `[wanted, shard's vocabulary]`.
    pub fn coda(
        &self,
        workspace: &mut Workspace<B>,
        launch: Launch<'_>,
        wanted: &[u32],
        logits: &mut Vec<f32>,
    ) {
        let Workspace { latents, cache, x, scratch, logits: on_device, .. } = workspace;
        let eps = self.config.norm_eps as f32;
        self.backend.rms_norm(latents, launch.rows(), &self.final_norm, eps, x);
        Layer::forward_all(&self.coda, self, x, scratch, cache, launch.kv, self.prelude.len(), Finish::Keep);
        let normed = scratch.normed();
        self.backend.rms_norm(x, Rows::At(wanted), &self.final_norm, eps, normed);
        self.backend.matmul(normed, wanted.len(), &self.head, on_device);
        self.backend.download(on_device, wanted.len(), logits);
    }

    /// The most likely next token of the rows listed in `wanted`, of the last [`Network::coda`] launch, without computing
    /// logits to keep: of a shard, the most likely of its part of the vocabulary. Replaces `tokens`.
    pub fn most_likely(&self, workspace: &mut Workspace<B>, wanted: &[u32], tokens: &mut Vec<LargestOutput>) {
        let Workspace { x, scratch, .. } = workspace;
        let normed = scratch.normed();
        self.backend.rms_norm(x, Rows::At(wanted), &self.final_norm, self.config.norm_eps as f32, normed);
        self.backend.largest_outputs(normed, wanted.len(), &self.head, tokens);
        for token in tokens {
            token.output += self.shard.vocabulary.start as u32;
        }
    }

    /// All latents, `[latents, hidden]`, for inspection.
    pub fn latents(&self, workspace: &Workspace<B>, count: usize) -> Vec<f32> {
        let mut latents = Vec::new();
        self.backend.download(&workspace.latents, count, &mut latents);
        latents
    }
}

/// The shape of a cache of `blocks` blocks: prelude and coda layers share blocks of slot 0, core layers fill those of the
/// other slots, so a block has room for the larger of the two.
pub fn kv_shape(config: &ModelConfig, blocks: usize) -> KvShape {
    let ends = config.prelude_layers + config.coda_layers;
    let layers = config.core_layers.max(ends);
    KvShape { blocks, layers, heads: config.heads, head_dim: config.head_dim }
}

fn upload<B: Backend>(backend: &B, values: &[f32], width: usize) -> B::Buffer {
    let rows = values.len() / width;
    let mut buffer = backend.buffer(rows, width);
    backend.upload(values, &mut buffer, Rows::First(rows));
    buffer
}

/// `[context, head_dim]`: cosine and sine of position · base^(−2j / head_dim), computed in f32 as the reference does.
fn rotary_table(config: &ModelConfig) -> Vec<f32> {
    let base = config.rope_base as f32;
    let frequencies: Vec<f32> =
        (0..config.head_dim).step_by(2).map(|j| 1.0 / base.powf(j as f32 / config.head_dim as f32)).collect();
    let angles = |position| frequencies.iter().map(move |frequency| position as f32 * frequency);
    (0..config.context_length).flat_map(angles).flat_map(|angle| [angle.cos(), angle.sin()]).collect()
}

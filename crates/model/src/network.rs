//! The model's three parts over a kernel backend: prelude, core, coda.
//!
//! Each part takes the rows of one launch. What a row is, when it enters and whether it may leave is the engine's
//! business; the network only knows where each row's latent, embedding and K/V live.

mod layer;
mod part;

use std::ops::Range;

use windlass_kernels::{
    Arithmetic, Backend, Commit, Draws, KvFormat, KvRows, KvShape, LargestOutput, LatentChange, Rows, Stop,
    Weight,
};

use crate::checkpoint::Checkpoint;
use crate::config::ModelConfig;
use crate::error::LoadError;
use crate::ranks::Source;
use crate::shard::Shard;
use crate::synthetic::Synthetic;
use crate::weights::LoadProgress;
use layer::{Finish, Layer, Scratch};
use part::Parts;

/// A model's weights, a rank's shard of them, or those of a stage's part, on a device. Immutable; what changes is in
/// [`Workspace`].
pub struct Network<B: Backend> {
    backend: B,
    config: ModelConfig,
    shard: Shard,
    /// Which of the core's layers are here.
    layers: Range<usize>,
    /// What stands before the first core layer, if that is here.
    entrance: Option<Entrance<B>>,
    core: Vec<Layer<B>>,
    /// What stands behind the last core layer, if that is here.
    exit: Option<Exit<B>>,
    /// `[context, head_dim]`, a cosine and a sine per pair.
    rotary: B::Buffer,
}

/// What stands before the first core layer.
struct Entrance<B: Backend> {
    /// `[vocabulary, hidden]`.
    embedding: B::Buffer,
    prelude: Vec<Layer<B>>,
    /// Onto the core's input from a latent and an embedding, `[hidden, 2 · hidden]`.
    adapter: B::Matrix,
}

/// What stands behind the last core layer.
struct Exit<B: Backend> {
    final_norm: Vec<f32>,
    coda: Vec<Layer<B>>,
    /// `[shard's vocabulary, hidden]`.
    head: B::Matrix,
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
    pub fn bytes(&self, config: &ModelConfig, shard: &Shard, kv: KvFormat) -> u64 {
        self.part_bytes(config, (shard, &(0..config.core_layers)), kv)
    }

    /// The same of the part of a network that has these core layers.
    pub fn part_bytes(
        &self,
        config: &ModelConfig,
        (shard, core): (&Shard, &Range<usize>),
        kv: KvFormat,
    ) -> u64 {
        let (hidden, width) = (config.hidden, shard.heads.len() * config.head_dim);
        let (is_first, is_last) = ends(config, core);
        let head = if is_last { shard.vocabulary.len() } else { 0 };
        let row = 3 * hidden + 4 * width + shard.columns.len() + head;
        let latent = hidden * (usize::from(is_first || is_last) + usize::from(is_first)) + 1;
        let block = part_kv_shape(config, shard, core, 1).block_len();
        let Self { rows, latents, blocks } = *self;
        let sizes = [(rows, 4 * row), (latents, 4 * latent), (blocks, kv.bytes() * block)];
        sizes
            .iter()
            .fold(0, |sum, (count, bytes)| (*count as u64).saturating_mul(*bytes as u64).saturating_add(sum))
    }

    /// Bytes that each device of so many stages has for rows on their way to the next.
    pub fn parcel_bytes(&self, config: &ModelConfig, stages: usize) -> u64 {
        let parcels = if stages > 1 { stages as u64 } else { 0 };
        (4 * config.hidden as u64 * parcels).saturating_mul(self.rows as u64)
    }
}

/// Everything a network writes: latents, embeddings, K/V and scratch.
pub struct Workspace<B: Backend> {
    latents: B::Buffer,
    embeddings: B::Buffer,
    /// `[latents, 1]`: not zero for those that stopped since their rows last entered.
    stopped: B::Buffer,
    /// What rows that enter begin with there, `[rows]`.
    zeros: Vec<f32>,
    cache: B::KvCache,
    /// `[rows, hidden]`, what flows through the layers.
    x: B::Buffer,
    scratch: Scratch<B>,
    /// `[rows, shard's vocabulary]`.
    logits: B::Buffer,
    /// Of a shard, if its device joins what all ranks have.
    joined: Option<Joined<B>>,
}

/// The logits of all ranks.
struct Joined<B: Backend> {
    /// Where each rank's begin, then where they end.
    starts: Vec<u32>,
    /// `[rows, vocabulary]`, at rank 0.
    logits: Option<B::Buffer>,
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
        Rows::At(self.rows_of_latents())
    }

    fn rows_of_latents(&self) -> &[u32] {
        assert_eq!(self.latents.len(), self.kv.len(), "one latent and one K/V row per row");
        self.latents
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
        let whole = (Shard::whole(config), 0..config.core_layers);
        Self::load_part(backend, checkpoint, config, whole, progress)
    }

    /// The same of one device's part alone: its shard of these core layers, and of what comes with them as in
    /// [`Network::load_parts`].
    pub fn load_part(
        backend: B,
        checkpoint: &Checkpoint,
        config: &ModelConfig,
        (shard, layers): (Shard, Range<usize>),
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<Self, LoadError> {
        Ok(Parts::one(backend, layers, shard).load(checkpoint, config, progress)?.remove(0))
    }

    /// A shard in parts, one for each of `devices`: a backend with the core layers that it gets, which follow on each other.
    /// What stands before the core comes with its first layer, what stands behind it with its last.
    pub fn load_parts(
        devices: Vec<(B, Range<usize>)>,
        checkpoint: &Checkpoint,
        config: &ModelConfig,
        shard: Shard,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<Vec<Self>, LoadError> {
        Parts::new(devices, config, shard).load(checkpoint, config, progress)
    }

    /// A rank's part of a network of any shape with random weights, packed layer by layer: for measurements.
    pub fn synthetic(backend: B, config: &ModelConfig, shard: Shard, seed: u64) -> Self {
        let parts = Parts::one(backend, 0..config.core_layers, shard);
        let synthetic = Synthetic::new(config, seed);
        let weights = synthetic.weights(config, parts.packer(config));
        parts.assemble(config, weights).remove(0)
    }

    /// A shard of such a network in parts.
    pub fn synthetic_parts(
        devices: Vec<(B, Range<usize>)>,
        config: &ModelConfig,
        shard: Shard,
        seed: u64,
    ) -> Vec<Self> {
        let parts = Parts::new(devices, config, shard);
        let synthetic = Synthetic::new(config, seed);
        let weights = synthetic.weights(config, parts.packer(config));
        parts.assemble(config, weights)
    }

    /// What decides the bits of products.
    pub fn arithmetic(&self) -> Arithmetic {
        self.backend.arithmetic()
    }

    /// The model's sizes.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Whether what stands before the core is here.
    pub(crate) fn is_first(&self) -> bool {
        self.entrance.is_some()
    }

    /// Whether what stands behind the core is here.
    pub(crate) fn is_last(&self) -> bool {
        self.exit.is_some()
    }

    /// Gives the device back.
    pub(crate) fn into_backend(self) -> B {
        self.backend
    }

    /// Memory for `capacity`.
    pub fn workspace(&self, capacity: Capacity) -> Workspace<B> {
        let Self { config, shard, layers, backend, .. } = self;
        let only_if = |is_here: bool, count: usize| if is_here { count } else { 0 };
        let Capacity { rows, latents, blocks } = capacity;
        Workspace {
            latents: backend.buffer(only_if(self.is_first() || self.is_last(), latents), config.hidden),
            embeddings: backend.buffer(only_if(self.is_first(), latents), config.hidden),
            stopped: backend.buffer(latents, 1),
            zeros: vec![0.0; rows],
            cache: backend.kv_cache(part_kv_shape(config, shard, layers, blocks)),
            x: backend.buffer(rows, config.hidden),
            scratch: Scratch::new(backend, config, shard, rows),
            logits: backend.buffer(only_if(self.is_last(), rows), shard.vocabulary.len()),
            joined: (self.is_last() && self.joins_logits()).then(|| self.joined(rows)),
        }
    }

    /// Memory for the logits of all ranks.
    fn joined(&self, rows: usize) -> Joined<B> {
        let vocabulary = self.config.vocabulary;
        let ranks = self.backend.ranks_joined().expect("a device that joins");
        let shards = Shard::all(&self.config, ranks).expect("as many ranks as have shards");
        let starts = shards.iter().map(|shard| shard.vocabulary.start);
        let is_first = self.shard.vocabulary.start == 0;
        Joined {
            starts: starts.chain([vocabulary]).map(|start| start as u32).collect(),
            logits: is_first.then(|| self.backend.buffer(rows, vocabulary)),
        }
    }

    /// Whether rank 0 can be handed all logits of which this has a part.
    fn joins_logits(&self) -> bool {
        self.shard.vocabulary.len() < self.config.vocabulary && self.backend.ranks_joined().is_some()
    }

    /// Whether tokens can be drawn where the logits are.
    pub(crate) fn can_draw(&self) -> bool {
        self.shard.vocabulary.len() == self.config.vocabulary || self.joins_logits()
    }

    /// Reads `tokens` (one per row) into the rows' embeddings, and sets their latents to `initial`, `[rows, hidden]`. None of them
    /// has stopped.
    pub fn prelude(&self, workspace: &mut Workspace<B>, tokens: &[u32], initial: &[f32], launch: Launch<'_>) {
        let Entrance { embedding, prelude, .. } = self.entrance();
        self.set_latents(workspace, Source::Host(initial), launch.latents);
        self.backend.upload(&workspace.zeros[..launch.latents.len()], &mut workspace.stopped, launch.rows());
        let Workspace { embeddings, cache, x, scratch, .. } = workspace;
        let scale = (self.config.hidden as f32).sqrt();
        self.backend.embed(embedding, tokens, scale, x);
        Layer::forward_all(prelude, self, x, scratch, cache, launch.kv, 0, Finish::Keep);
        self.backend.scatter(x, embeddings, launch.rows());
        self.backend.flush();
    }

    /// One core iteration of every row, at whatever depth each is; of one that has stopped nothing changes. `stops` say by what
    /// rows stop now; without any none does. Reports how far each latent moved.
    pub fn core(
        &self,
        workspace: &mut Workspace<B>,
        launch: Launch<'_>,
        stops: &[Stop],
        changes: &mut B::Report<LatentChange>,
    ) {
        self.begin_core(workspace, launch);
        self.finish_core(workspace, launch, stops, changes);
    }

    /// The core's layers, on what is in `x`, into the rows' latents.
    fn finish_core(
        &self,
        workspace: &mut Workspace<B>,
        launch: Launch<'_>,
        stops: &[Stop],
        changes: &mut B::Report<LatentChange>,
    ) {
        let Workspace { latents, stopped, cache, x, scratch, .. } = workspace;
        let rows = launch.rows_of_latents();
        let commit = Commit { latents, rows, flags: stopped, stops };
        let finish = Finish::Commit { commit, changes };
        Layer::forward_all(&self.core, self, x, scratch, cache, launch.kv, 0, finish);
    }

    /// Runs the coda on the rows' latents, and the head on the rows listed in `wanted`. Reports their logits,
    /// `[wanted, shard's vocabulary]`.
    pub fn coda(
        &self,
        workspace: &mut Workspace<B>,
        launch: Launch<'_>,
        wanted: &[u32],
        logits: &mut B::Report<f32>,
    ) {
        let Exit { final_norm, coda, head } = self.exit();
        let Workspace { latents, cache, x, scratch, logits: on_device, .. } = workspace;
        let eps = self.config.norm_eps as f32;
        self.backend.rms_norm(latents, launch.rows(), final_norm, eps, x);
        let before = self.entrance.as_ref().map_or(0, |entrance| entrance.prelude.len());
        Layer::forward_all(coda, self, x, scratch, cache, launch.kv, before, Finish::Keep);
        let normed = scratch.normed();
        self.backend.rms_norm(x, Rows::At(wanted), final_norm, eps, normed);
        self.backend.matmul(normed, wanted.len(), head, on_device);
        self.backend.report(on_device, wanted.len(), logits);
    }

    /// Reports the most likely next token of the rows listed in `wanted`, of the last [`Network::coda`] launch, without computing
    /// logits to keep: of a shard, the most likely of its part of the vocabulary, counted from there.
    pub fn most_likely(
        &self,
        workspace: &mut Workspace<B>,
        wanted: &[u32],
        tokens: &mut B::Report<LargestOutput>,
    ) {
        let Exit { final_norm, head, .. } = self.exit();
        let Workspace { x, scratch, .. } = workspace;
        let normed = scratch.normed();
        self.backend.rms_norm(x, Rows::At(wanted), final_norm, self.config.norm_eps as f32, normed);
        self.backend.largest_outputs(normed, wanted.len(), head, tokens);
    }

    /// The device.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    pub(crate) fn shard(&self) -> &Shard {
        &self.shard
    }

    /// Reports a token for each of the rows listed in `wanted`, of the last [`Network::coda`] launch, drawn as `draws` say. Of several
    /// ranks the first does so, with the logits of all.
    pub(crate) fn draw(
        &self,
        workspace: &mut Workspace<B>,
        wanted: &[u32],
        draws: Draws<'_>,
        tokens: &mut B::Report<u32>,
    ) {
        let Exit { final_norm, head, .. } = self.exit();
        let Workspace { x, scratch, logits, joined, .. } = workspace;
        let normed = scratch.normed();
        self.backend.rms_norm(x, Rows::At(wanted), final_norm, self.config.norm_eps as f32, normed);
        self.backend.matmul(normed, wanted.len(), head, logits);
        let Some(Joined { starts, logits: all }) = joined else {
            return self.backend.draw(logits, draws, tokens);
        };
        self.backend.join_outputs(logits, wanted.len(), starts, all.as_mut());
        if let Some(all) = all {
            self.backend.draw(all, draws, tokens);
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
    part_kv_shape(config, &Shard::whole(config), &(0..config.core_layers), blocks)
}

/// The same for a rank's shard of the part of a network that has these core layers: keys and values of the shard's heads alone.
fn part_kv_shape(config: &ModelConfig, shard: &Shard, core: &Range<usize>, blocks: usize) -> KvShape {
    let (is_first, is_last) = ends(config, core);
    let prelude = if is_first { config.prelude_layers } else { 0 };
    let coda = if is_last { config.coda_layers } else { 0 };
    let layers = core.len().max(prelude + coda);
    KvShape { blocks, layers, heads: shard.heads.len(), head_dim: config.head_dim }
}

/// Whether these core layers have the first and the last among them.
fn ends(config: &ModelConfig, core: &Range<usize>) -> (bool, bool) {
    (core.start == 0, core.end == config.core_layers)
}

/// A table on the device, widened some rows at a time.
fn upload<B: Backend>(backend: &B, table: &Weight<'_>) -> B::Buffer {
    const ROWS: usize = 64;
    let (rows, width) = (table.rows(), table.width());
    let mut buffer = backend.buffer(rows, width);
    let (mut values, mut indices) = (Vec::new(), Vec::new());
    for first in (0..rows).step_by(ROWS) {
        let some = first..rows.min(first + ROWS);
        values.resize(some.len() * width, 0.0);
        for (row, to) in some.clone().zip(values.chunks_exact_mut(width)) {
            table.read(row, to);
        }
        indices.clear();
        indices.extend(some.map(|row| row as u32));
        backend.upload(&values, &mut buffer, Rows::At(&indices));
    }
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

//! One sandwich block: attention and MLP, each with a norm before it and one after its residual.

use windlass_kernels::{Backend, Commit, KvRows, LatentChange, Norm, NormWeights, Rotation, Rows, Stopped};

use super::Network;
use crate::config::ModelConfig;
use crate::shard::Shard;
use crate::weights::LayerWeights;

/// Weights of one layer, or of a rank's part of it, packed.
pub(super) struct Layer<B: Backend> {
    norm_1: Vec<f32>,
    norm_2: Vec<f32>,
    norm_3: Vec<f32>,
    norm_4: Vec<f32>,
    wqkv: B::Matrix,
    proj: B::Matrix,
    qk_bias: Option<Vec<f32>>,
    fc: B::Matrix,
    mlp_proj: B::Matrix,
}

/// Where the rows of a launch go after its last layer.
pub(super) enum Finish<'a, B: Backend> {
    /// They stay in `x`.
    Keep,
    /// Into their latents, but for those that have stopped; reports how far each moved.
    Commit { commit: Commit<'a, B::Buffer>, changes: &'a mut B::Report<LatentChange> },
}

impl<B: Backend> Finish<'_, B> {
    /// Who has stopped, where that matters.
    fn stopped(&self) -> Option<Stopped<'_, B::Buffer>> {
        match self {
            Self::Keep => None,
            Self::Commit { commit, .. } => Some(Stopped { flags: commit.flags, rows: commit.rows }),
        }
    }
}

/// What comes after a layer.
enum After<'a, 'b, B: Backend> {
    /// A layer with this first norm.
    Layer(&'a [f32]),
    Finish(Finish<'b, B>),
}

/// Activations inside a layer, shared by all layers.
pub(super) struct Scratch<B: Backend> {
    /// `[rows, hidden]`: a norm's output.
    normed: B::Buffer,
    /// `[rows, hidden]`: a projection's.
    projected: B::Buffer,
    /// `[rows, 3 · heads · head_dim]`, of the rank's own heads.
    qkv: B::Buffer,
    /// `[rows, heads · head_dim]`.
    attended: B::Buffer,
    /// `[rows, columns]`, of the rank's own feed-forward columns.
    gated: B::Buffer,
}

impl<B: Backend> Scratch<B> {
    pub(super) fn new(backend: &B, config: &ModelConfig, shard: &Shard, rows: usize) -> Self {
        let width = shard.heads.len() * config.head_dim;
        Self {
            normed: backend.buffer(rows, config.hidden),
            projected: backend.buffer(rows, config.hidden),
            qkv: backend.buffer(rows, 3 * width),
            attended: backend.buffer(rows, width),
            gated: backend.buffer(rows, shard.columns.len()),
        }
    }

    pub(super) fn normed(&mut self) -> &mut B::Buffer {
        &mut self.normed
    }
}

impl<B: Backend> Layer<B> {
    /// The shard's part of the layer that `weights` are of.
    pub(super) fn new(backend: &B, weights: LayerWeights<'_>, config: &ModelConfig, shard: &Shard) -> Self {
        let weights = shard.of_layer(weights, config);
        Self {
            wqkv: backend.matrix(&weights.wqkv),
            proj: backend.matrix(&weights.proj),
            fc: backend.gate_matrix(&weights.fc),
            mlp_proj: backend.matrix(&weights.mlp_proj),
            norm_1: weights.norm_1,
            norm_2: weights.norm_2,
            norm_3: weights.norm_3,
            norm_4: weights.norm_4,
            qk_bias: weights.qk_bias,
        }
    }

    /// `x` through `layers`, in place, then to its `finish`; the first of them is layer `kv_layer` of a K/V block.
    ///
    /// # Panics
    /// If there are no layers.
    #[expect(
        clippy::too_many_arguments,
        reason = "what all layers share, and what this launch has of its own"
    )]
    pub(super) fn forward_all(
        layers: &[Self],
        network: &Network<B>,
        x: &mut B::Buffer,
        scratch: &mut Scratch<B>,
        cache: &mut B::KvCache,
        rows: KvRows<'_>,
        kv_layer: usize,
        finish: Finish<'_, B>,
    ) {
        let (backend, eps) = (&network.backend, network.config.norm_eps as f32);
        let (first, last) = (&layers[0], layers.len() - 1);
        backend.rms_norm(x, Rows::First(rows.len()), &first.norm_1, eps, &mut scratch.normed);
        for (i, layer) in layers[..last].iter().enumerate() {
            layer.attend(network, x, scratch, cache, rows, finish.stopped(), kv_layer + i);
            layer.feed_forward(network, x, scratch, rows.len(), After::Layer(&layers[i + 1].norm_1));
        }
        layers[last].attend(network, x, scratch, cache, rows, finish.stopped(), kv_layer + last);
        layers[last].feed_forward(network, x, scratch, rows.len(), After::Finish(finish));
    }

    /// `x`, whose first norm is in `scratch`, through the attention, in place. Leaves the norm behind it in `scratch`.
    #[expect(clippy::too_many_arguments, reason = "what all layers share, and what this one has of its own")]
    fn attend(
        &self,
        network: &Network<B>,
        x: &mut B::Buffer,
        scratch: &mut Scratch<B>,
        cache: &mut B::KvCache,
        rows: KvRows<'_>,
        stopped: Option<Stopped<'_, B::Buffer>>,
        kv_layer: usize,
    ) {
        let (backend, eps, count) = (&network.backend, network.config.norm_eps as f32, rows.len());
        let Scratch { normed, projected, qkv, attended, .. } = scratch;
        let rotation = Rotation { bias: self.qk_bias.as_deref(), angles: &network.rotary };

        backend.matmul(normed, count, &self.wqkv, qkv);
        backend.rotate_and_store(qkv, rotation, rows, stopped, kv_layer, cache);
        backend.attention(qkv, rows, kv_layer, cache, attended);
        backend.matmul(attended, count, &self.proj, projected);
        backend.all_reduce(projected, count);
        let weights = NormWeights { first: &self.norm_2, next: &self.norm_3, eps };
        backend.add_norm_norm(x, projected, count, weights, normed);
    }

    /// The same through the feed-forward. Leaves the next layer's first norm in `scratch`, where there is one.
    fn feed_forward(
        &self,
        network: &Network<B>,
        x: &mut B::Buffer,
        scratch: &mut Scratch<B>,
        count: usize,
        after: After<'_, '_, B>,
    ) {
        let (backend, eps) = (&network.backend, network.config.norm_eps as f32);
        let Scratch { normed, projected, gated, .. } = scratch;

        backend.gated(normed, count, &self.fc, gated);
        backend.matmul(gated, count, &self.mlp_proj, projected);
        backend.all_reduce(projected, count);
        match after {
            After::Layer(next) => {
                let weights = NormWeights { first: &self.norm_4, next, eps };
                backend.add_norm_norm(x, projected, count, weights, normed);
            }
            After::Finish(Finish::Keep) => backend.add_rms_norm(x, projected, count, &self.norm_4, eps),
            After::Finish(Finish::Commit { commit, changes }) => {
                let norm = Norm { weight: &self.norm_4, eps };
                backend.add_norm_commit(x, projected, norm, commit, changes);
            }
        }
    }
}

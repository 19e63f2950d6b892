//! One sandwich block: attention and MLP, each with a norm before it and one after its residual.

use windlass_kernels::{Backend, KvRows, Rows};

use super::Network;
use crate::config::ModelConfig;
use crate::weights::LayerWeights;

/// Weights of one layer, packed.
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

/// Activations inside a layer, shared by all layers.
pub(super) struct Scratch<B: Backend> {
    /// `[rows, hidden]`: a norm's output, then a projection's.
    normed: B::Buffer,
    /// `[rows, hidden]`.
    projected: B::Buffer,
    /// `[rows, 3 · hidden]`.
    qkv: B::Buffer,
    /// `[rows, 2 · intermediate]`.
    gate_up: B::Buffer,
    /// `[rows, intermediate]`.
    gated: B::Buffer,
}

impl<B: Backend> Scratch<B> {
    pub(super) fn new(backend: &B, config: &ModelConfig, rows: usize) -> Self {
        Self {
            normed: backend.buffer(rows, config.hidden),
            projected: backend.buffer(rows, config.hidden),
            qkv: backend.buffer(rows, 3 * config.hidden),
            gate_up: backend.buffer(rows, 2 * config.intermediate),
            gated: backend.buffer(rows, config.intermediate),
        }
    }

    pub(super) fn normed(&mut self) -> &mut B::Buffer {
        &mut self.normed
    }
}

impl<B: Backend> Layer<B> {
    pub(super) fn new(backend: &B, weights: LayerWeights, config: &ModelConfig) -> Self {
        let (hidden, intermediate) = (config.hidden, config.intermediate);
        Self {
            wqkv: backend.matrix(&weights.wqkv, 3 * hidden, hidden),
            proj: backend.matrix(&weights.proj, hidden, hidden),
            fc: backend.matrix(&weights.fc, 2 * intermediate, hidden),
            mlp_proj: backend.matrix(&weights.mlp_proj, hidden, intermediate),
            norm_1: weights.norm_1,
            norm_2: weights.norm_2,
            norm_3: weights.norm_3,
            norm_4: weights.norm_4,
            qk_bias: weights.qk_bias,
        }
    }

    /// `x` through the layer, in place; `kv_layer` is its place among the layers of a K/V block.
    pub(super) fn forward(
        &self,
        network: &Network<B>,
        x: &mut B::Buffer,
        scratch: &mut Scratch<B>,
        cache: &mut B::KvCache,
        rows: KvRows<'_>,
        kv_layer: usize,
    ) {
        let (backend, eps, count) = (&network.backend, network.config.norm_eps as f32, rows.len());
        let Scratch { normed, projected, qkv, gate_up, gated } = scratch;

        backend.rms_norm(x, Rows::First(count), &self.norm_1, eps, normed);
        backend.matmul(normed, count, &self.wqkv, qkv);
        backend.rotate_and_store(qkv, self.qk_bias.as_deref(), &network.rotary, rows, kv_layer, cache);
        backend.attention(qkv, rows, kv_layer, cache, normed);
        backend.matmul(normed, count, &self.proj, projected);
        backend.add_rms_norm(x, projected, count, &self.norm_2, eps);

        backend.rms_norm(x, Rows::First(count), &self.norm_3, eps, normed);
        backend.matmul(normed, count, &self.fc, gate_up);
        backend.silu_mul(gate_up, count, gated);
        backend.matmul(gated, count, &self.mlp_proj, projected);
        backend.add_rms_norm(x, projected, count, &self.norm_4, eps);
    }
}

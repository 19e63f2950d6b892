//! One sandwich layer: attention and a gated feed-forward, each between two norms.

use candle_core::{D, Device, Result, Tensor};

use super::cache::{KeyValue, LayerCache};
use super::{flat, tensor};
use crate::config::ModelConfig;
use crate::weights::LayerWeights;

/// A layer's weights as tensors; shapes as in [`LayerWeights`].
pub(super) struct Layer {
    heads: usize,
    head_dim: usize,
    norm_eps: f64,
    /// Radians per position of each rotated pair, [head_dim / 2].
    frequencies: Vec<f32>,
    norms: [Tensor; 4],
    wqkv: Tensor,
    proj: Tensor,
    /// For queries and for keys, each [heads, head_dim].
    qk_bias: Option<[Tensor; 2]>,
    fc: Tensor,
    mlp_proj: Tensor,
}

impl Layer {
    pub(super) fn new(weights: LayerWeights<'_>, config: &ModelConfig) -> Result<Self> {
        let (d, f) = (config.hidden, config.intermediate);
        let bias = match &weights.qk_bias {
            Some(bias) => {
                let bias = tensor(bias, &[2, config.heads, config.head_dim])?;
                Some([bias.get(0)?, bias.get(1)?])
            }
            None => None,
        };
        let norm = |weight: Vec<f32>| tensor(&weight, &[d]);
        Ok(Self {
            heads: config.heads,
            head_dim: config.head_dim,
            norm_eps: config.norm_eps,
            frequencies: frequencies(config),
            wqkv: tensor(&weights.wqkv.to_vec(), &[3 * d, d])?,
            proj: tensor(&weights.proj.to_vec(), &[d, d])?,
            qk_bias: bias,
            fc: tensor(&weights.fc.to_vec(), &[2 * f, d])?,
            mlp_proj: tensor(&weights.mlp_proj.to_vec(), &[d, f])?,
            norms: [
                norm(weights.norm_1)?,
                norm(weights.norm_2)?,
                norm(weights.norm_3)?,
                norm(weights.norm_4)?,
            ],
        })
    }

    /// x [n, d] at n positions to the layer's output, [n, d]. Writes their keys and values to `slot`, then lets
    /// each attend to all positions up to its own.
    pub(super) fn forward(
        &self,
        x: &Tensor,
        positions: &[usize],
        cache: &mut LayerCache,
        slot: u32,
    ) -> Result<Tensor> {
        let attended = self.attention(&self.norm(0, x)?, positions, cache, slot)?;
        let x = self.norm(1, &(attended + x)?)?;
        let fed = self.feed_forward(&self.norm(2, &x)?)?;
        self.norm(3, &(fed + x)?)
    }

    fn norm(&self, which: usize, x: &Tensor) -> Result<Tensor> {
        rms_norm(x, &self.norms[which], self.norm_eps)
    }

    fn attention(
        &self,
        x: &Tensor,
        positions: &[usize],
        cache: &mut LayerCache,
        slot: u32,
    ) -> Result<Tensor> {
        let (n, d) = x.dims2()?;
        let qkv = linear(x, &self.wqkv)?;
        let split = |part: usize| qkv.narrow(1, part * d, d)?.reshape((n, self.heads, self.head_dim));
        let (mut q, mut k, v) = (split(0)?, split(1)?, split(2)?);
        if let Some([q_bias, k_bias]) = &self.qk_bias {
            q = q.broadcast_add(q_bias)?;
            k = k.broadcast_add(k_bias)?;
        }
        let (q, k) = (self.rotate(&q, positions)?, self.rotate(&k, positions)?);
        for (row, &position) in positions.iter().enumerate() {
            let entry = KeyValue { key: flat(&k.get(row)?)?, value: flat(&v.get(row)?)? };
            cache.write(position, slot, entry);
        }
        let rows = positions.iter().enumerate();
        let rows = rows.map(|(row, &position)| self.attend(&q.get(row)?, position, cache, slot));
        linear(&Tensor::stack(&rows.collect::<Result<Vec<_>>>()?, 0)?, &self.proj)
    }

    /// One query [heads, head_dim] over all positions up to its own; [d].
    fn attend(&self, query: &Tensor, position: usize, cache: &LayerCache, slot: u32) -> Result<Tensor> {
        let (keys, values) = cache.read(position, slot);
        let by_head = |rows: &[f32]| {
            tensor(rows, &[position + 1, self.heads, self.head_dim])?.transpose(0, 1)?.contiguous()
        };
        let (keys, values) = (by_head(&keys)?, by_head(&values)?);
        let scores = (query.unsqueeze(1)?.matmul(&keys.t()?)? / (self.head_dim as f64).sqrt())?;
        let weights = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
        let weights = weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)?;
        weights.matmul(&values)?.flatten_all()
    }

    /// Rotates adjacent pairs (2j, 2j + 1) of every head by position · frequency j. x is [n, heads, head_dim].
    fn rotate(&self, x: &Tensor, positions: &[usize]) -> Result<Tensor> {
        let (n, pairs) = (positions.len(), self.head_dim / 2);
        let angles: Vec<f32> =
            positions.iter().flat_map(|&p| self.frequencies.iter().map(move |f| p as f32 * f)).collect();
        let angles = Tensor::from_vec(angles, (n, 1, pairs, 1), &Device::Cpu)?;
        let (cos, sin) = (angles.cos()?, angles.sin()?);
        let x = x.reshape((n, self.heads, pairs, 2))?;
        let (even, odd) = (x.narrow(3, 0, 1)?, x.narrow(3, 1, 1)?);
        let rotated_even = (even.broadcast_mul(&cos)? - odd.broadcast_mul(&sin)?)?;
        let rotated_odd = (odd.broadcast_mul(&cos)? + even.broadcast_mul(&sin)?)?;
        Tensor::cat(&[rotated_even, rotated_odd], 3)?.reshape((n, self.heads, self.head_dim))
    }

    fn feed_forward(&self, x: &Tensor) -> Result<Tensor> {
        let gate_up = linear(x, &self.fc)?;
        let columns = gate_up.dim(1)? / 2;
        let (gate, up) = (gate_up.narrow(1, 0, columns)?, gate_up.narrow(1, columns, columns)?);
        linear(&(gate.silu()? * up)?, &self.mlp_proj)
    }
}

/// x [n, columns] times the transpose of weight [rows, columns]; [n, rows].
pub(super) fn linear(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    x.contiguous()?.matmul(&weight.t()?)
}

/// x / sqrt(mean(x²) + eps) · weight, row by row.
pub(super) fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    let mean_square = x.sqr()?.mean_keepdim(D::Minus1)?;
    x.broadcast_div(&(mean_square + eps)?.sqrt()?)?.broadcast_mul(weight)
}

fn frequencies(config: &ModelConfig) -> Vec<f32> {
    let base = config.rope_base as f32;
    (0..config.head_dim / 2).map(|j| 1.0 / base.powf(2.0 * j as f32 / config.head_dim as f32)).collect()
}

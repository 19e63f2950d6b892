//! The model computed slowly and plainly, one tensor operation after the other, in f32 on the CPU.
//!
//! What every faster implementation is tested against: it shares no code with them but [`crate::exit`], batches
//! nothing across sequences, and keeps keys and values in plain vectors. Not for serving. Its public functions
//! take and return rows as flat slices, row-major, and panic on rows of the wrong length.

mod cache;
mod generate;
mod layer;

use candle_core::{Device, Result, Tensor};

pub use cache::OracleCache;
pub use generate::{OracleRequest, OracleToken};

use crate::checkpoint::Checkpoint;
use crate::config::ModelConfig;
use crate::depth::Depth;
use crate::error::LoadError;
use crate::kv::KvPolicy;
use crate::weights::Weights;
use layer::{Layer, linear, rms_norm};

/// A loaded model. d is the width, V the vocabulary.
pub struct Oracle {
    config: ModelConfig,
    /// [V, d].
    embedding: Tensor,
    /// [V, d].
    head: Tensor,
    /// [d, 2d].
    adapter: Tensor,
    /// [d].
    ln_f: Tensor,
    prelude: Vec<Layer>,
    core: Vec<Layer>,
    coda: Vec<Layer>,
}

impl Oracle {
    /// Loads all weights.
    pub fn load(checkpoint: &Checkpoint, config: &ModelConfig) -> std::result::Result<Self, LoadError> {
        let weights = Weights::load(checkpoint, config, &mut |_| {})?;
        Ok(shaped(Self::from_weights(weights, config)))
    }

    fn from_weights(weights: Weights<'_>, config: &ModelConfig) -> Result<Self> {
        let (vocabulary, d) = (config.vocabulary, config.hidden);
        let layers =
            |layers: Vec<_>| layers.into_iter().map(|layer| Layer::new(layer, config)).collect::<Result<_>>();
        let embedding = tensor(&weights.wte.to_vec(), &[vocabulary, d])?;
        let head = match &weights.head {
            Some(head) => tensor(&head.to_vec(), &[vocabulary, d])?,
            None => embedding.clone(),
        };
        Ok(Self {
            embedding,
            head,
            adapter: tensor(&weights.adapter.to_vec(), &[d, 2 * d])?,
            ln_f: tensor(&weights.ln_f, &[d])?,
            prelude: layers(weights.prelude)?,
            core: layers(weights.core)?,
            coda: layers(weights.coda)?,
            config: config.clone(),
        })
    }

    /// Keys and values of a sequence that has no position yet.
    pub fn cache(&self, kv: KvPolicy) -> OracleCache {
        OracleCache::new(&self.config, kv)
    }

    /// The embeddings [n, d] of n new positions, ascending, which must follow those in the cache without a gap.
    pub fn prelude(&self, cache: &mut OracleCache, ids: &[u32], positions: &[usize]) -> Vec<f32> {
        assert_eq!(ids.len(), positions.len(), "one token per position");
        let mut embed = || {
            let ids = Tensor::new(ids, &Device::Cpu)?;
            let mut x = (self.embedding.index_select(&ids, 0)? * (self.config.hidden as f64).sqrt())?;
            for (layer, cache) in self.prelude.iter().zip(&mut cache.prelude) {
                x = layer.forward(&x, positions, cache, 0)?;
            }
            flat(&x)
        };
        shaped(embed())
    }

    /// One core iteration of n positions together: latents [n, d] that have gone through `depth` iterations
    /// become those after `depth + 1`. Every position reads, of the earlier ones, the slot that `depth` has
    /// under the cache's K/V policy.
    pub fn iterate(
        &self,
        cache: &mut OracleCache,
        latents: &[f32],
        embeddings: &[f32],
        positions: &[usize],
        depth: Depth,
    ) -> Vec<f32> {
        let slot = cache.kv.slot(depth);
        let mut iterate = || {
            let shape = [positions.len(), self.config.hidden];
            let joined = Tensor::cat(&[tensor(latents, &shape)?, tensor(embeddings, &shape)?], 1)?;
            let mut x = linear(&joined, &self.adapter)?;
            for (layer, cache) in self.core.iter().zip(&mut cache.core) {
                x = layer.forward(&x, positions, cache, slot)?;
            }
            flat(&x)
        };
        shaped(iterate())
    }

    /// The logits [n, V] of n positions whose latents are [n, d]. Their coda keys and values replace any that
    /// an earlier call left for the same positions.
    pub fn coda_logits(&self, cache: &mut OracleCache, latents: &[f32], positions: &[usize]) -> Vec<f32> {
        let mut decode = || {
            let latents = tensor(latents, &[positions.len(), self.config.hidden])?;
            let mut x = rms_norm(&latents, &self.ln_f, self.config.norm_eps)?;
            for (layer, cache) in self.coda.iter().zip(&mut cache.coda) {
                x = layer.forward(&x, positions, cache, 0)?;
            }
            flat(&linear(&rms_norm(&x, &self.ln_f, self.config.norm_eps)?, &self.head)?)
        };
        shaped(decode())
    }
}

fn tensor(values: &[f32], shape: &[usize]) -> Result<Tensor> {
    Tensor::from_slice(values, shape, &Device::Cpu)
}

fn flat(x: &Tensor) -> Result<Vec<f32>> {
    x.flatten_all()?.to_vec1()
}

/// Tensor operations only fail on shapes, and those come from the config and from the caller's rows.
fn shaped<T>(result: Result<T>) -> T {
    result.expect("rows and weights have the config's shapes")
}

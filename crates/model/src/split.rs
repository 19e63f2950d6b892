//! A model split over devices: its layers over stages, and each stage's products over ranks.

use std::ops::Range;
use std::thread;

use windlass_kernels::Backend;

use crate::checkpoint::Checkpoint;
use crate::config::ModelConfig;
use crate::error::LoadError;
use crate::network::Network;
use crate::ranks::Ranks;
use crate::runner::Runner;
use crate::shard::Shard;
use crate::stages::{Costs, Ring, check, cut};
use crate::weights::LoadProgress;

/// Which device has which part of a model.
pub struct Split<B: Backend> {
    /// The core layers of each stage.
    stages: Vec<Range<usize>>,
    /// By rank: its shard of every layer, and a device for each stage.
    ranks: Vec<(Shard, Vec<B>)>,
}

impl<B: Backend> Split<B> {
    /// Over `backends`, of each stage one for each rank, those of a stage being one group. Where to cut is decided by what parts of
    /// the model cost on the first stage, for tokens of the depth that the model was trained for.
    ///
    /// # Panics
    /// If stages differ in how many ranks they have.
    pub fn new(mut backends: Vec<Vec<B>>, config: &ModelConfig) -> Result<Self, LoadError> {
        let count = backends.len();
        check(config, count)?;
        let (stages, first) = measured_cut(backends.remove(0), count, config)?;
        backends.insert(0, first);
        Self::at(backends, stages, config)
    }

    /// The same cut as `stages` says, which has the core layers of each.
    pub fn at(
        backends: Vec<Vec<B>>,
        stages: Vec<Range<usize>>,
        config: &ModelConfig,
    ) -> Result<Self, LoadError> {
        let shards = Shard::all(config, backends.first().map_or(0, Vec::len))?;
        let mut ranks: Vec<_> = shards.into_iter().map(|shard| (shard, Vec::new())).collect();
        for stage in backends {
            assert_eq!(stage.len(), ranks.len(), "stages differ in how many ranks they have");
            ranks.iter_mut().zip(stage).for_each(|((_, devices), device)| devices.push(device));
        }
        Ok(Self { stages, ranks })
    }

    /// The core layers of each stage.
    pub fn stages(&self) -> &[Range<usize>] {
        &self.stages
    }

    /// Loads each device's part, all ranks at once: the networks of each stage by rank. `progress` hears of rank 0.
    pub fn load(
        self,
        checkpoint: &Checkpoint,
        config: &ModelConfig,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<Vec<Vec<Network<B>>>, LoadError> {
        let Self { stages, ranks } = self;
        let load = |(shard, devices): (Shard, Vec<B>), progress: &mut dyn FnMut(LoadProgress)| {
            let devices = devices.into_iter().zip(stages.iter().cloned()).collect();
            Network::load_parts(devices, checkpoint, config, shard, progress)
        };
        let mut ranks = ranks.into_iter();
        let first = ranks.next().expect("at least one rank");
        let networks: Result<Vec<_>, LoadError> = thread::scope(|scope| {
            let others: Vec<_> = ranks.map(|rank| scope.spawn(|| load(rank, &mut |_| {}))).collect();
            let first = load(first, progress);
            let others = others.into_iter().map(|other| other.join().expect("a rank that loads"));
            std::iter::once(first).chain(others).collect()
        });
        Ok(by_stage(networks?))
    }

    /// The same with random weights: for measurements.
    pub fn synthetic(self, config: &ModelConfig, seed: u64) -> Vec<Vec<Network<B>>> {
        let Self { stages, ranks } = self;
        let rank = |(shard, devices): (Shard, Vec<B>)| {
            let devices = devices.into_iter().zip(stages.iter().cloned()).collect();
            Network::synthetic_parts(devices, config, shard, seed)
        };
        by_stage(ranks.into_iter().map(rank).collect())
    }
}

/// The core layers of each of `count` stages, so that for tokens of the depth that the model was trained for the busiest has as little
/// to do as can be, by what parts of the model cost on `stage`, the backends of one of them by rank; gives those back.
pub fn measured_cut<B: Backend>(
    stage: Vec<B>,
    count: usize,
    config: &ModelConfig,
) -> Result<(Vec<Range<usize>>, Vec<B>), LoadError> {
    if count == 1 {
        return Ok((std::iter::once(0..config.core_layers).collect(), stage));
    }
    let (costs, stage) = Costs::measure(stage, config)?;
    Ok((cut(config, &costs, f64::from(config.mean_recurrence), count)?, stage))
}

/// What runs a model's parts, the networks of each stage by rank.
///
/// # Panics
/// If the system refuses threads.
pub fn runner<B: Backend>(mut stages: Vec<Vec<Network<B>>>) -> Box<dyn Runner> {
    if stages.len() > 1 {
        return Box::new(Ring::new(stages));
    }
    Box::new(Ranks::of_threads(stages.remove(0)))
}

/// From networks of each rank by stage.
fn by_stage<B: Backend>(ranks: Vec<Vec<Network<B>>>) -> Vec<Vec<Network<B>>> {
    let mut stages: Vec<Vec<Network<B>>> = Vec::new();
    for rank in ranks {
        for (stage, network) in rank.into_iter().enumerate() {
            if stages.len() <= stage {
                stages.push(Vec::new());
            }
            stages[stage].push(network);
        }
    }
    stages
}

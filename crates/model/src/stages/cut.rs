//! Which layers go to which stage.

use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

use windlass_kernels::{Backend, KvRow, KvRows, KvTable};

use crate::config::ModelConfig;
use crate::network::{Capacity, Launch, Network};
use crate::shard::{RanksError, Shard};

/// Rows of the launches that are timed: as many as a stage commonly has in flight, and no more than a K/V block has positions.
const ROWS: usize = 16;
/// Launches of each kind, of which the median counts.
const REPEATS: usize = 7;

/// What parts of a model cost for some rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Costs {
    /// Any layer.
    pub layer: Duration,
    /// The product in front of each core iteration.
    pub adapter: Duration,
    /// From a last state to logits.
    pub head: Duration,
}

impl Costs {
    /// Times a layer, the adapter and the head of the model's sizes, with random weights, on a backend for each rank that shares
    /// them; gives the backends back.
    pub fn measure<B: Backend>(backends: Vec<B>, config: &ModelConfig) -> Result<(Self, Vec<B>), RanksError> {
        let sample = ModelConfig {
            prelude_layers: 1,
            core_layers: 1,
            coda_layers: 1,
            context_length: config.context_length.min(ROWS),
            ..config.clone()
        };
        let shards = Shard::all(&sample, backends.len())?;
        let time = |(backend, shard)| {
            let network = Network::synthetic(backend, &sample, shard, 0);
            (Self::of(&network, sample.context_length), network.into_backend())
        };
        let timed: Vec<(Self, B)> = thread::scope(|scope| {
            let ranks = backends.into_iter().zip(shards);
            let ranks: Vec<_> = ranks.map(|rank| scope.spawn(move || time(rank))).collect();
            ranks.into_iter().map(|rank| rank.join().expect("a rank that is timed")).collect()
        });
        Ok((timed[0].0, timed.into_iter().map(|(_, backend)| backend).collect()))
    }

    /// Of a network of one layer in each part.
    fn of<B: Backend>(network: &Network<B>, rows: usize) -> Self {
        let mut workspace = network.workspace(Capacity { rows, latents: rows, blocks: 2 });
        let mut table = KvTable::default();
        for slot in 0..2 {
            table.set_block(slot, 0, slot);
        }
        (0..rows).for_each(|position| table.set_top_slot(position, 1));
        let latents: Vec<u32> = (0..rows as u32).collect();
        let at = |slot| move |position| KvRow { table: 0, position, slot };
        let [ends, core] = [0, 1].map(|slot| latents.iter().copied().map(at(slot)).collect::<Vec<_>>());
        let tables = [table];
        let launch = |rows| Launch { latents: &latents, kv: KvRows { rows, tables: &tables } };
        let (tokens, initial) = (vec![0; rows], vec![0.5; rows * network.config().hidden]);
        let backend = network.backend();
        let (mut changes, mut logits) = (backend.new_report(rows), backend.new_report(0));
        let prelude = median_time(|| {
            network.prelude(&mut workspace, &tokens, &initial, launch(&ends));
            backend.wait();
        });
        let iteration = median_time(|| {
            network.core(&mut workspace, launch(&core), &[], &mut changes);
            backend.wait();
        });
        let coda = median_time(|| {
            network.coda(&mut workspace, launch(&ends), &latents, &mut logits);
            backend.wait();
        });
        Self {
            layer: prelude,
            adapter: iteration.saturating_sub(prelude),
            head: coda.saturating_sub(prelude),
        }
    }

    /// What a stage with these core layers takes for tokens of `depth` iterations: prelude and adapter stand in front of the
    /// first layer, coda and head behind the last.
    pub fn stage(&self, config: &ModelConfig, core: &Range<usize>, depth: f64) -> Duration {
        let mut iteration = self.layer * core.len() as u32;
        let mut ends = Duration::ZERO;
        if core.start == 0 {
            iteration += self.adapter;
            ends += self.layer * config.prelude_layers as u32;
        }
        if core.end == config.core_layers {
            ends += self.layer * config.coda_layers as u32 + self.head;
        }
        iteration.mul_f64(depth) + ends
    }
}

fn median_time(mut launch: impl FnMut()) -> Duration {
    let mut times: Vec<Duration> = (0..=REPEATS)
        .map(|_| {
            let start = Instant::now();
            launch();
            start.elapsed()
        })
        .collect();
    // The first one finds memory that nobody has touched.
    times.remove(0);
    times.sort();
    times[REPEATS / 2]
}

/// A number of stages that a model cannot be cut into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("stages is {stages}: use 1 to {most}, the layers of the model's core")]
pub struct TooManyStages {
    /// The number asked for.
    pub stages: usize,
    /// How many core layers there are.
    pub most: usize,
}

/// Whether a model can be cut into this many stages.
pub fn check(config: &ModelConfig, stages: usize) -> Result<(), TooManyStages> {
    let most = config.core_layers;
    if (1..=most).contains(&stages) { Ok(()) } else { Err(TooManyStages { stages, most }) }
}

/// The core layers of each stage, at least one: so that the stage with the most to do for tokens of `depth` iterations has as
/// little as can be.
pub fn cut(
    config: &ModelConfig,
    costs: &Costs,
    depth: f64,
    stages: usize,
) -> Result<Vec<Range<usize>>, TooManyStages> {
    check(config, stages)?;
    let layers = config.core_layers;
    let cost = |core: &Range<usize>| costs.stage(config, core, depth);
    // `best[n]`: how the first n layers are best shared by the stages so far, and what the one with the most has to do.
    let mut best: Vec<Option<(Duration, Vec<Range<usize>>)>> = vec![None; layers + 1];
    best[0] = Some((Duration::ZERO, Vec::new()));
    for _ in 0..stages {
        let longer = |end: usize| {
            let with_last = |start: usize| {
                let (most, cut) = best[start].as_ref()?;
                let core = start..end;
                Some((cost(&core).max(*most), [cut.as_slice(), &[core]].concat()))
            };
            (0..end).filter_map(with_last).min_by_key(|(most, _)| *most)
        };
        best = (0..=layers).map(longer).collect();
    }
    let (_, cut) = best.swap_remove(layers).expect("there are no more stages than layers");
    Ok(cut)
}

#[cfg(test)]
mod tests {
    use windlass_kernels::{Cpu, CpuConfig};

    use super::*;
    use crate::synthetic::Shape;

    const COSTS: Costs = Costs {
        layer: Duration::from_micros(100),
        adapter: Duration::from_micros(16),
        head: Duration::from_micros(60),
    };

    fn config(prelude_layers: usize, core_layers: usize, coda_layers: usize) -> ModelConfig {
        let shape = Shape {
            hidden: 16,
            heads: 2,
            intermediate: 24,
            prelude_layers,
            core_layers,
            coda_layers,
            vocabulary: 32,
            context_length: 64,
        };
        shape.config().unwrap()
    }

    fn most(config: &ModelConfig, cut: &[Range<usize>], depth: f64) -> Duration {
        cut.iter().map(|core| COSTS.stage(config, core, depth)).max().unwrap()
    }

    /// Every way to cut `layers` behind `from` into `stages`.
    fn all_cuts(from: usize, layers: usize, stages: usize) -> Vec<Vec<Range<usize>>> {
        if stages == 1 {
            return vec![std::iter::once(from..layers).collect()];
        }
        let rest = |end| all_cuts(end, layers, stages - 1).into_iter().map(move |rest| (end, rest));
        let with_first =
            |(end, rest): (usize, Vec<Range<usize>>)| std::iter::once(from..end).chain(rest).collect();
        (from + 1..=layers + 1 - stages).flat_map(rest).map(with_first).collect()
    }

    #[test]
    fn no_other_cut_leaves_the_busiest_stage_less_to_do() {
        for (prelude, core, coda) in [(2, 4, 2), (1, 7, 3), (4, 9, 1)] {
            let config = config(prelude, core, coda);
            for stages in 1..=core {
                for depth in [1.0, 4.0, 32.0] {
                    let found = cut(&config, &COSTS, depth, stages).unwrap();
                    assert_eq!(found.len(), stages);
                    assert!(found.iter().all(|core| !core.is_empty()) && found[stages - 1].end == core);
                    let least = all_cuts(0, core, stages).iter().map(|cut| most(&config, cut, depth)).min();
                    assert_eq!(Some(most(&config, &found, depth)), least, "{found:?}");
                }
            }
        }
    }

    #[test]
    fn the_ends_count_for_less_the_deeper_tokens_go() {
        let config = config(6, 8, 1);
        let first = |depth| cut(&config, &COSTS, depth, 2).unwrap()[0].clone();
        assert_eq!((first(1.0), first(32.0)), (0..2, 0..4));
    }

    #[test]
    fn more_stages_than_core_layers_are_refused() {
        let config = config(2, 4, 2);
        for stages in [0, 5] {
            let error = cut(&config, &COSTS, 8.0, stages).unwrap_err();
            let expected = format!("stages is {stages}: use 1 to 4, the layers of the model's core");
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn measuring_gives_the_backends_back_and_a_layer_takes_time() {
        for ranks in [1, 2] {
            let backends = Cpu::group(CpuConfig::new(1), ranks);
            let (costs, backends) = Costs::measure(backends, &config(2, 4, 2)).unwrap();
            assert!(costs.layer > Duration::ZERO);
            assert_eq!(backends.len(), ranks);
            assert_eq!(backends[0].arithmetic(), Cpu::new(1).arithmetic());
        }
    }
}

//! `windlass bench pipeline`: a ring of stages beside one stage and beside separate engines, and rings that this machine is too small for.

mod measured;
mod simulation;

use std::io::{Write, stdout};

use anyhow::{Result, bail};
use clap::{Args, value_parser};
use serde::Serialize;
use windlass_engine::{EngineConfig, block_bytes};
use windlass_kernels::{Cpu, CpuConfig, WeightFormat};
use windlass_model::stages::{self, Costs};
use windlass_model::{Depth, KvPolicy, ModelConfig, Shard};

use super::memory;
use super::shape::{ShapeArgument, to_argument};
use super::workload::Workload;
use crate::table::{align, table};
use measured::{Measured, Rings, measure};
use simulation::{Simulated, simulate};

/// Measures a model on a ring of stages beside the same model on one stage, and simulates larger rings
///
/// Random weights; every token takes the same depth. Each stage has one thread. Beside each ring as many engines of one stage share
/// the sequences and never wait for each other, which shows what the machine gives so many threads. All take turns within each round;
/// figures are those of the round of median time. A ring is simulated from what layer, adapter and head take for 16 rows on one thread;
/// where it has more stages than the core has layers, the core is as many layers long.
#[derive(Debug, Args)]
pub(crate) struct PipelineArguments {
    /// Shape of the model
    #[arg(long, value_name = "KEY=VALUE,…", default_value = "d=1024")]
    shape: ShapeArgument,
    /// How weights are stored: f32, bf16 or int8
    #[arg(long, value_name = "f32|bf16|int8", default_value_t = WeightFormat::F32)]
    weights: WeightFormat,
    /// Seed of the random weights
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Numbers of stages to measure, separated by commas, the first of which the others are compared with
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1,2")]
    stages: Vec<usize>,
    /// Numbers of stages to simulate
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "2,4,8,16,32,64", value_parser = value_parser!(u32).range(1..=1024))]
    simulate: Vec<u32>,
    /// Sequences served at once
    #[arg(long, value_name = "N", default_value_t = 48, value_parser = value_parser!(u32).range(1..=65_536))]
    lanes: u32,
    /// Tokens of each sequence
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = value_parser!(u32).range(2..=16_777_216))]
    tokens: u32,
    /// Core iterations of each token
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = value_parser!(u32).range(1..=10_000))]
    depth: Depth,
    /// Times that each ring runs, and the engines beside it
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = value_parser!(u32).range(1..=10_000))]
    rounds: u32,
    /// Write one JSON object
    #[arg(long)]
    json: bool,
}

/// All that was measured and simulated.
#[derive(Debug, Serialize)]
struct Report {
    shape: String,
    weights: String,
    lanes: u32,
    depth: Depth,
    /// For 16 rows, on one thread.
    costs_ms: CostsMs,
    measured: Vec<Measured>,
    simulated: Vec<Simulated>,
}

/// [`Costs`] in milliseconds.
#[derive(Debug, Serialize)]
struct CostsMs {
    layer: f64,
    adapter: f64,
    head: f64,
}

/// Runs the command.
pub(crate) fn run(arguments: &PipelineArguments) -> Result<()> {
    let model = &arguments.shape.0;
    let workload = arguments.workload(model)?;
    let config = arguments.engine_config(model, &workload);
    let cpu = CpuConfig { weights: arguments.weights, ..CpuConfig::new(1) };
    let lanes = arguments.lanes as usize;
    for &stages in &arguments.stages {
        stages::check(model, stages)?;
        if lanes < stages {
            bail!("lanes is {lanes}: use at least stages, which is {stages}, so that each has a sequence");
        }
    }
    let rings = Rings { model, cpu, seed: arguments.seed, stages: &arguments.stages };
    let remedy = "fewer lanes, fewer stages, --weights bf16 or a smaller shape";
    memory::check(model, (rings.copies(), &[Shard::whole(model)]), remedy, arguments.weights, &config)?;
    let (costs, _) = Costs::measure(vec![Cpu::with(cpu)], model)?;
    let report = Report {
        shape: to_argument(model),
        weights: arguments.weights.to_string(),
        lanes: arguments.lanes,
        depth: arguments.depth,
        costs_ms: CostsMs {
            layer: 1e3 * costs.layer.as_secs_f64(),
            adapter: 1e3 * costs.adapter.as_secs_f64(),
            head: 1e3 * costs.head.as_secs_f64(),
        },
        measured: measure(&rings, &config, &workload, arguments.rounds as usize)?,
        simulated: arguments.simulated(model, &costs)?,
    };
    let mut out = stdout();
    if arguments.json {
        writeln!(out, "{}", serde_json::to_string(&report)?)?;
    } else {
        report.show(&mut out)?;
    }
    Ok(())
}

impl PipelineArguments {
    fn workload(&self, model: &ModelConfig) -> Result<Workload> {
        let (tokens, context) = (self.tokens as usize, model.context_length);
        if tokens >= context {
            bail!("tokens is {tokens}: use fewer than the context, {context}");
        }
        let depths = vec![vec![self.depth; tokens]; self.lanes as usize];
        Ok(Workload::new((1, model.vocabulary), KvPolicy::Ring(1), self.depth, depths))
    }

    fn engine_config(&self, model: &ModelConfig, workload: &Workload) -> EngineConfig {
        let lanes = self.lanes as usize;
        let largest = workload.requests(true).map(|(_, request)| request.kv_blocks()).max().unwrap_or(1);
        let blocks = lanes * largest;
        EngineConfig {
            max_lanes: lanes,
            max_rows: lanes,
            prefill_chunk: lanes,
            prefill_positions: lanes,
            max_waiting: lanes,
            // An engine keeps some blocks for lanes that run when a further one opens.
            kv_bytes: (blocks + blocks / 16 + 1) * block_bytes(model, self.weights.kv()),
            prefix_cache: false,
            ..EngineConfig::new(model, self.depth)
        }
    }

    fn simulated(&self, model: &ModelConfig, costs: &Costs) -> Result<Vec<Simulated>> {
        let stages = self.simulate.iter();
        stages.map(|&stages| Ok(simulate(model, costs, self.depth, stages as usize)?)).collect()
    }
}

impl Report {
    fn show(&self, mut to: impl Write) -> Result<()> {
        let Self { shape, weights, lanes, depth, costs_ms, measured, simulated } = self;
        let CostsMs { layer, adapter, head } = costs_ms;
        writeln!(to, "{shape}, {weights}; {lanes} sequences, depth {depth}, a thread for each stage")?;
        writeln!(
            to,
            "16 rows take a layer {layer:.2} ms, the adapter {adapter:.2} ms, the head {head:.2} ms\n"
        )?;
        let header = [
            "stages",
            "core layers",
            "tokens/s",
            "over the first",
            "separate tokens/s",
            "over separate",
            "bubbles",
            "balance",
            "busy",
        ];
        let mut shown = table(header.map(str::to_owned).to_vec());
        for ring in measured {
            let Measured { stages, cut, tokens_per_second, over_first, bubbles, balance, busy, .. } = ring;
            let separate = ring.separate_tokens_per_second;
            let busy: Vec<String> = busy.iter().map(|busy| format!("{:.0} %", 100.0 * busy)).collect();
            shown.add_row([
                stages.to_string(),
                sizes(cut),
                format!("{tokens_per_second:.1}"),
                format!("{over_first:.2}"),
                format!("{separate:.1}"),
                format!("{:.2}", tokens_per_second / separate),
                format!("{:.1} %", 100.0 * bubbles),
                format!("{balance:.3}"),
                busy.join(" "),
            ]);
        }
        align(&mut shown);
        writeln!(to, "measured\n{shown}\n")?;
        let header = ["stages", "core layers", "over one", "a stage", "bubbles", "balance"];
        let mut shown = table(header.map(str::to_owned).to_vec());
        for ring in simulated {
            let Simulated { stages, core_layers, speedup, efficiency, bubbles, balance, .. } = ring;
            shown.add_row([
                stages.to_string(),
                core_layers.to_string(),
                format!("{speedup:.2}"),
                format!("{efficiency:.3}"),
                format!("{:.1} %", 100.0 * bubbles),
                format!("{balance:.3}"),
            ]);
        }
        align(&mut shown);
        writeln!(to, "simulated\n{shown}")?;
        Ok(())
    }
}

fn sizes(cut: &[usize]) -> String {
    cut.iter().map(usize::to_string).collect::<Vec<_>>().join("+")
}

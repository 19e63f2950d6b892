//! `windlass bench engine`: schedulers side by side on the same work.

use std::fs::File;
use std::io::{BufWriter, Write, stdout};
use std::path::PathBuf;
use std::thread::available_parallelism;

use anyhow::{Context, Result, bail};
use clap::{Args, value_parser};
use windlass_engine::{Coalesce, Draft, Engine, EngineConfig, MonotonicClock, RequestLimits, block_bytes};
use windlass_kernels::{Backend, CpuConfig, GpuConfig, WeightFormat};
use windlass_model::split::runner;
use windlass_model::{ModelConfig, ModelFolder, Runner, Shard, Split};
#[cfg(feature = "cuda")]
use windlass_worker::DevicePlan;

use super::depths::Depths;
use super::measure::measure;
use super::memory;
use super::mode::Mode;
use super::progress::Progress;
use super::report::{Definitions, Machine, Measurement, Report, Settings};
use super::shape::{ShapeArgument, to_argument};
use super::show::title;
use super::trace::Trace;
use super::workload::Workload;
use crate::config::{model_folder, thread_count};
use crate::device_options::DeviceOptions;
use crate::policy_argument::KvArgument;
use crate::split;

/// What the share means; the same words in help, table and JSON.
macro_rules! share_definition {
    () => {
        "the time that the rows needed by the recorded depths take at the best rates measured, over the time taken. Needed \
         are prelude, core iterations, and coda with head, of prompt positions and of generated tokens. The best rate of each of \
         the three is the smallest median of seconds per row over launches of alike row counts (1, 2, 3 to 4, 5 to 8, and so on \
         by powers of two; groups of fewer than 8 launches do not count), over all modes and rounds of the measurement; those of drafts count where nothing else is measured"
    };
}

/// What the other share means.
macro_rules! own_rates_definition {
    () => {
        "the same with best rates of prompt positions and of generated tokens apart, from ticks that had the one and not the \
         other: launches of prompts have more rows than there are lanes, which generated tokens never reach"
    };
}

/// Measures the engine's scheduler beside others on the same work, without a server
///
/// Every request replays recorded exit depths, so that all schedulers but full-depth and drafts do the same core iterations. All requests
/// are submitted at once. A prompt takes the most iterations that the distribution has, and with it the first token.
#[derive(Debug, Args)]
#[command(after_long_help = concat!(
    "Each mode reports tokens/s (also over lockstep and homogeneous), core rows per tick, ticks, time by phase, and its\n\
     share of the theoretical gain.\n\nShare of the theoretical gain: ",
    share_definition!(),
    ".\n\nAt own rates: ",
    own_rates_definition!(),
    ".\n\nFigures of a mode are those of its round of \
     median time; each measurement is printed when it is done. A short run that is not counted comes first."
))]
pub(crate) struct EngineArguments {
    /// Folder of the model, or `demo` for the one in this program [default: demo]
    #[arg(long, value_name = "DIR|demo", conflicts_with = "shape")]
    model: Option<String>,
    /// Random weights of this shape instead of a model: `d=1024,heads=16,ff=2816,layers=2+4+2,vocabulary=8192,context=1024`,
    /// with layers of prelude + core + coda; keys that are left out stand at these values
    #[arg(long, value_name = "KEY=VALUE,…")]
    shape: Option<ShapeArgument>,
    /// Seed of random weights and of drawn depths
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    device: DeviceOptions,
    /// How weights are stored: f32; bf16, also the inputs of products; int8 with a scale per output, also the inputs. Keys and
    /// values are f32 beside f32, else bf16
    #[arg(long, value_name = "f32|bf16|int8", default_value_t = WeightFormat::F32)]
    weights: WeightFormat,
    /// Ranks that the model is split over, 1 to its attention heads
    #[arg(long, value_name = "N", env = "WINDLASS_TP", default_value_t = 1)]
    tp: usize,
    /// Threads of the computation; ranks share them, each has at least one [default: all cores]
    #[arg(long, value_name = "N", env = "WINDLASS_THREADS")]
    threads: Option<usize>,
    /// Stages that the model is cut into, each with a part of its layers and of the threads. Lockstep and homogeneous have one
    /// launch under way even so. Times of phases are those of all stages together
    #[arg(long, value_name = "N", env = "WINDLASS_STAGES", default_value_t = 1)]
    stages: usize,
    /// Sequences served at once; several, separated by commas, are measured one after the other
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "16", value_parser = value_parser!(u32).range(1..=65_536))]
    lanes: Vec<u32>,
    /// How many requests; or several numbers, separated by commas, one for each of --lanes
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "64", value_parser = value_parser!(u32).range(1..=1_000_000))]
    requests: Vec<u32>,
    /// Tokens of each request
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = value_parser!(u32).range(1..=16_777_216))]
    tokens: u32,
    /// Positions of each prompt
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = value_parser!(u32).range(1..=16_777_216))]
    prompt: u32,
    /// Exit depths of the tokens, may be given several times: `uniform:LOW:HIGH`; `geometric:MEAN:MAX`, with the mean before
    /// the cut at MAX; `bimodal:LOW:HIGH` at even odds; `fixed:DEPTH`; or a file with a line for each request, a JSON array
    /// of a depth per token, of which the first --requests lines and --tokens depths are used
    #[arg(long, value_name = "DEPTHS", default_value = "uniform:1:32")]
    depths: Vec<Depths>,
    /// Keys and values of the core: `full` keeps those of every iteration, `ring:K` the last K, `anchor:A` the first A
    /// and the last
    #[arg(long, value_name = "POLICY", default_value = "full")]
    kv: KvArgument,
    /// Schedulers to measure, separated by commas [default: all]
    #[arg(long, value_name = "MODE,…", value_enum, value_delimiter = ',')]
    modes: Vec<Mode>,
    /// Times that each mode runs; modes take turns within each round
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = value_parser!(u32).range(1..=10_000))]
    rounds: u32,
    /// Most rows of a tick
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = value_parser!(u32).range(1..=1_048_576))]
    max_rows: u32,
    /// How long a token that is done iterating may wait to share prelude and coda with others, in all modes but lockstep: off,
    /// auto, or a number of ticks
    #[arg(long, value_name = "off|auto|TICKS", default_value = "auto")]
    coalesce: Coalesce,
    /// When mode drafts guesses tokens: off, auto, or every so many iterations; under --kv ring and anchor never [default: auto]
    #[arg(long, value_name = "off|auto|ITERATIONS")]
    draft: Option<Draft>,
    /// Write a Chrome trace of the last round to FILE: an event per launch with its rows and tick, a track per mode
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Write one JSON object: machine, settings, measurements; with one distribution and one number of lanes also
    /// `modes.MODE.tokens_per_second`, `modes.MODE.share_of_theoretical_gain` and so on at the top
    #[arg(long)]
    json: bool,
}

/// One workload at one number of lanes.
struct Cell<'a> {
    depths: &'a Depths,
    workload: Workload,
    config: EngineConfig,
}

/// Runs the command.
pub(crate) fn run(arguments: &EngineArguments) -> Result<()> {
    let folder = arguments.folder()?;
    let model = match (&arguments.shape, &folder) {
        (Some(ShapeArgument(config)), _) => config.clone(),
        (None, folder) => folder.config()?,
    };
    let cells = arguments.cells(&model)?;
    let threads = thread_count(arguments.threads)?;
    let measured = Measured { arguments, folder: &folder, model: &model, cells: &cells };
    match arguments.device.gpus(arguments.tp * arguments.stages)? {
        None => {
            let shards = Shard::all(&model, arguments.tp)?;
            for cell in &cells {
                let remedy = "fewer lanes, fewer tokens, --kv ring:1, --weights bf16 or a smaller shape";
                memory::check(&model, (1, &shards), remedy, arguments.weights, &cell.config)?;
            }
            let cpu = CpuConfig { weights: arguments.weights, ..CpuConfig::new(threads) };
            let backends = split::cpus(cpu, &model, arguments.tp, arguments.stages)?;
            measured.run(Split::new(backends, &model)?, threads, cpu.isa.to_string())
        }
        Some(gpus) => on_gpus(&gpus, &measured),
    }
}

#[cfg(feature = "cuda")]
fn on_gpus(gpus: &GpuConfig, measured: &Measured<'_>) -> Result<()> {
    let EngineArguments { weights, tp, .. } = *measured.arguments;
    let backends = windlass_kernels::cuda::Cuda::open(gpus, tp, weights)?;
    let info = backends[0][0].device().info();
    let instructions = format!("{} ({})", info.name, info.architecture());
    let free = backends.iter().flatten().map(|cuda| cuda.device().free_bytes());
    let devices: Vec<_> = gpus.devices.iter().copied().zip(free).collect();
    let split = Split::new(backends, measured.model)?;
    for Cell { config, .. } in measured.cells {
        let capacity = config.capacity(measured.model, weights.kv());
        let plans = DevicePlan::of_split(measured.model, weights, capacity, (tp, split.stages()))?;
        DevicePlan::check(&plans, &devices)
            .with_context(|| format!("lanes is {}: use fewer", config.max_lanes))?;
    }
    measured.run(split, 1, instructions)
}

#[cfg(not(feature = "cuda"))]
fn on_gpus(_: &GpuConfig, _: &Measured<'_>) -> Result<()> {
    Err(windlass_kernels::CudaError::NotBuilt.into())
}

/// What is measured, on whatever computes.
struct Measured<'a> {
    arguments: &'a EngineArguments,
    folder: &'a ModelFolder,
    model: &'a ModelConfig,
    cells: &'a [Cell<'a>],
}

impl Measured<'_> {
    /// Measures every cell under every mode, and reports.
    fn run<B: Backend>(&self, split: Split<B>, threads: usize, instructions: String) -> Result<()> {
        let Self { arguments, folder, model, cells } = *self;
        let modes = arguments.modes()?;
        let mut trace = arguments.trace()?;
        let runner = arguments.runner(split, folder, model)?;
        let machine = Machine {
            threads,
            cores: available_parallelism().map_or(1, usize::from),
            instructions,
            arithmetic: runner.arithmetic().to_string(),
        };
        let mut engine = Engine::new(runner, cells[0].config.clone(), Box::new(MonotonicClock::start()))?;
        let settings = arguments.settings(folder, model, &modes);
        let rounds = arguments.rounds as usize;
        let mut progress = Progress::new(cells.len() * modes.len() * rounds, rounds, !arguments.json);
        progress.begin(&machine, &settings)?;
        let mut measurements = Vec::new();
        for (index, cell) in cells.iter().enumerate() {
            let name = (cell.depths.to_string(), cell.config.max_lanes);
            progress.measurement_starts(&name.0, name.1)?;
            let plan = (modes.as_slice(), rounds);
            let (engine_again, outcomes) = measure(engine, &cell.config, &cell.workload, plan, &progress)?;
            engine = engine_again;
            let measurement = Measurement::new(name, &cell.workload, &outcomes);
            if let Some(trace) = &mut trace {
                trace.measurement(index, &title(&measurement))?;
                for (mode, rounds) in &outcomes {
                    trace.track(index, *mode, rounds.last().map_or(&[], |outcome| &outcome.launches))?;
                }
            }
            progress.measurement_ends(&measurement)?;
            measurements.push(measurement);
        }
        trace.map(Trace::end).transpose()?;
        let report = Report::new(machine, settings, definitions(), measurements);
        progress.end(&report.definitions)?;
        if arguments.json {
            writeln!(stdout(), "{}", serde_json::to_string(&report)?)?;
        }
        Ok(())
    }
}

impl EngineArguments {
    /// The modes asked for, in the order of the report.
    fn modes(&self) -> Result<Vec<Mode>> {
        if self.modes.is_empty() {
            return Ok(Mode::ALL.to_vec());
        }
        let mut modes = self.modes.clone();
        modes.sort();
        if let Some(pair) = modes.windows(2).find(|pair| pair[0] == pair[1]) {
            bail!("modes has {} twice: give each mode once", pair[0].name());
        }
        if let Some(draft) = self.draft
            && !modes.contains(&Mode::Drafts)
        {
            bail!("draft is {draft}, and modes has no drafts: add it, or leave draft out");
        }
        Ok(modes)
    }

    fn folder(&self) -> Result<ModelFolder> {
        model_folder(self.model.as_deref().unwrap_or("demo"))
    }

    /// Every distribution at every number of lanes, checked against the model and the machine.
    fn cells(&self, model: &ModelConfig) -> Result<Vec<Cell<'_>>> {
        let (prompt, tokens, context) = (self.prompt as usize, self.tokens as usize, model.context_length);
        Shard::all(model, self.tp)?;
        let mut cells = Vec::new();
        for depths in &self.depths {
            for (lanes, requests) in self.lanes()? {
                let table = depths.table(self.seed, requests, tokens)?;
                let most = depths.most(&table);
                let workload = Workload::new((prompt, model.vocabulary), self.kv.0, most, table);
                let longest = workload.longest();
                if prompt + longest > context {
                    bail!(
                        "tokens is {longest}: with prompt, {prompt}, more than the context of {context}: use fewer"
                    );
                }
                let limits = RequestLimits { model, max_depth: most };
                workload.requests(true).try_for_each(|(_, request)| request.validate(limits))?;
                let config = self.engine_config(lanes, model, &workload)?;
                cells.push(Cell { depths, workload, config });
            }
        }
        Ok(cells)
    }

    /// Every number of lanes, and how many requests it gets.
    fn lanes(&self) -> Result<impl Iterator<Item = (usize, usize)>> {
        let (lanes, requests) = (self.lanes.len(), self.requests.len());
        if requests != 1 && requests != lanes {
            bail!("requests has {requests} numbers: give one, or one for each of --lanes, which has {lanes}");
        }
        let requests = self.requests.iter().cycle();
        Ok(self.lanes.iter().zip(requests).map(|(&lanes, &requests)| (lanes as usize, requests as usize)))
    }

    /// Limits with room for all lanes, so that no mode waits for memory.
    fn engine_config(&self, lanes: usize, model: &ModelConfig, workload: &Workload) -> Result<EngineConfig> {
        let (prompt, max_rows) = (self.prompt as usize, self.max_rows as usize);
        let largest = workload.requests(false).map(|(_, request)| request.kv_blocks()).max().unwrap_or(1);
        // An engine keeps some blocks for lanes that run when a further one opens.
        let blocks = lanes.checked_mul(largest).map(|blocks| blocks + blocks / 16 + 1);
        let kv_bytes = blocks.and_then(|blocks| blocks.checked_mul(block_bytes(model, self.weights.kv())));
        Ok(EngineConfig {
            max_lanes: lanes,
            max_rows,
            prefill_chunk: max_rows,
            prefill_positions: lanes.saturating_mul(prompt),
            max_waiting: workload.len(),
            kv_bytes: kv_bytes.with_context(|| format!("lanes is {lanes}: use fewer"))?,
            coalesce: self.coalesce,
            draft: self.draft.unwrap_or(Draft::Auto),
            prefix_cache: false,
            ..EngineConfig::new(model, workload.most())
        })
    }

    /// The trace's file, opened before anything is measured.
    fn trace(&self) -> Result<Option<Trace<BufWriter<File>>>> {
        let Some(path) = &self.trace else { return Ok(None) };
        let file = File::create(path)
            .with_context(|| format!("trace: {} cannot be written: name another file", path.display()))?;
        Trace::begin(BufWriter::new(file)).map(Some)
    }

    fn runner<B: Backend>(
        &self,
        split: Split<B>,
        folder: &ModelFolder,
        model: &ModelConfig,
    ) -> Result<Box<dyn Runner>> {
        if self.shape.is_some() {
            return Ok(runner(split.synthetic(model, self.seed)));
        }
        split::load(split, folder, model)
    }

    fn settings(&self, folder: &ModelFolder, model: &ModelConfig, modes: &[Mode]) -> Settings {
        Settings {
            model: self.shape.is_none().then(|| folder.name()),
            shape: to_argument(model),
            parameters: model.parameters(),
            weights: self.weights.to_string(),
            tp: self.tp,
            seed: self.seed,
            prompt: self.prompt as usize,
            kv: self.kv.0,
            max_rows: self.max_rows as usize,
            stages: self.stages,
            coalesce: match self.coalesce {
                Coalesce::Off => "off".to_owned(),
                Coalesce::Auto => "auto".to_owned(),
                Coalesce::Fixed(ticks) => ticks.to_string(),
            },
            draft: modes.contains(&Mode::Drafts).then(|| self.draft.unwrap_or(Draft::Auto).to_string()),
            rounds: self.rounds as usize,
        }
    }
}

fn definitions() -> Definitions {
    Definitions {
        share_of_theoretical_gain: share_definition!(),
        share_at_own_rates: own_rates_definition!(),
    }
}

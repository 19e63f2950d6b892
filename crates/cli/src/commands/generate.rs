//! `windlass generate`: one generation in this process, without a server.

mod output;

use std::io;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;
use windlass_coordinator::text::Tokenizer;
use windlass_engine::{
    Engine, EngineConfig, Event, MonotonicClock, Request, RequestId, RequestLimits, Sampling, block_bytes,
};
#[cfg(feature = "cuda")]
use windlass_kernels::cuda::Cuda;
use windlass_kernels::{Backend, CpuConfig, WeightFormat};
use windlass_model::{Depth, DepthPolicy, Efforts, ModelConfig, ModelFolder, Runner, Shard, Split};

use crate::config::{model_folder, thread_count};
use crate::device_options::DeviceOptions;
use crate::policy_argument::{DepthArgument, KvArgument, finite};
use crate::split;
use crate::text_files::tokenizer;
use output::{Fields, Output};

/// Most tokens where `--max-tokens` is not given.
const MAX_TOKENS: usize = 128;
/// Prompt positions in one launch.
const PREFILL_CHUNK: usize = 256;

/// Generates text in this process, without a server
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("input").required(true))]
pub(crate) struct GenerateArguments {
    /// Folder of the model, or `demo` for the one in this program
    #[arg(long, value_name = "DIR|demo", env = "WINDLASS_MODEL")]
    model: String,
    /// Text to continue; the model's special tokens are put around it
    #[arg(long, value_name = "TEXT", group = "input", allow_hyphen_values = true)]
    prompt: Option<String>,
    /// Token ids to continue, as they are, separated by commas; the folder needs no tokenizer then
    #[arg(long, value_name = "IDS", group = "input", value_delimiter = ',', allow_hyphen_values = true)]
    token_ids: Option<Vec<u32>>,
    /// Core iterations per token: `fixed:8`, or `adaptive:CRITERION:THRESHOLD[:MAX]` with CRITERION latent-diff, cosine,
    /// kl, minp-kl, entropy-diff or argmax-stability; MAX is the depth the model was trained for unless given. Prompt
    /// positions always take the most iterations
    /// [default: the model's default effort]
    #[arg(long, value_name = "POLICY", conflicts_with = "effort")]
    depth: Option<DepthArgument>,
    /// One of the model's named depth policies, such as `low`, `medium` or `high`
    #[arg(long, value_name = "NAME")]
    effort: Option<String>,
    /// Keys and values of the core: `full` keeps those of every iteration, `ring:K` the last K, `anchor:A` the first A
    /// and the last
    #[arg(long, value_name = "POLICY", default_value = "full")]
    kv: KvArgument,
    /// Most tokens to generate [default: 128, or what the context leaves]
    #[arg(long, value_name = "N")]
    max_tokens: Option<usize>,
    /// 0 takes the most likely token, 1 draws by the model's probabilities
    #[arg(long, value_name = "T", default_value_t = 0.0, value_parser = finite)]
    temperature: f32,
    /// Seed of the draws
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Seed of the initial latents
    #[arg(long, value_name = "S", default_value_t = 0)]
    latent_seed: u64,
    /// Factor on the initial latents, 0 for the zero state
    #[arg(long, value_name = "X", default_value_t = 1.0, value_parser = finite)]
    init_scale: f32,
    #[command(flatten)]
    device: DeviceOptions,
    /// How weights are stored: f32, bf16 or int8
    #[arg(long, value_name = "FORMAT", default_value = "f32")]
    weights: WeightFormat,
    /// Ranks that the model is split over, 1 to its attention heads; answers depend on it
    #[arg(long, value_name = "N", env = "WINDLASS_TP", default_value_t = 1)]
    tp: usize,
    /// Threads of the computation; ranks share them, each has at least one [default: all cores]
    #[arg(long, value_name = "N", env = "WINDLASS_THREADS")]
    threads: Option<usize>,
    /// Stages that the model is cut into, each with a part of its layers and of the threads; the answer is the same
    #[arg(long, value_name = "N", env = "WINDLASS_STAGES", default_value_t = 1)]
    stages: usize,
    /// Write one JSON object per token instead of the text (or of the ids, where the folder has no tokenizer): token,
    /// text, depth, logprob; numbers that JSON lacks, as NaN, are null
    #[arg(long)]
    json: bool,
    /// Add the raw logits to each object, one per vocabulary entry; implies --json
    #[arg(long)]
    logits: bool,
    /// Add the exit criterion's value at every check to each object; implies --json
    #[arg(long)]
    exit_values: bool,
    /// Add the N most likely tokens with their log-probabilities to each object (0 to 20); implies --json
    #[arg(long, value_name = "N")]
    logprobs: Option<usize>,
}

/// Runs the command.
pub(crate) fn run(arguments: &GenerateArguments) -> Result<()> {
    let folder = model_folder(&arguments.model)?;
    let config = folder.config()?;
    let efforts = folder.efforts(&config)?;
    let tokenizer = tokenizer(&folder)?.map(Arc::new);
    let request = arguments.request(tokenizer.as_deref(), &config, &efforts)?;
    request.validate(RequestLimits { model: &config, max_depth: efforts.max_depth })?;
    Shard::all(&config, arguments.tp)?;
    match arguments.device.gpus(arguments.tp * arguments.stages)? {
        None => {
            let threads = thread_count(arguments.threads)?;
            let cpu = CpuConfig { weights: arguments.weights, ..CpuConfig::new(threads) };
            let backends = split::cpus(cpu, &config, arguments.tp, arguments.stages)?;
            run_on(backends, arguments, (&folder, &config), tokenizer, request)
        }
        #[cfg(feature = "cuda")]
        Some(gpus) => {
            let backends = Cuda::open(&gpus, arguments.tp, arguments.weights)?;
            run_on(backends, arguments, (&folder, &config), tokenizer, request)
        }
        #[cfg(not(feature = "cuda"))]
        Some(_) => Err(windlass_kernels::CudaError::NotBuilt.into()),
    }
}

fn run_on<B: Backend>(
    backends: Vec<Vec<B>>,
    arguments: &GenerateArguments,
    (folder, config): (&ModelFolder, &ModelConfig),
    tokenizer: Option<Arc<Tokenizer>>,
    request: Request,
) -> Result<()> {
    let mut engine = engine(folder, config, &request, backends)?;
    let fields = Fields {
        exit_values: arguments.exit_values,
        top_logprobs: arguments.logprobs.is_some(),
        logits: arguments.logits,
    };
    let output =
        Output::new(io::stdout().lock(), tokenizer, &request.prompt, arguments.as_json().then_some(fields));
    generate(&mut engine, request, output)
}

/// Runs the only request to its end.
fn generate<R: Runner>(
    engine: &mut Engine<R>,
    request: Request,
    mut output: Output<impl io::Write>,
) -> Result<()> {
    let start = Instant::now();
    let mut events = Vec::new();
    engine.submit(RequestId(0), request)?;
    while !engine.is_idle() {
        engine.tick(&mut events);
        let is_last = events.iter().any(|event| matches!(event, Event::Finished(..)));
        for event in events.drain(..) {
            match event {
                Event::Token(_, token) => output.token(&token, is_last)?,
                Event::Finished(_, reason, usage) => output.finish(reason, usage, start.elapsed())?,
            }
        }
    }
    Ok(())
}

impl GenerateArguments {
    /// Whether to write JSON; what only JSON can show asks for it too.
    fn as_json(&self) -> bool {
        self.json || self.logits || self.exit_values || self.logprobs.is_some()
    }

    fn request(
        &self,
        tokenizer: Option<&Tokenizer>,
        config: &ModelConfig,
        efforts: &Efforts,
    ) -> Result<Request> {
        let prompt = match (&self.prompt, &self.token_ids, tokenizer) {
            (Some(text), _, Some(tokenizer)) => tokenizer.encode(text, true)?,
            (Some(_), _, None) => {
                bail!("{} has no tokenizer.json: use --token-ids, not --prompt", self.model)
            }
            (None, ids, _) => ids.clone().unwrap_or_default(),
        };
        let left = config.context_length.saturating_sub(prompt.len()).max(1);
        let max_tokens = self.max_tokens.unwrap_or(MAX_TOKENS.min(left));
        Ok(Request {
            sampling: Sampling { temperature: self.temperature, seed: self.seed, ..Sampling::default() },
            // The chosen token's own log-probability is always part of the JSON.
            logprobs: self.as_json().then_some(self.logprobs.unwrap_or(0)),
            exit_values: self.exit_values,
            report_logits: self.logits,
            latent_seed: self.latent_seed,
            init_scale: self.init_scale,
            ..Request::greedy(prompt, max_tokens, self.policy(config.mean_recurrence, efforts)?, self.kv.0)
        })
    }

    fn policy(&self, mean_recurrence: Depth, efforts: &Efforts) -> Result<DepthPolicy> {
        if let Some(depth) = self.depth {
            return Ok(depth.policy(mean_recurrence));
        }
        let Some(name) = &self.effort else { return Ok(efforts.default_policy()) };
        efforts
            .by_name
            .get(name)
            .copied()
            .with_context(|| format!("effort: the model has no '{name}': use one of {}", efforts.names()))
    }
}

/// An engine with memory for exactly one request.
fn engine<B: Backend>(
    folder: &ModelFolder,
    config: &ModelConfig,
    request: &Request,
    backends: Vec<Vec<B>>,
) -> Result<Engine<Box<dyn Runner>>> {
    let runner = split::load(Split::new(backends, config)?, folder, config)?;
    let kv_bytes = request.kv_blocks() * block_bytes(config, runner.arithmetic().kv());
    let limits = EngineConfig {
        max_lanes: 1,
        max_rows: PREFILL_CHUNK,
        prefill_chunk: PREFILL_CHUNK,
        prefill_positions: request.prompt.len(),
        max_waiting: 1,
        kv_bytes,
        prefix_cache: false,
        ..EngineConfig::new(config, request.depth.max())
    };
    Ok(Engine::new(runner, limits, Box::new(MonotonicClock::start()))?)
}

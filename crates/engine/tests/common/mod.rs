//! A small engine and a way to run requests on it.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

pub mod choices;
pub mod told;
pub mod visits;

use std::collections::BTreeMap;
use std::path::Path;

use windlass_engine::{
    Coalesce, Draft, Engine, EngineConfig, Event, FinishReason, MonotonicClock, Request, RequestId, Schedule,
    TokenOutput, Usage, block_bytes,
};
#[cfg(feature = "cuda-emulator")]
use windlass_kernels::WeightFormat;
#[cfg(feature = "cuda-emulator")]
use windlass_kernels::cuda::{Cuda, Emulator};
use windlass_kernels::{Backend, Cpu, CpuConfig, KvFormat};
#[cfg(feature = "cuda-emulator")]
use windlass_model::split;
use windlass_model::{DepthPolicy, KvPolicy, Local, ModelFolder, Network, Ranks, Ring, Runner, Split};

pub fn goldens_folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/goldens/huginn-tiny"))
}

pub fn config() -> EngineConfig {
    EngineConfig {
        max_lanes: 16,
        max_rows: 64,
        prefill_chunk: 64,
        prefill_positions: 256,
        max_waiting: 64,
        kv_bytes: 64 << 20,
        max_depth: 64,
        schedule: Schedule::Depth,
        coalesce: Coalesce::Off,
        coalesce_limit: 16,
        draft: Draft::Off,
        prefix_cache: false,
        prefill_segment: None,
    }
}

pub fn network<B: Backend>(backend: B, folder: &ModelFolder) -> Network<B> {
    let config = folder.config().unwrap();
    Network::load(backend, &folder.checkpoint().unwrap(), &config, &mut |_| {}).unwrap()
}

/// An engine on the system's clock.
pub fn engine<B: Backend>(network: Network<B>, config: EngineConfig) -> Engine<Local<B>> {
    Engine::new(Local::new(network), config, Box::new(MonotonicClock::start())).unwrap()
}

/// An engine for the tiny random model of the goldens.
pub fn tiny(config: EngineConfig) -> Engine<Local<Cpu>> {
    tiny_on(Cpu::new(1), config)
}

/// The same on a backend.
pub fn tiny_on<B: Backend>(backend: B, config: EngineConfig) -> Engine<Local<B>> {
    let folder = ModelFolder::open(goldens_folder()).unwrap();
    engine(network(backend, &folder), config)
}

/// The same, each launch started before the one before is collected.
pub fn tiny_ahead(config: EngineConfig) -> Engine<Local<Cpu>> {
    let folder = ModelFolder::open(goldens_folder()).unwrap();
    let runner = Local::ahead(network(Cpu::new(1), &folder));
    Engine::new(runner, config, Box::new(MonotonicClock::start())).unwrap()
}

/// The same on a ring of stages of uneven sizes, one for each backend.
pub fn tiny_on_stages<B: Backend>(backends: Vec<B>, config: EngineConfig) -> Engine<Ring> {
    let stages = backends.into_iter().map(|backend| vec![backend]).collect();
    tiny_on_stages_of_ranks(stages, config)
}

/// The same with a backend for each rank of each stage.
pub fn tiny_on_stages_of_ranks<B: Backend>(backends: Vec<Vec<B>>, config: EngineConfig) -> Engine<Ring> {
    Engine::new(ring(backends, goldens_folder()), config, Box::new(MonotonicClock::start())).unwrap()
}

/// A model on a ring of stages, the last of which has all core layers that are more than one for each.
pub fn ring<B: Backend>(backends: Vec<Vec<B>>, folder: &Path) -> Ring {
    let folder = ModelFolder::open(folder).unwrap();
    let config = folder.config().unwrap();
    let (stages, layers) = (backends.len(), config.core_layers);
    let end = |stage: usize| if stage + 1 == stages { layers } else { stage + 1 };
    let split = Split::at(backends, (0..stages).map(|stage| stage..end(stage)).collect(), &config).unwrap();
    Ring::new(split.load(&folder.checkpoint().unwrap(), &config, &mut |_| {}).unwrap())
}

/// Backends for stages of ranks, of one thread each.
pub fn cpu_groups(stages: usize, ranks: usize, cpu: CpuConfig) -> Vec<Vec<Cpu>> {
    (0..stages).map(|_| Cpu::group(cpu, ranks)).collect()
}

/// As many backends of one thread.
pub fn cpus(count: usize) -> Vec<Cpu> {
    (0..count).map(|_| Cpu::new(1)).collect()
}

/// The same on ranks.
pub fn tiny_ranks(ranks: usize, cpu: CpuConfig, config: EngineConfig) -> Engine<Ranks<Cpu>> {
    tiny_group(Cpu::group(cpu, ranks), config)
}

/// The same on a group of backends, by rank.
pub fn tiny_group<B: Backend>(group: Vec<B>, config: EngineConfig) -> Engine<Ranks<B>> {
    let folder = ModelFolder::open(goldens_folder()).unwrap();
    let (checkpoint, model) = (folder.checkpoint().unwrap(), folder.config().unwrap());
    let split = Split::new(vec![group], &model).unwrap();
    let networks = split.load(&checkpoint, &model, &mut |_| {}).unwrap().remove(0);
    Engine::new(Ranks::of_threads(networks), config, Box::new(MonotonicClock::start())).unwrap()
}

/// The same on groups of backends, one for each stage, cut where it costs least on the first.
#[cfg(feature = "cuda-emulator")]
pub fn tiny_split<B: Backend>(groups: Vec<Vec<B>>, config: EngineConfig) -> Engine<Box<dyn Runner>> {
    let folder = ModelFolder::open(goldens_folder()).unwrap();
    let (checkpoint, model) = (folder.checkpoint().unwrap(), folder.config().unwrap());
    let networks = Split::new(groups, &model).unwrap().load(&checkpoint, &model, &mut |_| {}).unwrap();
    Engine::new(split::runner(networks), config, Box::new(MonotonicClock::start())).unwrap()
}

/// GPUs of one group, compiled for this machine.
#[cfg(feature = "cuda-emulator")]
pub fn emulated_group(ranks: usize, weights: WeightFormat) -> Vec<Cuda<Emulator>> {
    let devices = Emulator::group(ranks).into_iter();
    devices.map(|device| Cuda::new(device, weights).unwrap()).collect()
}

/// Limits with memory for this many K/V blocks.
pub fn with_blocks(blocks: usize) -> EngineConfig {
    let model = ModelFolder::open(goldens_folder()).unwrap().config().unwrap();
    EngineConfig { kv_bytes: blocks * block_bytes(&model, KvFormat::F32), ..config() }
}

/// Takes exactly so many tokens at one depth.
pub fn request(prompt: &[u32], max_tokens: usize, depth: u32) -> Request {
    let request = Request::greedy(prompt.to_vec(), max_tokens, DepthPolicy::Fixed(depth), KvPolicy::Full);
    Request { ignore_model_stops: true, report_logits: true, ..request }
}

/// The events of one more tick.
pub fn tick<R: Runner>(engine: &mut Engine<R>) -> Vec<Event> {
    let mut events = Vec::new();
    engine.tick(&mut events);
    events
}

/// All that came of one request.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Answer {
    pub tokens: Vec<TokenOutput>,
    pub end: Option<(FinishReason, Usage)>,
}

pub fn collect(answers: &mut BTreeMap<RequestId, Answer>, events: Vec<Event>) {
    for event in events {
        match event {
            Event::Token(id, token) => answers.entry(id).or_default().tokens.push(token),
            Event::Finished(id, reason, usage) => {
                let end = answers.entry(id).or_default().end.replace((reason, usage));
                assert_eq!(end, None, "{id:?} ended twice");
            }
        }
    }
}

/// A token's every bit, so that NaN equals itself: id and depth, exit values, log-probabilities, logits.
pub fn bits(token: &TokenOutput) -> (u32, u32, Vec<u64>, Vec<u32>, Vec<u32>) {
    let top = token.top_logprobs.iter().flat_map(|(id, logprob)| [*id, logprob.to_bits()]);
    (
        token.token,
        token.depth,
        token.exit_values.iter().map(|value| value.to_bits()).collect(),
        token.logprob.map(f32::to_bits).into_iter().chain(top).collect(),
        token.logits.iter().flatten().map(|logit| logit.to_bits()).collect(),
    )
}

/// Whether two runs are the same, bit for bit.
pub fn same(a: &[TokenOutput], b: &[TokenOutput]) -> bool {
    a.iter().map(bits).eq(b.iter().map(bits))
}

/// Runs one request on an engine that does nothing else.
pub fn alone<R: Runner>(engine: &mut Engine<R>, request: Request) -> Answer {
    engine.submit(RequestId(0), request).unwrap();
    let mut answers = BTreeMap::new();
    while !engine.is_idle() {
        collect(&mut answers, tick(engine));
    }
    answers.remove(&RequestId(0)).unwrap()
}

/// What a request gets alone, in one piece and without a cache: what it must get otherwise too. With logits if it asks for them.
pub fn undisturbed<R: Runner>(engine: &mut Engine<R>, request: &Request) -> Answer {
    let mut answer = alone(engine, Request { report_logits: true, ..request.clone() });
    if !request.report_logits {
        // Then a greedy request takes its tokens from the head without anyone looking at logits.
        answer.tokens.iter_mut().for_each(|token| token.logits = None);
    }
    answer
}

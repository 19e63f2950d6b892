//! Whole answers of the demo model: what a request gets alone, and among others.

use anyhow::{Context, Result, ensure};
use windlass_engine::{
    Draft, Engine, EngineConfig, Event, MonotonicClock, Request, RequestId, Sampling, TokenOutput,
    block_bytes,
};
use windlass_kernels::Backend;
use windlass_kernels::selftest::Check;
use windlass_model::{AdaptiveDepth, Criterion, Depth, DepthPolicy, KvPolicy, Runner, Split};

use crate::config::model_folder;
use crate::split;
use crate::text_files::tokenizer;

const PROMPTS: [&str; 4] = ["7+5-3*2", "yz cd ab xy de bc;axc=", "7+5a4+8bc=", "1+1"];
const REQUESTS: usize = 12;
const TOKENS: usize = 6;
const MAX_DEPTH: Depth = 16;

/// How many of the requests get another answer among the others, with guesses of tokens, than alone: other tokens, depths or values of exits.
pub(super) fn check<B: Backend>(backend: B) -> Result<Check> {
    let folder = model_folder("demo")?;
    let config = folder.config()?;
    let tokenizer = tokenizer(&folder)?.context("the demo model has a tokenizer")?;
    let prompts = PROMPTS.iter().map(|prompt| tokenizer.encode(prompt, true));
    let requests = requests(&prompts.collect::<Result<Vec<_>, _>>()?);
    let blocks: usize = requests.iter().map(Request::kv_blocks).sum();
    let prompts = requests.iter().map(|request| request.prompt.len()).sum();
    let limits = EngineConfig {
        max_lanes: REQUESTS,
        // More than a product of any shape has at least, and prompts in pieces.
        max_rows: 160,
        prefill_chunk: 16,
        prefill_positions: prompts,
        max_waiting: REQUESTS,
        kv_bytes: 2 * blocks * block_bytes(&config, backend.arithmetic().kv()),
        draft: Draft::Off,
        prefix_cache: false,
        ..EngineConfig::new(&config, MAX_DEPTH)
    };
    let runner = split::load(Split::new(vec![vec![backend]], &config)?, &folder, &config)?;
    let mut engine = Engine::new(runner, limits.clone(), Box::new(MonotonicClock::start()))?;
    let mut alone = Vec::new();
    for request in &requests {
        alone.extend(answers(&mut engine, std::slice::from_ref(request))?);
    }
    ensure!(alone.iter().all(|answer| answer.len() == TOKENS), "an answer is short: {alone:?}");
    let mut engine = engine.reconfigure(EngineConfig { draft: Draft::Every(1), ..limits })?;
    let together = answers(&mut engine, &requests)?;
    let load = engine.load();
    ensure!(load.drafts_kept_total > 0, "no guess of a token came true, of {}", load.drafts_total);
    let differing = alone.iter().zip(&together).filter(|(alone, together)| alone != together).count();
    Ok(Check { operation: "answers alone and together", error: differing as f32, tolerance: 0.0 })
}

/// Of all kinds: depths that are fixed or depend on latents or logits, tokens that are drawn or the most likely ones, and slots that
/// are kept or used again.
fn requests(prompts: &[Vec<u32>]) -> Vec<Request> {
    let adaptive = |criterion, threshold| {
        DepthPolicy::Adaptive(AdaptiveDepth { criterion, threshold, min: 1, max: MAX_DEPTH, every: 1 })
    };
    let depths = [
        adaptive(Criterion::LatentDiff, 0.03),
        DepthPolicy::Fixed(5),
        adaptive(Criterion::Kl, 1e-3),
        adaptive(Criterion::LatentDiff, 0.1),
        DepthPolicy::Fixed(11),
    ];
    let request = |index: usize| {
        let kv = [KvPolicy::Full, KvPolicy::Ring(1), KvPolicy::Anchor(3)][index % 3];
        let drawn = Sampling { temperature: 1.0, top_p: 0.9, seed: index as u64, ..Sampling::default() };
        Request {
            sampling: if index.is_multiple_of(2) { Sampling::default() } else { drawn },
            ignore_model_stops: true,
            ..Request::greedy(
                prompts[index % prompts.len()].clone(),
                TOKENS,
                depths[index % depths.len()],
                kv,
            )
        }
    };
    (0..REQUESTS).map(request).collect()
}

/// What each of these gets when all are there at once.
fn answers<R: Runner>(engine: &mut Engine<R>, requests: &[Request]) -> Result<Vec<Vec<TokenOutput>>> {
    for (id, request) in (0..).map(RequestId).zip(requests) {
        engine.submit(id, request.clone())?;
    }
    let mut answers = vec![Vec::new(); requests.len()];
    let mut events = Vec::new();
    while !engine.is_idle() {
        engine.tick(&mut events);
        for event in events.drain(..) {
            if let Event::Token(RequestId(id), token) = event {
                answers[id as usize].push(token);
            }
        }
    }
    Ok(answers)
}

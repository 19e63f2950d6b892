//! What the demo model gets right of a fixed sample of puzzles, against the committed table.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;

use serde::Deserialize;
use windlass_coordinator::text::Tokenizer;
use windlass_engine::{Engine, EngineConfig, Event, MonotonicClock, Request, RequestId};
use windlass_kernels::Cpu;
use windlass_model::{Depth, DepthPolicy, KvPolicy, Local, ModelFolder, Network};

/// Written by `make evidence`.
const SAMPLE: &str = include_str!("../../../docs/evidence/sample.json");

/// Puzzles of one task and size.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Cell {
    task: String,
    size: u32,
    /// Prompt and answer.
    puzzles: Vec<(String, String)>,
    /// How many whole answers are right, by depth.
    right: BTreeMap<Depth, usize>,
}

fn engine() -> Engine<Local<Cpu>> {
    let folder = ModelFolder::demo();
    let config = folder.config().unwrap();
    let network = Network::load(Cpu::new(1), &folder.checkpoint().unwrap(), &config, &mut |_| {}).unwrap();
    let limits = EngineConfig { kv_bytes: 256 << 20, ..EngineConfig::new(&config, 32) };
    Engine::new(Local::new(network), limits, Box::new(MonotonicClock::start())).unwrap()
}

/// The text of each answer, in the puzzles' order.
fn answers(engine: &mut Engine<Local<Cpu>>, tokenizer: &Tokenizer, cell: &Cell, depth: Depth) -> Vec<String> {
    for (index, (prompt, answer)) in cell.puzzles.iter().enumerate() {
        let prompt = tokenizer.encode(prompt, true).unwrap();
        let max_tokens = answer.len() + 1;
        let request = Request::greedy(prompt, max_tokens, DepthPolicy::Fixed(depth), KvPolicy::Full);
        engine.submit(RequestId(index as u64), request).unwrap();
    }
    let (mut texts, mut events) = (BTreeMap::<RequestId, String>::new(), Vec::new());
    while !engine.is_idle() {
        engine.tick(&mut events);
        for event in events.drain(..) {
            if let Event::Token(id, token) = event
                && !token.is_stop
            {
                texts.entry(id).or_default().push_str(&tokenizer.token_text(token.token));
            }
        }
    }
    (0..cell.puzzles.len() as u64).map(|index| texts.remove(&RequestId(index)).unwrap_or_default()).collect()
}

#[test]
fn the_demo_model_gets_right_what_the_table_says() {
    let cells: Vec<Cell> = serde_json::from_str(SAMPLE).unwrap();
    let file = |name| ModelFolder::demo().text_file(name).unwrap().unwrap();
    let tokenizer = Tokenizer::new(&file("tokenizer.json"), &file("tokenizer_config.json")).unwrap();
    let mut engine = engine();
    assert!(!cells.is_empty());
    for cell in &cells {
        let right = cell.right.keys().map(|&depth| {
            let answers = answers(&mut engine, &tokenizer, cell, depth);
            let pairs = answers.iter().zip(&cell.puzzles);
            (depth, pairs.filter(|(answer, (_, right))| *answer == right).count())
        });
        assert_eq!(right.collect::<BTreeMap<_, _>>(), cell.right, "{} of size {}", cell.task, cell.size);
    }
}

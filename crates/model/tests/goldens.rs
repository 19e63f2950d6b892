//! The oracle against recorded runs of the reference implementation.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use windlass_model::goldens::{GoldenCase, Goldens, LOGITS_TOLERANCE, close};
use windlass_model::{DepthPolicy, KvPolicy, Oracle};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/goldens/huginn-tiny");

fn load() -> (Goldens, Oracle, usize) {
    let goldens = Goldens::open(Path::new(FOLDER));
    let config = goldens.model.config().unwrap();
    let oracle = Oracle::load(&goldens.model.checkpoint().unwrap(), &config).unwrap();
    (goldens, oracle, config.hidden)
}

fn is_adaptive(case: &GoldenCase) -> bool {
    matches!(case.depth, DepthPolicy::Adaptive(_))
}

/// Runs all positions together from `start`, holding every state and the logits at the recorded depths against
/// the goldens.
fn check_forward(name: &str, start: impl Fn(&Goldens) -> Option<Vec<f32>>) {
    let (goldens, oracle, hidden) = load();
    let ids = goldens.ids("forward.input_ids");
    let positions: Vec<usize> = (0..ids.len()).collect();
    let mut cache = oracle.cache(KvPolicy::Full);
    let embeddings = oracle.prelude(&mut cache, &ids, &positions);
    close(&embeddings, &goldens.tensor("forward.prelude_out"), LOGITS_TOLERANCE).unwrap();

    let row = ids.len() * hidden;
    let states = goldens.tensor(&format!("forward.{name}.states"));
    let mut state = start(&goldens).unwrap_or_else(|| vec![0.0; row]);
    for depth in 0..16 {
        state = oracle.iterate(&mut cache, &state, &embeddings, &positions, depth);
        if let Some(expected) = states.get(depth as usize * row..(depth as usize + 1) * row) {
            close(&state, expected, LOGITS_TOLERANCE)
                .unwrap_or_else(|error| panic!("state {depth}: {error}"));
        }
        if [1, 2, 4, 8, 16].contains(&(depth + 1)) {
            let logits = oracle.coda_logits(&mut cache, &state, &positions);
            let expected = goldens.tensor(&format!("forward.{name}.logits.r{}", depth + 1));
            close(&logits, &expected, LOGITS_TOLERANCE)
                .unwrap_or_else(|error| panic!("r {}: {error}", depth + 1));
        }
    }
}

#[test]
fn states_and_logits_match_from_the_zero_state() {
    check_forward("zero", |_| None);
}

#[test]
fn states_and_logits_match_from_a_drawn_state() {
    check_forward("s0", |goldens| Some(goldens.tensor("forward.s0")));
}

#[test]
fn generated_logits_match_under_every_kv_policy() {
    let (goldens, oracle, hidden) = load();
    for case in goldens.cases.iter().filter(|case| !is_adaptive(case)) {
        let produced = oracle.generate(&case.request(true), &|_| vec![0.0; hidden]);
        goldens.check_logits(case, &produced).unwrap();
    }
}

#[test]
fn free_running_tokens_match_under_every_kv_policy() {
    let (goldens, oracle, hidden) = load();
    for case in goldens.cases.iter().filter(|case| !is_adaptive(case)) {
        let produced = oracle.generate(&case.request(false), &|_| vec![0.0; hidden]);
        assert_eq!(case.compare(&produced), Ok(case.tokens.len()), "no recorded lead is narrow");
    }
}

#[test]
fn exits_match_under_every_criterion() {
    let (goldens, oracle, hidden) = load();
    let (mut agreed, mut recorded) = (0, 0);
    for case in goldens.cases.iter().filter(|case| is_adaptive(case)) {
        let mut compared =
            case.compare(&oracle.generate(&case.request(false), &|_| vec![0.0; hidden])).unwrap();
        if compared < case.tokens.len() {
            compared = case.compare(&oracle.generate(&case.request(true), &|_| vec![0.0; hidden])).unwrap();
        }
        agreed += compared;
        recorded += case.tokens.len();
    }
    println!("{agreed} of {recorded} adaptive tokens agreed");
    assert!(agreed * 100 >= recorded * 95, "only {agreed} of {recorded} tokens could be compared");
}

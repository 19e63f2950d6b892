//! What it takes to draw a token, on one thread: `cargo bench -p windlass-kernels --bench draws`.

#![allow(clippy::print_stdout, reason = "a benchmark prints")]

use std::time::{Duration, Instant};

use windlass_kernels::{Draw, DrawScratch, draw};

/// Tokens of Huginn's vocabulary.
const OUTPUTS: usize = 65_536;
const REPEATS: u64 = 101;

/// Sums of twelve numbers of a small generator: close to a normal distribution, of a deviation of 2.5.
fn logits() -> Vec<f32> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32
    };
    (0..OUTPUTS).map(|_| ((0..12).map(|_| next()).sum::<f32>() - 6.0) * 2.5).collect()
}

fn main() {
    let logits = logits();
    let plain = Draw::default();
    let ways = [
        ("temperature alone", plain),
        ("top-p 0.95", Draw { top_p: 0.95, ..plain }),
        ("top-k 50", Draw { top_k: 50, ..plain }),
        ("min-p 0.05", Draw { min_p: 0.05, ..plain }),
    ];
    let (mut row, mut scratch) = (logits.clone(), DrawScratch::default());
    for (name, way) in ways {
        let mut times: Vec<Duration> = (0..REPEATS)
            .map(|repeat| {
                row.copy_from_slice(&logits);
                let start = Instant::now();
                let at = u64::MAX / REPEATS * repeat;
                std::hint::black_box(draw(&mut row, &Draw { at, ..way }, &[], &mut scratch));
                start.elapsed()
            })
            .collect();
        times.sort_unstable();
        println!("{name}: {} µs", times[times.len() / 2].as_micros());
    }
}

//! `cargo bench -p windlass-kernels --bench products [-- --threads 1,2 --formats f32,bf16 --sizes 1024x1024 --rows 1,64]`.
#![allow(clippy::unwrap_used, reason = "a benchmark that fails panics")]

mod ceilings;

use std::time::Instant;

use ceilings::Ceilings;
use windlass_kernels::{Backend, Cpu, CpuConfig, Rows, Weight, WeightFormat};

const ROWS: [usize; 7] = [1, 2, 4, 8, 16, 64, 256];
/// `[outputs, inputs]`.
const SIZES: [[usize; 2]; 7] =
    [[1024, 1024], [3072, 1024], [5632, 1024], [1024, 2816], [8192, 1024], [17920, 5280], [5280, 17920]];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let option = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        Some(arguments[at + 1].split(',').map(str::to_owned).collect::<Vec<_>>())
    };
    let threads = option("--threads").unwrap_or_else(|| vec!["1".into(), "2".into()]);
    let formats = option("--formats").unwrap_or_else(|| vec!["f32".into(), "bf16".into(), "int8".into()]);
    let wanted = option("--sizes");
    let rows: Vec<usize> = match option("--rows") {
        Some(rows) => rows.iter().map(|rows| rows.parse().unwrap()).collect(),
        None => ROWS.to_vec(),
    };
    for threads in &threads {
        let ceilings = Ceilings::measure(threads.parse().unwrap());
        for format in &formats {
            let weights: WeightFormat = format.parse().unwrap();
            let ceiling = match weights {
                WeightFormat::F32 => ceilings.f32,
                WeightFormat::Bf16 => ceilings.bf16_tiles.or(ceilings.bf16_dot),
                WeightFormat::Int8 => ceilings.bf16_tiles.map(|tiles| 2.0 * tiles).or(ceilings.int8_dot),
            };
            let cpu = Cpu::with(CpuConfig { weights, ..CpuConfig::new(threads.parse().unwrap()) });
            for [outputs, inputs] in SIZES {
                let size = format!("{outputs}x{inputs}");
                if wanted.as_ref().is_some_and(|wanted| !wanted.contains(&size)) {
                    continue;
                }
                let bytes = match weights {
                    WeightFormat::F32 => 4,
                    WeightFormat::Bf16 => 2,
                    WeightFormat::Int8 => 1,
                };
                let values: Vec<f32> = (0..outputs * inputs).map(|i| (i % 37) as f32 * 0.01 - 0.2).collect();
                let weight = cpu.matrix(&Weight::of(&values, inputs));
                for &rows in &rows {
                    let mut x = cpu.buffer(rows, inputs);
                    let values: Vec<f32> = (0..rows * inputs).map(|i| (i % 31) as f32 * 0.01 - 0.2).collect();
                    cpu.upload(&values, &mut x, Rows::First(rows));
                    let mut out = cpu.buffer(rows, outputs);
                    let seconds = median(|| cpu.matmul(&x, rows, &weight, &mut out));
                    let work = (outputs * inputs) as f64;
                    let rate = 2e-9 * work * rows as f64 / seconds;
                    let share = ceiling.map_or(0.0, |ceiling| rate / ceiling);
                    println!(
                        "{format} {size} M={rows} T={threads} us={:.1} GF={rate:.1} share={share:.3} GB={:.1}",
                        seconds * 1e6,
                        1e-9 * work * f64::from(bytes) / seconds
                    );
                }
            }
        }
    }
}

fn median(mut run: impl FnMut()) -> f64 {
    run();
    run();
    let (mut times, mut total) = (Vec::new(), 0.0);
    while times.len() < 5 || (total < 0.1 && times.len() < 2000) {
        let start = Instant::now();
        run();
        times.push(start.elapsed().as_secs_f64());
        total += times.last().unwrap();
    }
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

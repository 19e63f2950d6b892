//! Every arithmetic on every instruction set against one plain loop, bit for bit.

use super::narrow::{Plain, Round, int8_scale, inverse, to_bf16, to_int8};
use crate::backend::{Backend, Rows};
use crate::cpu::{Arithmetic, Cpu, CpuConfig, Isa, WeightFormat};
use crate::weight::Weight;

/// Values in −1..1, some of them zero, tiny or large.
fn values(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let value = ((state >> 40) as f32) / (1 << 23) as f32 - 1.0;
        match state >> 33 & 63 {
            0 => 0.0,
            1 => value * 1e-20,
            2 => value * 1e-39,
            3 => value * 1e3,
            _ => value,
        }
    };
    (0..len).map(|_| next()).collect()
}

fn bf16(value: f32) -> f32 {
    f32::from_bits(u32::from(to_bf16(value)) << 16)
}

fn flush(value: f32) -> f32 {
    if value.abs() < f32::MIN_POSITIVE { 0.0_f32.copysign(value) } else { value }
}

fn multiply_add(a: f32, b: f32, sum: f32) -> f32 {
    flush(a.mul_add(b, sum))
}

/// One output of one row.
fn plain(arithmetic: Arithmetic, x: &[f32], weight: &[f32]) -> f32 {
    let rounded = |values: &[f32]| values.iter().map(|&value| bf16(value)).chain([0.0]).collect::<Vec<_>>();
    match arithmetic {
        Arithmetic::F32 => x.iter().zip(weight).fold(0.0, |sum, (x, weight)| x.mul_add(*weight, sum)),
        Arithmetic::Bf16Dot => {
            let (x, weight) = (rounded(x), rounded(weight));
            x.chunks_exact(2).zip(weight.chunks_exact(2)).fold(0.0, |sum, (x, weight)| {
                multiply_add(x[0], weight[0], multiply_add(x[1], weight[1], sum))
            })
        }
        Arithmetic::Bf16Amx => {
            let (x, weight) = (rounded(x), rounded(weight));
            x.chunks(32).zip(weight.chunks(32)).fold(0.0, |sum, (x, weight)| {
                let chain = |from: usize| {
                    let terms = x.iter().zip(weight).skip(from).step_by(2);
                    terms.fold(0.0, |sum, (x, weight)| multiply_add(*x, *weight, sum))
                };
                flush(sum + flush(chain(0) + chain(1)))
            })
        }
        Arithmetic::CudaF32 | Arithmetic::CudaBf16 => unreachable!("a processor has neither"),
        Arithmetic::Int8 => {
            let scale = |values: &[f32]| int8_scale(Plain.largest_magnitude(values));
            let round = |value: f32, scale: f32| i32::from(to_int8(value, inverse(scale)) as i8);
            let (row_scale, output_scale) = (scale(x), scale(weight));
            let terms =
                x.iter().zip(weight).map(|(x, weight)| round(*x, row_scale) * round(*weight, output_scale));
            terms.sum::<i32>() as f32 * row_scale * output_scale
        }
    }
}

fn cpus(format: WeightFormat) -> Vec<Cpu> {
    let isas = Isa::ALL.into_iter().filter(|isa| isa.is_available());
    let cpu = |(threads, isa)| Cpu::with(CpuConfig { threads, isa, weights: format });
    isas.flat_map(|isa| [(1, isa), (2, isa), (3, isa)]).map(cpu).collect()
}

fn product(cpu: &Cpu, x: &[f32], weight: &[f32], inputs: usize) -> Vec<f32> {
    let (rows, outputs) = (x.len() / inputs, weight.len() / inputs);
    let weight = cpu.matrix(&Weight::of(weight, inputs));
    let mut buffer = cpu.buffer(rows, inputs);
    cpu.upload(x, &mut buffer, Rows::First(rows));
    let mut out = cpu.buffer(rows, outputs);
    cpu.matmul(&buffer, rows, &weight, &mut out);
    let mut values = Vec::new();
    cpu.download(&out, rows, &mut values);
    values
}

/// Compared as bits, so that −0 and NaN count.
fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn products_match(format: WeightFormat) {
    // With one input some sums are denormal.
    let sizes = [
        (1, 1, 1),
        (150, 300, 1),
        (1, 33, 17),
        (2, 16, 80),
        (3, 240, 81),
        (7, 5, 64),
        (17, 130, 96),
        (21, 66, 600),
    ];
    // The last is shared among threads for the size of its weights, however narrow.
    let larger = [(70, 64, 130), (270, 20, 34), (40, 3, 2100), (1, 1100, 500)];
    for (rows, outputs, inputs) in sizes.into_iter().chain(larger) {
        let (x, weight) = (values(rows * inputs, 1), values(outputs * inputs, 2));
        for cpu in cpus(format) {
            let arithmetic = cpu.arithmetic();
            let each = x
                .chunks_exact(inputs)
                .flat_map(|x| weight.chunks_exact(inputs).map(move |weight| plain(arithmetic, x, weight)));
            let twin: Vec<f32> = each.collect();
            let name = format!("{arithmetic} on {}, {rows} rows, [{outputs}, {inputs}]", cpu.isa);
            assert_eq!(bits(&product(&cpu, &x, &weight, inputs)), bits(&twin), "{name}");
        }
    }
}

#[test]
fn f32_products_match_the_plain_loop() {
    products_match(WeightFormat::F32);
}

#[test]
fn bf16_products_match_the_plain_loop() {
    products_match(WeightFormat::Bf16);
}

#[test]
fn int8_products_match_the_plain_loop() {
    products_match(WeightFormat::Int8);
}

#[test]
fn a_row_has_the_same_bits_in_every_batch() {
    let (outputs, inputs, rows) = (100, 611, 64);
    for format in [WeightFormat::F32, WeightFormat::Bf16, WeightFormat::Int8] {
        for cpu in cpus(format) {
            let (x, weight) = (values(rows * inputs, 3), values(outputs * inputs, 4));
            let alone: Vec<f32> = x.chunks(inputs).flat_map(|x| product(&cpu, x, &weight, inputs)).collect();
            for batch in 2..=rows {
                let rows = x.chunks(batch * inputs);
                let batched: Vec<f32> = rows.flat_map(|x| product(&cpu, x, &weight, inputs)).collect();
                assert_eq!(
                    bits(&alone),
                    bits(&batched),
                    "{} on {}, batches of {batch}",
                    cpu.arithmetic(),
                    cpu.isa
                );
            }
        }
    }
}

//! Products of narrow numbers: sums of dot products of groups, in order.
//!
//! Each arithmetic has a [`Dot`] on the machine's own instructions and one in plain Rust that gives the same bits.

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "intrinsics of instruction sets that the types prove")]
mod x86;

use super::geometry::Sums;
use super::prepared::Prepared;
use super::strips::{self, Dot, Task};
use crate::cpu::isa::Isa;

/// Which numbers are multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cpu) enum Narrow {
    /// Pairs of bf16.
    Bf16,
    /// Fours of int8.
    Int8,
}

/// See [`strips::multiply`]; for int8 in i32 and before its scales.
pub(super) fn multiply((isa, narrow): (Isa, Narrow), task: Task<'_, Prepared>, sums: &mut [Sums]) {
    match narrow {
        Narrow::Bf16 => bf16(isa, task, sums),
        Narrow::Int8 => int8(isa, task, sums),
    }
}

/// Whether inputs of int8 must be stored with 128 added: the dot product of vectors takes its left side unsigned. What
/// that adds to the sums is known from the weights, and taken off in the end.
pub(in crate::cpu) fn biased(isa: Isa) -> bool {
    !isa.has_tiles()
}

/// Compiles the loop for each instruction set: with its own dot products, and with those in plain Rust.
macro_rules! by_dot {
    ($name:ident, $whole:ident, $halves:ident, $plain:expr) => {
        #[cfg_attr(
            target_arch = "x86_64",
            expect(unsafe_code, reason = "calls functions of detected features")
        )]
        fn $name(isa: Isa, task: Task<'_, Prepared>, sums: &mut [Sums]) {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512bf16,avx512vnni,fma")]
                fn own(task: Task<'_, Prepared>, sums: &mut [Sums]) {
                    // SAFETY: this function has the features.
                    let dot = unsafe { x86::$whole::assume() };
                    strips::multiply(dot, task, sums);
                }
                #[target_feature(enable = "avx512f,fma")]
                fn avx512(task: Task<'_, Prepared>, sums: &mut [Sums]) {
                    strips::multiply($plain, task, sums);
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2(task: Task<'_, Prepared>, sums: &mut [Sums]) {
                    // SAFETY: this function has the features.
                    let dot = unsafe { x86::$halves::assume() };
                    strips::multiply(dot, task, sums);
                }
                match isa {
                    // SAFETY: `Cpu` only holds an `Isa` that was detected on this machine.
                    Isa::Amx | Isa::Avx512Dot => return unsafe { own(task, sums) },
                    // SAFETY: as above.
                    Isa::Avx512 => return unsafe { avx512(task, sums) },
                    // SAFETY: as above.
                    Isa::Avx2 => return unsafe { avx2(task, sums) },
                    Isa::Portable => {}
                }
            }
            strips::multiply($plain, task, sums);
        }
    };
}
by_dot!(bf16, Bf16Vectors, Bf16Halves, Bf16Plain);
by_dot!(int8, Int8Vectors, Int8Halves, Int8Plain);

/// The dot product of bf16 pairs as the machine's instruction computes it: f32 multiply-adds, the odd one first,
/// denormals taken as and turned into zeros.
#[derive(Clone, Copy)]
struct Bf16Plain;

#[inline(always)]
fn odd(pair: u32) -> f32 {
    f32::from_bits(pair & 0xffff_0000)
}

#[inline(always)]
fn even(pair: u32) -> f32 {
    f32::from_bits(pair << 16)
}

/// Zero for a denormal.
#[inline(always)]
fn flush(value: f32) -> f32 {
    if value.abs() < f32::MIN_POSITIVE { 0.0_f32.copysign(value) } else { value }
}

impl Dot for Bf16Plain {
    type Group = u32;
    type Sums = [f32; 16];
    const TILE: usize = 4;

    #[inline(always)]
    fn zero(self) -> [f32; 16] {
        [0.0; 16]
    }

    #[inline(always)]
    fn load(self, from: &[f32; 16]) -> [f32; 16] {
        *from
    }

    #[inline(always)]
    fn store(self, sums: [f32; 16], to: &mut [f32; 16]) {
        *to = sums;
    }

    #[inline(always)]
    fn add(self, mut sums: [f32; 16], input: u32, weights: &[u32; 16]) -> [f32; 16] {
        for i in 0..sums.len() {
            sums[i] = flush(odd(input).mul_add(odd(weights[i]), sums[i]));
            sums[i] = flush(even(input).mul_add(even(weights[i]), sums[i]));
        }
        sums
    }
}

/// The dot product of int8 fours, the left one with 128 added.
#[derive(Clone, Copy)]
struct Int8Plain;

impl Dot for Int8Plain {
    type Group = u32;
    type Sums = [i32; 16];
    const TILE: usize = 4;

    #[inline(always)]
    fn zero(self) -> [i32; 16] {
        [0; 16]
    }

    #[inline(always)]
    fn load(self, from: &[f32; 16]) -> [i32; 16] {
        let mut sums = [0; 16];
        for (sum, from) in sums.iter_mut().zip(from) {
            *sum = from.to_bits() as i32;
        }
        sums
    }

    #[inline(always)]
    fn store(self, sums: [i32; 16], to: &mut [f32; 16]) {
        for (to, sum) in to.iter_mut().zip(sums) {
            *to = f32::from_bits(sum as u32);
        }
    }

    #[inline(always)]
    fn add(self, mut sums: [i32; 16], input: u32, weights: &[u32; 16]) -> [i32; 16] {
        for byte in [0, 8, 16, 24] {
            let input = (input >> byte & 0xff) as i32;
            for i in 0..sums.len() {
                let weight = i32::from((weights[i] >> byte) as i8);
                sums[i] = sums[i].wrapping_add(input * weight);
            }
        }
        sums
    }
}

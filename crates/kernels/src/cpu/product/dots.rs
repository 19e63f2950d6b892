//! Products of narrow numbers: sums of dot products of groups, in order.
//!
//! A [`Dot`] adds the products of one group of inputs with the groups of sixteen outputs to sixteen sums. Each
//! arithmetic has one on the machine's own instructions and one in plain Rust that gives the same bits.

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "intrinsics of instruction sets that the types prove")]
mod x86;

use super::geometry::{BLOCK_ROWS, Block, GROUPS, Line, Lines, Sums, VECTORS};
use crate::cpu::isa::Isa;

/// Rows of a tile at most, with 32 registers.
const WIDE_ROWS: usize = 6;
/// Rows of a tile at most, with 16 registers of half the size.
const NARROW_ROWS: usize = 4;

/// Sixteen sums, and how a group is added to them.
trait Dot: Copy {
    type Sums: Copy;
    /// Whether there are registers for [`WIDE_ROWS`] rows by a panel, not only for [`NARROW_ROWS`] by sixteen outputs.
    const WIDE: bool;

    fn zero(self) -> Self::Sums;
    fn load(self, from: &[f32; 16]) -> Self::Sums;
    fn store(self, sums: Self::Sums, to: &mut [f32; 16]);
    fn dot(self, sums: Self::Sums, input: u32, weights: &[u32; 16]) -> Self::Sums;
}

/// Which numbers are multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cpu) enum Narrow {
    /// Pairs of bf16.
    Bf16,
    /// Fours of int8.
    Int8,
}

/// Adds the products of `rows` (at most [`BLOCK_ROWS`]) rows of `inputs` with `weights`, block by block, to `sums`, or
/// replaces them. Inputs of int8 stand as they are where `isa` has tiles; where not, see [`biased`].
pub(in crate::cpu) fn multiply(
    isa: Isa,
    narrow: Narrow,
    inputs: Lines<'_>,
    weights: &[Block],
    sums: &mut [Sums],
    resume: bool,
) {
    assert_eq!(inputs.blocks(), weights.len(), "as many blocks of inputs as of weights");
    assert!(sums.len() <= BLOCK_ROWS, "rows of one block");
    match narrow {
        Narrow::Bf16 => bf16(isa, inputs, weights, sums, resume),
        Narrow::Int8 => int8(isa, inputs, weights, sums, resume),
    }
}

/// Whether inputs of int8 must be stored with 128 added: the dot product of vectors takes its left side unsigned. What
/// that adds to the sums is known from the weights, and taken off in the end.
pub(in crate::cpu) fn biased(isa: Isa) -> bool {
    isa != Isa::Amx
}

/// Compiles the loop for each instruction set: with its own dot products, and with those in plain Rust.
macro_rules! by_dot {
    ($name:ident, $whole:ident, $halves:ident, $plain:expr) => {
        #[cfg_attr(
            target_arch = "x86_64",
            expect(unsafe_code, reason = "calls functions of detected features")
        )]
        fn $name(isa: Isa, inputs: Lines<'_>, weights: &[Block], sums: &mut [Sums], resume: bool) {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512bf16,avx512vnni,fma")]
                fn own(inputs: Lines<'_>, weights: &[Block], sums: &mut [Sums], resume: bool) {
                    // SAFETY: this function has the features.
                    let dot = unsafe { x86::$whole::assume() };
                    strips(dot, inputs, weights, sums, resume);
                }
                #[target_feature(enable = "avx512f,fma")]
                fn avx512(inputs: Lines<'_>, weights: &[Block], sums: &mut [Sums], resume: bool) {
                    strips($plain, inputs, weights, sums, resume);
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2(inputs: Lines<'_>, weights: &[Block], sums: &mut [Sums], resume: bool) {
                    // SAFETY: this function has the features.
                    let dot = unsafe { x86::$halves::assume() };
                    strips(dot, inputs, weights, sums, resume);
                }
                match isa {
                    // SAFETY: `Cpu` only holds an `Isa` that was detected on this machine.
                    Isa::Amx | Isa::Avx512Dot => return unsafe { own(inputs, weights, sums, resume) },
                    // SAFETY: as above.
                    Isa::Avx512 => return unsafe { avx512(inputs, weights, sums, resume) },
                    // SAFETY: as above.
                    Isa::Avx2 => return unsafe { avx2(inputs, weights, sums, resume) },
                    Isa::Portable => {}
                }
            }
            strips($plain, inputs, weights, sums, resume);
        }
    };
}
by_dot!(bf16, Bf16Vectors, Bf16Halves, Bf16Plain);
by_dot!(int8, Int8Vectors, Int8Halves, Int8Plain);

#[inline(always)]
fn strips<D: Dot>(dot: D, inputs: Lines<'_>, weights: &[Block], sums: &mut [Sums], resume: bool) {
    let strips = sums.len().div_ceil(if D::WIDE { WIDE_ROWS } else { NARROW_ROWS });
    let mut row = 0;
    for strip in 0..strips {
        let count = (sums.len() - row).div_ceil(strips - strip);
        let own = &mut sums[row..row + count];
        match count {
            1 => panel::<D, 1>(dot, inputs, weights, row, own, resume),
            2 => panel::<D, 2>(dot, inputs, weights, row, own, resume),
            3 => panel::<D, 3>(dot, inputs, weights, row, own, resume),
            4 => panel::<D, 4>(dot, inputs, weights, row, own, resume),
            5 => panel::<D, 5>(dot, inputs, weights, row, own, resume),
            _ => panel::<D, 6>(dot, inputs, weights, row, own, resume),
        }
        row += count;
    }
}

/// `R` rows by a panel, in tiles that fit the registers.
#[inline(always)]
fn panel<D: Dot, const R: usize>(
    dot: D,
    inputs: Lines<'_>,
    weights: &[Block],
    row: usize,
    sums: &mut [Sums],
    resume: bool,
) {
    let sums: &mut [Sums; R] = sums.try_into().expect("as many sums as rows");
    // Loops, no iterators' closures: instructions of an ISA are inlined only into what is compiled for it.
    if D::WIDE {
        tile::<D, R, VECTORS>(dot, inputs, weights, row, 0, sums, resume);
    } else {
        for vector in 0..VECTORS {
            tile::<D, R, 1>(dot, inputs, weights, row, vector, sums, resume);
        }
    }
}

/// `R` rows by `V` times sixteen outputs of the panel, from `vector` on.
#[expect(clippy::needless_range_loop, reason = "one index for several arrays of known length")]
#[inline(always)]
fn tile<D: Dot, const R: usize, const V: usize>(
    dot: D,
    inputs: Lines<'_>,
    weights: &[Block],
    row: usize,
    vector: usize,
    sums: &mut [Sums; R],
    resume: bool,
) {
    let mut tile = [[dot.zero(); V]; R];
    if resume {
        for (tile, sums) in tile.iter_mut().zip(sums.iter_mut()) {
            for (v, sum) in tile.iter_mut().enumerate() {
                *sum = dot.load(&sums.vectors()[vector + v]);
            }
        }
    }
    for (i, weights) in weights.iter().enumerate() {
        let input: &[Line; R] = inputs.block(i)[row..row + R].try_into().expect("rows of a block");
        for group in 0..GROUPS {
            for r in 0..R {
                for v in 0..V {
                    let weights = &weights.0[vector + v][group];
                    tile[r][v] = dot.dot(tile[r][v], input[r].0[group], weights);
                }
            }
        }
    }
    for (tile, sums) in tile.iter().zip(sums) {
        for (v, &sum) in tile.iter().enumerate() {
            dot.store(sum, &mut sums.vectors()[vector + v]);
        }
    }
}

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
    type Sums = [f32; 16];
    const WIDE: bool = false;

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
    fn dot(self, mut sums: [f32; 16], input: u32, weights: &[u32; 16]) -> [f32; 16] {
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
    type Sums = [i32; 16];
    const WIDE: bool = false;

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
    fn dot(self, mut sums: [i32; 16], input: u32, weights: &[u32; 16]) -> [i32; 16] {
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

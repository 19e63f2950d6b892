//! Products of narrow numbers: sums of dot products of groups, in order.
//!
//! A [`Dot`] adds the products of one group of inputs with the groups of sixteen outputs to sixteen sums. Each
//! arithmetic has one on the machine's own instructions and one in plain Rust that gives the same bits.

use super::geometry::{BLOCK_ROWS, Block, GROUPS, Line, Lines, Sums, VECTORS};
use crate::cpu::isa::Isa;

/// Rows of a tile at most.
const ROWS: usize = 6;

/// Sixteen sums, and how a group is added to them.
trait Dot: Copy {
    type Sums: Copy;
    /// Whether there are registers for [`ROWS`] rows by a panel.
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
    ($name:ident, $proof:ident, $plain:expr) => {
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
                    let dot = unsafe { x86::$proof::assume() };
                    strips(dot, inputs, weights, sums, resume);
                }
                #[target_feature(enable = "avx512f,fma")]
                fn avx512(inputs: Lines<'_>, weights: &[Block], sums: &mut [Sums], resume: bool) {
                    strips($plain, inputs, weights, sums, resume);
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2(inputs: Lines<'_>, weights: &[Block], sums: &mut [Sums], resume: bool) {
                    strips($plain, inputs, weights, sums, resume);
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
by_dot!(bf16, Bf16Vectors, Bf16Plain);
by_dot!(int8, Int8Vectors, Int8Plain);

#[inline(always)]
fn strips<D: Dot>(dot: D, inputs: Lines<'_>, weights: &[Block], sums: &mut [Sums], resume: bool) {
    let strips = sums.len().div_ceil(if D::WIDE { ROWS } else { 1 });
    let mut row = 0;
    for strip in 0..strips {
        let count = (sums.len() - row).div_ceil(strips - strip);
        let own = &mut sums[row..row + count];
        match count {
            1 => tile::<D, 1>(dot, inputs, weights, row, own, resume),
            2 => tile::<D, 2>(dot, inputs, weights, row, own, resume),
            3 => tile::<D, 3>(dot, inputs, weights, row, own, resume),
            4 => tile::<D, 4>(dot, inputs, weights, row, own, resume),
            5 => tile::<D, 5>(dot, inputs, weights, row, own, resume),
            _ => tile::<D, 6>(dot, inputs, weights, row, own, resume),
        }
        row += count;
    }
}

/// `R` rows by a panel.
#[expect(clippy::needless_range_loop, reason = "one index for several arrays of known length")]
#[inline(always)]
fn tile<D: Dot, const R: usize>(
    dot: D,
    inputs: Lines<'_>,
    weights: &[Block],
    row: usize,
    sums: &mut [Sums],
    resume: bool,
) {
    let sums: &mut [Sums; R] = sums.try_into().expect("as many sums as rows");
    let mut tile = [[dot.zero(); VECTORS]; R];
    if resume {
        for (tile, sums) in tile.iter_mut().zip(sums.iter_mut()) {
            *tile = std::array::from_fn(|v| dot.load(&sums.vectors()[v]));
        }
    }
    for (i, weights) in weights.iter().enumerate() {
        let input: &[Line; R] = inputs.block(i)[row..row + R].try_into().expect("rows of a block");
        for group in 0..GROUPS {
            for r in 0..R {
                for v in 0..VECTORS {
                    tile[r][v] = dot.dot(tile[r][v], input[r].0[group], &weights.0[v][group]);
                }
            }
        }
    }
    for (tile, sums) in tile.iter().zip(sums) {
        for (v, &sum) in tile.iter().enumerate() {
            dot.store(sum, &mut sums.vectors()[v]);
        }
    }
}

/// The dot product of bf16 pairs as the machine's instruction computes it: f32 multiply-adds, the odd one first,
/// denormals taken as and turned into zeros.
#[derive(Clone, Copy)]
struct Bf16Plain;

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
    fn dot(self, sums: [f32; 16], input: u32, weights: &[u32; 16]) -> [f32; 16] {
        let odd = |group: u32| f32::from_bits(group & 0xffff_0000);
        let even = |group: u32| f32::from_bits(group << 16);
        std::array::from_fn(|i| {
            let sum = flush(odd(input).mul_add(odd(weights[i]), sums[i]));
            flush(even(input).mul_add(even(weights[i]), sum))
        })
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
        from.map(|sum| sum.to_bits() as i32)
    }

    #[inline(always)]
    fn store(self, sums: [i32; 16], to: &mut [f32; 16]) {
        *to = sums.map(|sum| f32::from_bits(sum as u32));
    }

    #[inline(always)]
    fn dot(self, sums: [i32; 16], input: u32, weights: &[u32; 16]) -> [i32; 16] {
        let inputs = input.to_le_bytes().map(i32::from);
        std::array::from_fn(|i| {
            let weights = weights[i].to_le_bytes().map(|weight| i32::from(weight as i8));
            (0..4).fold(sums[i], |sum, j| sum.wrapping_add(inputs[j] * weights[j]))
        })
    }
}

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "intrinsics of instruction sets that the types prove")]
mod x86 {
    use std::arch::x86_64::*;

    use super::Dot;

    /// Proof that the machine has AVX-512 with bf16 dot products.
    #[derive(Clone, Copy)]
    pub(super) struct Bf16Vectors(());

    /// Proof that the machine has AVX-512 with int8 dot products.
    #[derive(Clone, Copy)]
    pub(super) struct Int8Vectors(());

    impl Bf16Vectors {
        /// # Safety
        /// The machine must have AVX-512F and AVX-512-BF16.
        pub(super) unsafe fn assume() -> Self {
            Self(())
        }
    }

    impl Int8Vectors {
        /// # Safety
        /// The machine must have AVX-512F and AVX-512-VNNI.
        pub(super) unsafe fn assume() -> Self {
            Self(())
        }
    }

    impl Dot for Bf16Vectors {
        type Sums = __m512;
        const WIDE: bool = true;

        #[inline(always)]
        fn zero(self) -> __m512 {
            // SAFETY: `self` proves AVX-512F.
            unsafe { _mm512_setzero_ps() }
        }

        #[inline(always)]
        fn load(self, from: &[f32; 16]) -> __m512 {
            // SAFETY: as above; the array has sixteen values.
            unsafe { _mm512_loadu_ps(from.as_ptr()) }
        }

        #[inline(always)]
        fn store(self, sums: __m512, to: &mut [f32; 16]) {
            // SAFETY: as above; the array has room for sixteen values.
            unsafe { _mm512_storeu_ps(to.as_mut_ptr(), sums) }
        }

        #[inline(always)]
        fn dot(self, sums: __m512, input: u32, weights: &[u32; 16]) -> __m512 {
            // SAFETY: `self` proves the features; the array has 64 bytes, and pairs are any bits.
            unsafe {
                let weights = _mm512_loadu_si512(weights.as_ptr().cast());
                let pair = |bits: __m512i| std::mem::transmute::<__m512i, __m512bh>(bits);
                _mm512_dpbf16_ps(sums, pair(_mm512_set1_epi32(input as i32)), pair(weights))
            }
        }
    }

    impl Dot for Int8Vectors {
        type Sums = __m512i;
        const WIDE: bool = true;

        #[inline(always)]
        fn zero(self) -> __m512i {
            // SAFETY: `self` proves AVX-512F.
            unsafe { _mm512_setzero_si512() }
        }

        #[inline(always)]
        fn load(self, from: &[f32; 16]) -> __m512i {
            // SAFETY: as above; the array has 64 bytes.
            unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
        }

        #[inline(always)]
        fn store(self, sums: __m512i, to: &mut [f32; 16]) {
            // SAFETY: as above; the array has room for 64 bytes.
            unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), sums) }
        }

        #[inline(always)]
        fn dot(self, sums: __m512i, input: u32, weights: &[u32; 16]) -> __m512i {
            // SAFETY: `self` proves the features; the array has 64 bytes.
            unsafe {
                let weights = _mm512_loadu_si512(weights.as_ptr().cast());
                _mm512_dpbusd_epi32(sums, _mm512_set1_epi32(input as i32), weights)
            }
        }
    }
}

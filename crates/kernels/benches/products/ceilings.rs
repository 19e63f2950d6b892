//! What the machine can do at most: multiply-adds from registers, reads from each level of memory.

#![expect(unsafe_code, reason = "intrinsics and tile instructions, behind checks of what the machine has")]

use std::hint::black_box;
use std::sync::Barrier;
use std::time::Instant;

use windlass_kernels::Isa;

/// Most operations and bytes a second, of all threads together; none where the machine lacks the instructions.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Ceilings {
    /// GFLOP/s of f32 multiply-adds.
    pub(crate) f32: Option<f64>,
    /// GFLOP/s of bf16 dot products in vectors.
    pub(crate) bf16_dot: Option<f64>,
    /// Gop/s of int8 dot products in vectors.
    pub(crate) int8_dot: Option<f64>,
    /// GFLOP/s of bf16 tiles; int8 tiles do twice as many operations.
    pub(crate) bf16_tiles: Option<f64>,
}

impl Ceilings {
    /// Measures with `threads` threads, and prints what it found and how fast memory is read.
    pub(crate) fn measure(threads: usize) -> Self {
        let mut found = Self::default();
        #[cfg(target_arch = "x86_64")]
        {
            let isa = Isa::detect();
            if isa <= Isa::Avx512 {
                // SAFETY: the machine has AVX-512F.
                found.f32 = Some(rate(threads, || unsafe { x86::f32_multiply_adds() }));
            }
            if isa == Isa::Avx2 {
                // SAFETY: the machine has AVX2 and fused multiply-adds.
                found.f32 = Some(rate(threads, || unsafe { x86::f32_multiply_adds_of_eight() }));
            }
            if isa <= Isa::Avx512Dot {
                // SAFETY: the machine has the dot products.
                found.bf16_dot = Some(rate(threads, || unsafe { x86::bf16_dots() }));
                // SAFETY: as above.
                found.int8_dot = Some(rate(threads, || unsafe { x86::int8_dots() }));
            }
            if isa == Isa::Amx {
                // SAFETY: the machine has tiles, and `detect` asked for leave to use them.
                found.bf16_tiles = Some(rate(threads, || unsafe { x86::bf16_tiles() }));
            }
        }
        println!("ceilings T={threads} {found:?}");
        for (level, bytes) in [("L2", 1 << 20), ("L3", 1 << 26), ("DRAM", 1 << 30)] {
            println!("ceilings T={threads} read {level} {:.1} GB/s", read(threads, bytes));
        }
        found
    }
}

/// 10⁻⁹ times what `work` returns, over the time it takes, on all threads: the best of several.
fn rate(threads: usize, work: impl Fn() -> f64 + Sync) -> f64 {
    let barrier = Barrier::new(threads);
    let one = || {
        (0..7).fold(0.0_f64, |best, _| {
            barrier.wait();
            let start = Instant::now();
            let done = work();
            best.max(1e-9 * done / start.elapsed().as_secs_f64())
        })
    };
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
        all.into_iter().map(|thread| thread.join().unwrap()).sum()
    })
}

/// GB/s of reading `bytes` in all, each thread its own share of what is larger than a second-level cache.
fn read(threads: usize, bytes: usize) -> f64 {
    let share = if bytes > 1 << 20 { bytes / threads } else { bytes };
    let memory: Vec<Vec<u64>> = (0..threads).map(|_| vec![1; share / 8]).collect();
    let next = std::sync::atomic::AtomicUsize::new(0);
    thread_local! {
        static MINE: std::cell::Cell<Option<usize>> = const { std::cell::Cell::new(None) };
    }
    rate(threads, || {
        let mine = MINE.get().unwrap_or_else(|| next.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        MINE.set(Some(mine));
        let passes = ((1 << 27) / share).max(1);
        for _ in 0..passes {
            black_box(fold(black_box(&memory[mine])));
        }
        (passes * share) as f64
    })
}

/// Reads all of `memory`, in vectors as wide as the machine has.
fn fold(memory: &[u64]) -> [u64; 64] {
    #[cfg(target_arch = "x86_64")]
    if Isa::detect() <= Isa::Avx512 {
        // SAFETY: the machine has AVX-512F.
        return unsafe { x86::fold(memory) };
    }
    fold_body(memory)
}

#[inline(always)]
fn fold_body(memory: &[u64]) -> [u64; 64] {
    let mut folded = [0; 64];
    for values in memory.as_chunks::<64>().0 {
        folded.iter_mut().zip(values).for_each(|(folded, value)| *folded ^= value);
    }
    folded
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::asm;
    use std::arch::x86_64::*;
    use std::hint::black_box;

    const STEPS: usize = 1 << 20;
    /// Sums that do not wait for each other.
    const SUMS: usize = 12;

    #[target_feature(enable = "avx512f")]
    pub(super) fn fold(memory: &[u64]) -> [u64; 64] {
        super::fold_body(memory)
    }

    #[target_feature(enable = "avx512f")]
    pub(super) fn f32_multiply_adds() -> f64 {
        let (a, b) = (black_box(_mm512_set1_ps(0.5)), black_box(_mm512_set1_ps(0.25)));
        let mut sums = [_mm512_setzero_ps(); SUMS];
        for _ in 0..STEPS {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(a, *sum, b);
            }
        }
        black_box(sums);
        (STEPS * SUMS * 32) as f64
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn f32_multiply_adds_of_eight() -> f64 {
        let (a, b) = (black_box(_mm256_set1_ps(0.5)), black_box(_mm256_set1_ps(0.25)));
        let mut sums = [_mm256_setzero_ps(); SUMS];
        for _ in 0..STEPS {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(a, *sum, b);
            }
        }
        black_box(sums);
        (STEPS * SUMS * 16) as f64
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) fn bf16_dots() -> f64 {
        let ones = black_box(_mm512_cvtne2ps_pbh(_mm512_set1_ps(1.0), _mm512_set1_ps(1.0)));
        let mut sums = [_mm512_setzero_ps(); SUMS];
        for _ in 0..STEPS {
            for sum in &mut sums {
                *sum = _mm512_dpbf16_ps(*sum, ones, ones);
            }
        }
        black_box(sums);
        (STEPS * SUMS * 64) as f64
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    pub(super) fn int8_dots() -> f64 {
        let ones = black_box(_mm512_set1_epi8(1));
        let mut sums = [_mm512_setzero_si512(); SUMS];
        for _ in 0..STEPS {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, ones, ones);
            }
        }
        black_box(sums);
        (STEPS * SUMS * 128) as f64
    }

    #[repr(C, align(64))]
    struct Configuration([u8; 64]);

    /// # Safety
    /// The process may use tiles.
    pub(super) unsafe fn bf16_tiles() -> f64 {
        const STEPS: usize = 1 << 18;
        let mut configuration = Configuration([0; 64]);
        configuration.0[0] = 1;
        for tile in 0..8 {
            configuration.0[16 + 2 * tile] = 64;
            configuration.0[48 + tile] = 16;
        }
        // SAFETY: the caller's; four products from registers at each step, no memory but the configuration.
        unsafe {
            asm!(
                "ldtilecfg [{configuration}]",
                "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
                "tilezero tmm4", "tilezero tmm5", "tilezero tmm6", "tilezero tmm7",
                "2:",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "dec {steps}",
                "jnz 2b",
                "tilerelease",
                configuration = in(reg) &raw const configuration,
                steps = inout(reg) STEPS => _,
                options(nostack),
            );
        }
        (STEPS * 4 * 2 * 16 * 16 * 32) as f64
    }
}

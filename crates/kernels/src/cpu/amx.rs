//! Tiles of the matrix extension (AMX): whether the machine has them, how a thread sets them up, products of blocks.
//!
//! Intrinsics for it are not stable, so this is assembly. A thread holds a [`Tiles`] while it multiplies; all tiles
//! are 16 rows of 64 bytes. What the compiler generates never touches tile registers.

/// Whether processor and system let this process use tiles. Asks the system for permission on the first call.
pub(super) fn is_usable() -> bool {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    {
        static USABLE: std::sync::LazyLock<bool> = std::sync::LazyLock::new(linux::is_usable);
        *USABLE
    }
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    false
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub(super) use linux::{Bf16, Int8, Product, Tiles};

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[expect(unsafe_code, reason = "assembly for tiles")]
mod linux {
    use std::arch::asm;
    use std::arch::x86_64::__cpuid_count;
    use std::marker::PhantomData;

    use crate::cpu::product::geometry::{Block, Line, Lines, PANEL, Sums};

    pub(super) fn is_usable() -> bool {
        /// CPUID leaf 7, EDX: AMX-BF16, AMX-TILE, AMX-INT8.
        const FEATURES: u32 = 1 << 22 | 1 << 24 | 1 << 25;
        __cpuid_count(7, 0).edx & FEATURES == FEATURES && request_permission()
    }

    /// Tile registers make a thread's state large, so the system grants them on request, to the whole process.
    fn request_permission() -> bool {
        const ARCH_PRCTL: i64 = 158;
        const ARCH_REQ_XCOMP_PERM: i64 = 0x1023;
        const XFEATURE_XTILEDATA: i64 = 18;
        let result: i64;
        // SAFETY: a system call with two numbers; it clobbers rcx and r11 only.
        unsafe {
            asm!(
                "syscall",
                inlateout("rax") ARCH_PRCTL => result,
                in("rdi") ARCH_REQ_XCOMP_PERM,
                in("rsi") XFEATURE_XTILEDATA,
                lateout("rcx") _,
                lateout("r11") _,
                options(nostack),
            );
        }
        result == 0
    }

    #[repr(C, align(64))]
    struct Configuration {
        palette: u8,
        start_row: u8,
        reserved: [u8; 14],
        row_bytes: [u16; 16],
        rows: [u8; 16],
    }

    /// Eight tiles of 16 × 64 bytes, set up on this thread.
    pub(in crate::cpu) struct Tiles {
        /// Tiles belong to the thread.
        not_send: PhantomData<*const ()>,
    }

    impl Tiles {
        /// Sets this thread's tiles up.
        ///
        /// # Panics
        /// If tiles are not usable.
        pub(in crate::cpu) fn new() -> Self {
            assert!(super::is_usable(), "no tiles on this machine");
            let mut configuration = Configuration {
                palette: 1,
                start_row: 0,
                reserved: [0; 14],
                row_bytes: [0; 16],
                rows: [0; 16],
            };
            configuration.row_bytes[..8].fill(64);
            configuration.rows[..8].fill(16);
            // SAFETY: the machine has tiles and the process may use them; the configuration is 64 bytes of palette 1.
            unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const configuration, options(nostack, readonly)) };
            Self { not_send: PhantomData }
        }
    }

    impl Drop for Tiles {
        fn drop(&mut self) {
            // Without it, the system would save and restore 8 KiB at every switch of threads.
            // SAFETY: `new` found tiles usable.
            unsafe { asm!("tilerelease", options(nostack, nomem)) };
        }
    }

    /// A product of tiles.
    pub(in crate::cpu) trait Product {
        /// Sixteen rows by the four tiles of a panel: adds `inputs[b] · weights[b]` for all b to `sums`, or replaces them.
        /// Both slices have the same length.
        fn one_by_four(
            tiles: &Tiles,
            inputs: Lines<'_>,
            weights: &[Block],
            sums: &mut [Sums; 16],
            resume: bool,
        );
        /// The same for 32 rows, in two pieces, while `ahead` is brought into the second-level cache.
        fn two_by_four(
            tiles: &Tiles,
            inputs: [Lines<'_>; 2],
            weights: &[Block],
            sums: &mut [Sums; 32],
            resume: bool,
            ahead: &[Line],
        );
    }

    /// Pairs of bf16 into f32.
    pub(in crate::cpu) struct Bf16;
    /// Fours of int8 into i32.
    pub(in crate::cpu) struct Int8;

    macro_rules! product {
        ($type:ident, $instruction:literal) => {
            impl Product for $type {
                fn one_by_four(
                    _: &Tiles,
                    inputs: Lines<'_>,
                    weights: &[Block],
                    sums: &mut [Sums; 16],
                    resume: bool,
                ) {
                    assert_eq!(inputs.blocks(), weights.len(), "as many blocks of inputs as of weights");
                    if weights.is_empty() {
                        return;
                    }
                    // SAFETY: tiles are set up. Each step reads one block of inputs, which `Lines` fills up to 16 rows, and
                    // the four tiles of one of weights, as often as there are blocks; sums are 16 rows of 4 tiles, `PANEL` apart.
                    unsafe {
                        asm!(
                            "test {resume}, {resume}",
                            "jz 3f",
                            "tileloadd tmm0, [{sums} + {stride}*1]",
                            "tileloadd tmm1, [{sums} + {stride}*1 + 64]",
                            "tileloadd tmm2, [{sums} + {stride}*1 + 128]",
                            "tileloadd tmm3, [{sums} + {stride}*1 + 192]",
                            "jmp 4f",
                            "3:",
                            "tilezero tmm0",
                            "tilezero tmm1",
                            "tilezero tmm2",
                            "tilezero tmm3",
                            "4:",
                            "2:",
                            "tileloadd tmm6, [{inputs} + {line}*1]",
                            "tileloadd tmm4, [{weights} + {line}*1]",
                            "tileloadd tmm5, [{weights} + {line}*1 + 1024]",
                            concat!($instruction, " tmm0, tmm6, tmm4"),
                            "tileloadd tmm4, [{weights} + {line}*1 + 2048]",
                            concat!($instruction, " tmm1, tmm6, tmm5"),
                            "tileloadd tmm5, [{weights} + {line}*1 + 3072]",
                            concat!($instruction, " tmm2, tmm6, tmm4"),
                            concat!($instruction, " tmm3, tmm6, tmm5"),
                            "add {inputs}, {next}",
                            "add {weights}, 4096",
                            "dec {blocks}",
                            "jnz 2b",
                            "tilestored [{sums} + {stride}*1], tmm0",
                            "tilestored [{sums} + {stride}*1 + 64], tmm1",
                            "tilestored [{sums} + {stride}*1 + 128], tmm2",
                            "tilestored [{sums} + {stride}*1 + 192], tmm3",
                            resume = in(reg) u64::from(resume),
                            sums = in(reg) sums.as_mut_ptr(),
                            stride = in(reg) size_of::<Sums>(),
                            line = in(reg) 64_u64,
                            inputs = inout(reg) inputs.as_ptr() => _,
                            next = in(reg) inputs.stride(),
                            weights = inout(reg) weights.as_ptr() => _,
                            blocks = inout(reg) weights.len() => _,
                            options(nostack),
                        );
                    }
                }

                fn two_by_four(
                    _: &Tiles,
                    inputs: [Lines<'_>; 2],
                    weights: &[Block],
                    sums: &mut [Sums; 32],
                    resume: bool,
                    ahead: &[Line],
                ) {
                    let blocks = weights.len();
                    assert_eq!(inputs.map(|inputs| inputs.blocks()), [blocks; 2], "as many blocks of inputs as of weights");
                    if blocks == 0 {
                        return;
                    }
                    // Lines to fetch at each of 2 · `blocks` steps; a few at the end are left out.
                    let fetches = ahead.len() / (2 * blocks);
                    for half in 0..2 {
                        // SAFETY: as above, for two of the four tiles of a block and 32 rows of sums.
                        unsafe {
                            asm!(
                                "test {resume}, {resume}",
                                "jz 3f",
                                "tileloadd tmm0, [{sums} + {stride}*1]",
                                "tileloadd tmm1, [{sums} + {stride}*1 + 64]",
                                "tileloadd tmm2, [{lower} + {stride}*1]",
                                "tileloadd tmm3, [{lower} + {stride}*1 + 64]",
                                "jmp 4f",
                                "3:",
                                "tilezero tmm0",
                                "tilezero tmm1",
                                "tilezero tmm2",
                                "tilezero tmm3",
                                "4:",
                                "2:",
                                "tileloadd tmm4, [{weights} + {line}*1]",
                                "tileloadd tmm6, [{first} + {line}*1]",
                                "tileloadd tmm5, [{weights} + {line}*1 + 1024]",
                                concat!($instruction, " tmm0, tmm6, tmm4"),
                                "tileloadd tmm7, [{second} + {line}*1]",
                                "mov {left}, {fetches}",
                                "test {left}, {left}",
                                "jz 6f",
                                "5:",
                                "prefetcht1 [{ahead}]",
                                "add {ahead}, 64",
                                "dec {left}",
                                "jnz 5b",
                                "6:",
                                concat!($instruction, " tmm1, tmm6, tmm5"),
                                concat!($instruction, " tmm2, tmm7, tmm4"),
                                concat!($instruction, " tmm3, tmm7, tmm5"),
                                "add {first}, {first_next}",
                                "add {second}, {second_next}",
                                "add {weights}, 4096",
                                "dec {blocks}",
                                "jnz 2b",
                                "tilestored [{sums} + {stride}*1], tmm0",
                                "tilestored [{sums} + {stride}*1 + 64], tmm1",
                                "tilestored [{lower} + {stride}*1], tmm2",
                                "tilestored [{lower} + {stride}*1 + 64], tmm3",
                                resume = in(reg) u64::from(resume),
                                sums = in(reg) sums.as_mut_ptr().cast::<f32>().add(half * PANEL / 2),
                                lower = in(reg) sums.as_mut_ptr().add(16).cast::<f32>().add(half * PANEL / 2),
                                stride = in(reg) size_of::<Sums>(),
                                line = in(reg) 64_u64,
                                first = inout(reg) inputs[0].as_ptr() => _,
                                first_next = in(reg) inputs[0].stride(),
                                second = inout(reg) inputs[1].as_ptr() => _,
                                second_next = in(reg) inputs[1].stride(),
                                weights = inout(reg) weights.as_ptr().cast::<[u8; 1024]>().add(2 * half) => _,
                                blocks = inout(reg) blocks => _,
                                fetches = in(reg) fetches,
                                left = out(reg) _,
                                ahead = inout(reg) ahead.as_ptr().wrapping_add(half * blocks * fetches) => _,
                                options(nostack),
                            );
                        }
                    }
                }
            }
        };
    }
    product!(Bf16, "tdpbf16ps");
    product!(Int8, "tdpbssd");
}

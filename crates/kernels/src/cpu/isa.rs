//! Instruction sets, chosen at run time.

use std::fmt::{self, Display};
use std::str::FromStr;

use super::amx;

/// The instruction set kernels run on, each with all that the next one has. Products in f32 and int8 and all other
/// operations give the same bits on all of them; for bf16 see [`Arithmetic`](crate::Arithmetic).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// Tiles of 16 × 64 bytes (AMX, bf16 and int8).
    Amx,
    /// 512-bit vectors with dot products of bf16 and int8.
    Avx512Dot,
    /// 512-bit vectors.
    Avx512,
    /// 256-bit vectors with fused multiply-add.
    Avx2,
    /// What the target guarantees.
    Portable,
}

impl Isa {
    /// From the best to the least.
    pub const ALL: [Self; 5] = [Self::Amx, Self::Avx512Dot, Self::Avx512, Self::Avx2, Self::Portable];

    /// The best this machine has.
    pub fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            let avx512 = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("fma");
            let dot = is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512bf16")
                && is_x86_feature_detected!("avx512vnni");
            if avx512 {
                return match (dot, dot && amx::is_usable()) {
                    (true, true) => Self::Amx,
                    (true, false) => Self::Avx512Dot,
                    (false, _) => Self::Avx512,
                };
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                return Self::Avx2;
            }
        }
        Self::Portable
    }

    /// Whether this machine can run it.
    pub fn is_available(self) -> bool {
        self >= Self::detect()
    }

    /// Whether narrow products run on tiles.
    pub(super) fn has_tiles(self) -> bool {
        self == Self::Amx
    }

    fn name(self) -> &'static str {
        match self {
            Self::Amx => "amx",
            Self::Avx512Dot => "avx512-dot",
            Self::Avx512 => "avx512",
            Self::Avx2 => "avx2",
            Self::Portable => "portable",
        }
    }
}

impl Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Isa {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|isa| isa.name() == name);
        known.ok_or_else(|| format!("{name:?} is not amx, avx512-dot, avx512, avx2 or portable"))
    }
}

/// Whether the processor is one of AMD's. What they are asked to fetch waits where misses of the first-level cache do, of which there
/// are few; what they find by themselves that they will need does not.
pub(super) fn is_amd() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::__cpuid;
        use std::sync::LazyLock;
        static IS_AMD: LazyLock<bool> = LazyLock::new(|| {
            let name = __cpuid(0);
            [name.ebx, name.edx, name.ecx].map(u32::to_le_bytes).as_flattened() == b"AuthenticAMD"
        });
        *IS_AMD
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Compiles one body for each instruction set and calls the one that was detected.
///
/// The body must be `#[inline(always)]`. In the first form it is plain Rust that the compiler turns into vectors; in
/// the second (`<S>`) it takes a [`Simd`](super::simd::Simd) as its first argument.
macro_rules! by_isa {
    (fn $name:ident = $body:ident($($arg:ident: $type:ty),* $(,)?) $(-> $out:ty)?) => {
        by_isa!(@ fn $name = $body(; ; ; $($arg: $type),*) $(-> $out)?);
    };
    (fn $name:ident<S> = $body:ident($($arg:ident: $type:ty),* $(,)?) $(-> $out:ty)?) => {
        by_isa!(@ fn $name = $body(
            // SAFETY: evaluated inside the function of that instruction set alone.
            unsafe { $crate::cpu::simd::Avx512::assume() };
            // SAFETY: as above.
            unsafe { $crate::cpu::simd::Avx2::assume() };
            $crate::cpu::simd::Portable;
            $($arg: $type),*
        ) $(-> $out)?);
    };
    (@ fn $name:ident = $body:ident(
        $($avx512:expr)?; $($avx2:expr)?; $($portable:expr)?; $($arg:ident: $type:ty),*
    ) $(-> $out:ty)?) => {
        #[cfg_attr(target_arch = "x86_64", expect(unsafe_code, reason = "calls functions of detected features"))]
        pub(super) fn $name(isa: $crate::cpu::isa::Isa, $($arg: $type),*) $(-> $out)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,fma")]
                fn avx512($($arg: $type),*) $(-> $out)? {
                    $body($($avx512,)? $($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $type),*) $(-> $out)? {
                    $body($($avx2,)? $($arg),*)
                }
                use $crate::cpu::isa::Isa;
                match isa {
                    // SAFETY: `Cpu` only holds an `Isa` that was detected on this machine.
                    Isa::Amx | Isa::Avx512Dot | Isa::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    Isa::Avx2 => return unsafe { avx2($($arg),*) },
                    Isa::Portable => {}
                }
            }
            $body($($portable,)? $($arg),*)
        }
    };
}
pub(super) use by_isa;

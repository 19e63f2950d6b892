//! Instruction sets, chosen at run time.

/// The instruction set kernels run on. Results are the same on all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isa {
    /// 512-bit vectors.
    Avx512,
    /// 256-bit vectors with fused multiply-add.
    Avx2,
    /// What the target guarantees.
    Portable,
}

impl Isa {
    /// The best this machine has.
    pub fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("fma") {
                return Self::Avx512;
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                return Self::Avx2;
            }
        }
        Self::Portable
    }

    /// Whether this machine can run it.
    pub fn is_available(self) -> bool {
        match Self::detect() {
            Self::Avx512 => true,
            Self::Avx2 => self != Self::Avx512,
            Self::Portable => self == Self::Portable,
        }
    }
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
                match isa {
                    // SAFETY: `Cpu` only holds an `Isa` that was detected on this machine.
                    $crate::cpu::isa::Isa::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    $crate::cpu::isa::Isa::Avx2 => return unsafe { avx2($($arg),*) },
                    $crate::cpu::isa::Isa::Portable => {}
                }
            }
            $body($($portable,)? $($arg),*)
        }
    };
}
pub(super) use by_isa;

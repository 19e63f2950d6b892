//! How weights are stored, and what that makes of the arithmetic.

use std::fmt::{self, Display};
use std::str::FromStr;

use super::isa::Isa;
use crate::kv::KvFormat;

/// How the weights of matrix products are stored. Activations outside of products are always f32; for keys
/// and values see [`WeightFormat::kv`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WeightFormat {
    /// As loaded; products are exact chains of f32 multiply-adds.
    #[default]
    F32,
    /// Weights, the inputs of products, keys and values rounded to bf16; sums in f32.
    Bf16,
    /// Weights as int8 with a scale per output, the inputs of products as int8 with a scale per row; sums in i32. Keys and
    /// values in bf16.
    Int8,
}

impl WeightFormat {
    const ALL: [Self; 3] = [Self::F32, Self::Bf16, Self::Int8];

    /// Bytes of a weight, scales apart.
    pub fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
            Self::Int8 => 1,
        }
    }

    /// How keys and values are stored beside such weights.
    pub fn kv(self) -> KvFormat {
        match self {
            Self::F32 => KvFormat::F32,
            Self::Bf16 | Self::Int8 => KvFormat::Bf16,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        }
    }
}

impl Display for WeightFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for WeightFormat {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|format| format.name() == name);
        known.ok_or_else(|| format!("{name:?} is not f32, bf16 or int8"))
    }
}

/// What decides the bits of results beside inputs. Two backends give the same bits exactly if theirs is the same:
/// instruction sets differ for bf16 alone, because AMX adds the products of a pair in another order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Arithmetic {
    /// One chain of f32 multiply-adds over the inputs.
    F32,
    /// One chain of f32 multiply-adds over the inputs, the odd one of each pair first, without denormals.
    Bf16Dot,
    /// For each 32 inputs a chain over the even and one over the odd, added up, without denormals.
    Bf16Amx,
    /// Exact sums of int8 products.
    Int8,
    /// On a CUDA device, in f32: one chain over the inputs, other sums in its own orders.
    CudaF32,
    /// On a CUDA device: for each 32 inputs two tiles of bf16, in chunks that are added in order.
    CudaBf16,
}

impl Arithmetic {
    /// Another number wherever some arithmetic gives other bits than it did before.
    pub const REVISION: u32 = 2;

    /// How keys and values are stored.
    pub fn kv(self) -> KvFormat {
        match self {
            Self::F32 | Self::CudaF32 => KvFormat::F32,
            Self::Bf16Dot | Self::Bf16Amx | Self::Int8 | Self::CudaBf16 => KvFormat::Bf16,
        }
    }

    pub(super) fn of(format: WeightFormat, isa: Isa) -> Self {
        match (format, isa) {
            (WeightFormat::F32, _) => Self::F32,
            (WeightFormat::Bf16, Isa::Amx) => Self::Bf16Amx,
            (WeightFormat::Bf16, _) => Self::Bf16Dot,
            (WeightFormat::Int8, _) => Self::Int8,
        }
    }
}

impl Display for Arithmetic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16Dot => "bf16-dot",
            Self::Bf16Amx => "bf16-amx",
            Self::Int8 => "int8",
            Self::CudaF32 => "cuda-f32",
            Self::CudaBf16 => "cuda-bf16",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_and_their_arithmetic_agree_on_keys_and_values() {
        for (format, isa) in
            WeightFormat::ALL.into_iter().flat_map(|format| Isa::ALL.map(|isa| (format, isa)))
        {
            assert_eq!(Arithmetic::of(format, isa).kv(), format.kv(), "{format} on {isa}");
        }
    }
}

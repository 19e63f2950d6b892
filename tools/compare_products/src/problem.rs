//! What is multiplied.

use half::bf16;
use windlass_kernels::Isa;

/// Numbers the weights are kept in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    F32,
    Bf16,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }

    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }
}

/// `out[rows, outputs] = x[rows, inputs] · weightᵀ`, weights `[outputs, inputs]`, for any number of rows up to
/// `most_rows`.
pub struct Problem {
    pub kind: Kind,
    pub outputs: usize,
    pub inputs: usize,
    pub most_rows: usize,
    /// Copies of the weight a contestant goes through in turn.
    pub copies: usize,
    pub threads: usize,
    /// What Windlass runs on.
    pub isa: Isa,
    /// `[outputs, inputs]`. Under bf16, values are exact in bf16, and so are those of `x`.
    pub weight: Vec<f32>,
    /// `[most_rows, inputs]`.
    pub x: Vec<f32>,
}

impl Problem {
    pub fn new(
        kind: Kind,
        [outputs, inputs]: [usize; 2],
        most_rows: usize,
        copies: usize,
        (threads, isa): (usize, Isa),
    ) -> Self {
        let mut state = 1_u64;
        let mut values = |count: usize| -> Vec<f32> {
            let value = |_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let value = (state >> 40) as f32 / (1 << 23) as f32 - 1.0;
                if kind == Kind::Bf16 { bf16::from_f32(value).to_f32() } else { value }
            };
            (0..count).map(value).collect()
        };
        let (weight, x) = (values(outputs * inputs), values(most_rows * inputs));
        Self { kind, outputs, inputs, most_rows, copies, threads, isa, weight, x }
    }

    /// The weight as `[inputs, outputs]`.
    pub fn transposed(&self) -> Vec<f32> {
        let mut transposed = vec![0.0; self.weight.len()];
        for (output, row) in self.weight.chunks_exact(self.inputs).enumerate() {
            for (input, &value) in row.iter().enumerate() {
                transposed[input * self.outputs + output] = value;
            }
        }
        transposed
    }

    /// Panics where a sample of `out` (`[rows, outputs]`) is not the product, to the accuracy of sums in f32.
    pub fn check(&self, name: &str, rows: usize, out: &[f32], tolerance: f64) {
        assert_eq!(out.len(), rows * self.outputs, "{name}: wrong size");
        let every = (out.len() / 97).max(1);
        for (i, &value) in out.iter().enumerate().step_by(every) {
            let (row, output) = (i / self.outputs, i % self.outputs);
            let x = &self.x[row * self.inputs..][..self.inputs];
            let weight = &self.weight[output * self.inputs..][..self.inputs];
            let products = x.iter().zip(weight).map(|(&x, &w)| f64::from(x) * f64::from(w));
            let (expected, size) =
                products.fold((0.0, 0.0), |(sum, size), product| (sum + product, size + product.abs()));
            let error = (f64::from(value) - expected).abs();
            assert!(error <= tolerance * size, "{name}: [{row}, {output}] is {value}, not {expected}");
        }
    }
}

/// `values` in bf16.
pub fn to_bf16(values: &[f32]) -> Vec<bf16> {
    values.iter().map(|&value| bf16::from_f32(value)).collect()
}

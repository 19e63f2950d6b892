//! From sums of int8 products to f32.

use super::geometry::{PANEL, Sums};
use crate::cpu::isa::{Isa, by_isa};

/// What turns sums of int8 products into f32; empty for bf16, whose sums are f32.
#[derive(Debug, Default)]
pub(super) struct Scales {
    /// By packed output.
    pub(super) scales: Vec<f32>,
    /// By packed output: what 128 on every input adds to the sum. Empty where inputs do not have it, see [`biased`](super::dots::biased).
    pub(super) biases: Vec<i32>,
}

impl Scales {
    /// Turns one panel's sums of rows with these scales into f32.
    pub(super) fn apply(&self, isa: Isa, panel: usize, row_scales: &[f32], sums: &mut [Sums]) {
        if self.scales.is_empty() {
            return;
        }
        let outputs = panel * PANEL..(panel + 1) * PANEL;
        let biases = self.biases.get(outputs.clone());
        scale(isa, sums, biases, row_scales, &self.scales[outputs]);
    }
}

by_isa!(fn scale = scale_body(
    sums: &mut [Sums], biases: Option<&[i32]>, row_scales: &[f32], output_scales: &[f32],
));

/// What the bias added goes off, then the row's scale and the output's go on.
#[inline(always)]
fn scale_body(sums: &mut [Sums], biases: Option<&[i32]>, row_scales: &[f32], output_scales: &[f32]) {
    for (sums, &row_scale) in sums.iter_mut().zip(row_scales) {
        for (j, (sum, &output_scale)) in sums.0.iter_mut().zip(output_scales).enumerate() {
            let bias = biases.map_or(0, |biases| biases[j]);
            *sum = (sum.to_bits() as i32 - bias) as f32 * row_scale * output_scale;
        }
    }
}

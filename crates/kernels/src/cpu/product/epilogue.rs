//! What becomes of a product's sums, panel by panel, while they are in the cache.

use super::geometry::{PANEL, Sums};
use crate::cpu::disjoint::Disjoint;
use crate::cpu::isa::{Isa, by_isa};
use crate::cpu::math::silu;

/// Takes the finished sums of some rows and one panel.
pub(in crate::cpu) trait Epilogue: Sync {
    /// `sums[i]` belongs to row `first_row + i`. Called once for each row and panel, from any thread.
    fn finish(&self, isa: Isa, panel: usize, first_row: usize, sums: &[Sums]);
}

/// Writes them to a row-major matrix.
pub(in crate::cpu) struct Store<'a> {
    /// `[rows, width]`.
    pub(in crate::cpu) out: Disjoint<'a, f32>,
    pub(in crate::cpu) width: usize,
}

impl Epilogue for Store<'_> {
    fn finish(&self, _: Isa, panel: usize, first_row: usize, sums: &[Sums]) {
        let column = panel * PANEL;
        let len = PANEL.min(self.width - column);
        for (i, sums) in sums.iter().enumerate() {
            let out = self.out.range((first_row + i) * self.width + column, len);
            match <&mut [f32; PANEL]>::try_from(&mut *out) {
                Ok(out) => *out = sums.0,
                Err(_) => out.copy_from_slice(&sums.0[..len]),
            }
        }
    }
}

/// Writes `silu(gate) · up` of a paired weight to a row-major matrix.
pub(in crate::cpu) struct Gate<'a> {
    /// `[rows, width]`.
    pub(in crate::cpu) out: Disjoint<'a, f32>,
    pub(in crate::cpu) width: usize,
}

impl Epilogue for Gate<'_> {
    fn finish(&self, isa: Isa, panel: usize, first_row: usize, sums: &[Sums]) {
        let column = panel * (PANEL / 2);
        let len = (PANEL / 2).min(self.width - column);
        for (i, sums) in sums.iter().enumerate() {
            gate(isa, sums, self.out.range((first_row + i) * self.width + column, len));
        }
    }
}

by_isa!(fn gate = gate_body(sums: &Sums, out: &mut [f32]));

#[inline(always)]
fn gate_body(sums: &Sums, out: &mut [f32]) {
    let (gates, ups) = sums.0.split_at(PANEL / 2);
    let mut gated = [0.0; PANEL / 2];
    for ((gated, &gate), &up) in gated.iter_mut().zip(gates).zip(ups) {
        *gated = silu(gate) * up;
    }
    out.copy_from_slice(&gated[..out.len()]);
}

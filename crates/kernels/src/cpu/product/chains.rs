//! Products in f32: each sum is one chain of fused multiply-adds over the inputs, in order.

use std::ops::Range;

use super::geometry::Sums;
use super::input::Input;
use super::strips::{self, Dot, Groups, Task};
use crate::cpu::isa::by_isa;
use crate::cpu::simd::Simd;

by_isa!(fn multiply<S> = multiply_body(task: Task<'_, Input<'_>>, sums: &mut [Sums]));

#[inline(always)]
fn multiply_body<S: Simd>(simd: S, task: Task<'_, Input<'_>>, sums: &mut [Sums]) {
    strips::multiply(MultiplyAdd(simd), task, sums);
}

/// One input at a time.
#[derive(Clone, Copy)]
struct MultiplyAdd<S>(S);

impl<S: Simd> Dot for MultiplyAdd<S> {
    type Group = f32;
    type Sums = S::Vector;
    const TILE: usize = if S::WIDE { 24 } else { 6 };

    #[inline(always)]
    fn zero(self) -> S::Vector {
        self.0.splat(0.0)
    }

    #[inline(always)]
    fn load(self, from: &[f32; 16]) -> S::Vector {
        self.0.load(from)
    }

    #[inline(always)]
    fn store(self, sums: S::Vector, to: &mut [f32; 16]) {
        self.0.store(sums, to);
    }

    #[inline(always)]
    fn add(self, sums: S::Vector, input: f32, weights: &[f32; 16]) -> S::Vector {
        self.0.mul_add(self.0.splat(input), self.0.load(weights), sums)
    }
}

impl Groups for Input<'_> {
    type Group = f32;

    #[inline(always)]
    fn piece_end(&self, at: usize) -> usize {
        self.part_end(at)
    }

    #[inline(always)]
    fn groups(&self, i: usize, groups: Range<usize>) -> &[f32] {
        self.columns(i, groups)
    }
}

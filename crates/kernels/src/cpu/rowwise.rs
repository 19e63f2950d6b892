//! Operations on one row at a time.

use super::isa::by_isa;
use super::math::{sum, sum_lanes};
use super::rotate::padded;
use super::simd::LANES;
use crate::backend::LatentChange;

by_isa!(fn rms_norm = rms_norm_body(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]));
by_isa!(fn add_rms_norm = add_rms_norm_body(x: &mut [f32], residual: &[f32], weight: &[f32], eps: f32));
by_isa!(fn add_norm_norm = add_norm_norm_body(
    x: &mut [f32], residual: &[f32], first: &[f32], next: &[f32], eps: f32, out: &mut [f32],
));
by_isa!(fn add_norm_commit = add_norm_commit_body(
    x: &mut [f32], residual: &[f32], weight: &[f32], eps: f32, latent: &mut [f32],
) -> LatentChange);

#[inline(always)]
fn inverse_rms(x: &[f32], eps: f32) -> f32 {
    let mean_square = sum(x.len(), |j| x[j] * x[j]) / x.len() as f32;
    1.0 / (mean_square + eps).sqrt()
}

#[inline(always)]
fn rms_norm_body(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let scale = inverse_rms(x, eps);
    for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
        *out = x * scale * weight;
    }
}

#[inline(always)]
pub(super) fn add(x: &mut [f32], residual: &[f32]) {
    for (x, residual) in x.iter_mut().zip(residual) {
        *x += residual;
    }
}

#[inline(always)]
fn add_rms_norm_body(x: &mut [f32], residual: &[f32], weight: &[f32], eps: f32) {
    add(x, residual);
    let scale = inverse_rms(x, eps);
    for (x, weight) in x.iter_mut().zip(weight) {
        *x = *x * scale * weight;
    }
}

#[inline(always)]
fn add_norm_norm_body(
    x: &mut [f32],
    residual: &[f32],
    first: &[f32],
    next: &[f32],
    eps: f32,
    out: &mut [f32],
) {
    add_rms_norm_body(x, residual, first, eps);
    rms_norm_body(x, next, eps, out);
}

#[inline(always)]
fn add_norm_commit_body(
    x: &mut [f32],
    residual: &[f32],
    weight: &[f32],
    eps: f32,
    latent: &mut [f32],
) -> LatentChange {
    add(x, residual);
    let scale = inverse_rms(x, eps);
    let (x, weight) = (&x[..latent.len()], &weight[..latent.len()]);
    let mut sums = [[0.0; LANES]; 4];
    let ((x, x_tail), (weight, weight_tail)) = (x.as_chunks(), weight.as_chunks());
    let (whole, tail) = latent.as_chunks_mut();
    for ((latent, x), weight) in whole.iter_mut().zip(x).zip(weight) {
        commit(x, weight, scale, latent, &mut sums);
    }
    if !tail.is_empty() {
        let mut latent = padded(tail);
        commit(&padded(x_tail), &padded(weight_tail), scale, &mut latent, &mut sums);
        tail.copy_from_slice(&latent[..tail.len()]);
    }
    let [difference_squared, current_squared, previous_squared, dot] = sums.map(sum_lanes);
    LatentChange { difference_squared, current_squared, previous_squared, dot }
}

/// Replaces sixteen values of `latent` and adds to the four sums of a [`LatentChange`].
#[inline(always)]
fn commit(
    x: &[f32; LANES],
    weight: &[f32; LANES],
    scale: f32,
    latent: &mut [f32; LANES],
    sums: &mut [[f32; LANES]; 4],
) {
    let [difference_squared, current_squared, previous_squared, dot] = sums;
    for j in 0..LANES {
        let (current, previous) = (x[j] * scale * weight[j], latent[j]);
        let difference = current - previous;
        latent[j] = current;
        difference_squared[j] += difference * difference;
        current_squared[j] += current * current;
        previous_squared[j] += previous * previous;
        dot[j] += current * previous;
    }
}

//! Operations on one row at a time.

use super::isa::by_isa;
use super::math::sum;
use crate::backend::LatentChange;

by_isa!(fn rms_norm = rms_norm_body(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]));
by_isa!(fn add_rms_norm = add_rms_norm_body(x: &mut [f32], residual: &[f32], weight: &[f32], eps: f32));
by_isa!(fn add_norm_norm = add_norm_norm_body(
    x: &mut [f32], residual: &[f32], first: &[f32], next: &[f32], eps: f32, out: &mut [f32],
));
by_isa!(fn latent_change = latent_change_body(current: &[f32], previous: &[f32]) -> LatentChange);

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
fn add_rms_norm_body(x: &mut [f32], residual: &[f32], weight: &[f32], eps: f32) {
    for (x, residual) in x.iter_mut().zip(residual) {
        *x += residual;
    }
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
fn latent_change_body(current: &[f32], previous: &[f32]) -> LatentChange {
    let previous = &previous[..current.len()];
    let len = current.len();
    LatentChange {
        difference_squared: sum(len, |j| (current[j] - previous[j]) * (current[j] - previous[j])),
        current_squared: sum(len, |j| current[j] * current[j]),
        previous_squared: sum(len, |j| previous[j] * previous[j]),
        dot: sum(len, |j| current[j] * previous[j]),
    }
}

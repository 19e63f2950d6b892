//! Rotary positions, and keys and values on their way into the cache.

use super::buffer::CpuBuffer;
use super::cache::KvCache;
use super::isa::{Isa, by_isa};
use super::simd::{LANES, Simd};
use crate::backend::Rotation;
use crate::kv::KvRows;

/// See [`crate::Backend::rotate_and_store`]. `each` calls what it is given once for each of so many rows of so many values,
/// with `qkv`'s row and whether it has stopped.
pub(super) fn rotate_and_store(
    isa: Isa,
    Rotation { bias, angles }: Rotation<'_, CpuBuffer>,
    rows: KvRows<'_>,
    layer: usize,
    cache: &mut KvCache,
    each: impl FnOnce(&(dyn Fn(usize, &mut [f32], bool) + Sync)),
) {
    let (width, head_dim) = (cache.shape().heads * cache.shape().head_dim, cache.shape().head_dim);
    let cache = cache.writer();
    each(&|i, qkv, has_stopped| {
        let row = &rows.rows[i];
        let (queries_keys, values) = qkv.split_at_mut(2 * width);
        let position = row.position as usize;
        rotate(isa, queries_keys, bias, &angles.row(position)[..head_dim]);
        if has_stopped {
            return;
        }
        cache.store(isa, (rows.written_block(row), position), layer, &queries_keys[width..], values);
    });
}

by_isa!(fn rotate<S> = rotate_body(x: &mut [f32], bias: Option<&[f32]>, angles: &[f32]));

/// Adds the bias and turns each adjacent pair by its angle, head by head.
#[inline(always)]
fn rotate_body<S: Simd>(simd: S, x: &mut [f32], bias: Option<&[f32]>, angles: &[f32]) {
    match bias {
        Some(bias) => {
            for (x, bias) in x.chunks_exact_mut(angles.len()).zip(bias.chunks_exact(angles.len())) {
                rotate_head(simd, x, Some(bias), angles);
            }
        }
        None => {
            for x in x.chunks_exact_mut(angles.len()) {
                rotate_head(simd, x, None, angles);
            }
        }
    }
}

#[inline(always)]
fn rotate_head<S: Simd>(simd: S, x: &mut [f32], bias: Option<&[f32]>, angles: &[f32]) {
    let (whole, tail) = x.as_chunks_mut();
    let (angles, angles_tail) = angles.as_chunks();
    let (bias, bias_tail) = bias.map(<[f32]>::as_chunks).unzip();
    for (i, (x, angles)) in whole.iter_mut().zip(angles).enumerate() {
        rotate_vector(simd, x, bias.map(|bias| &bias[i]), angles);
    }
    if !tail.is_empty() {
        let mut padded_x = padded(tail);
        rotate_vector(simd, &mut padded_x, bias_tail.map(padded).as_ref(), &padded(angles_tail));
        tail.copy_from_slice(&padded_x[..tail.len()]);
    }
}

#[inline(always)]
fn rotate_vector<S: Simd>(simd: S, x: &mut [f32; LANES], bias: Option<&[f32; LANES]>, angles: &[f32; LANES]) {
    let pairs = match bias {
        Some(bias) => simd.add(simd.load(x), simd.load(bias)),
        None => simd.load(x),
    };
    simd.store(simd.rotate(pairs, simd.load(angles)), x);
}

/// Fewer than [`LANES`] values, then zeros.
#[inline(always)]
pub(super) fn padded(values: &[f32]) -> [f32; LANES] {
    let mut padded = [0.0; LANES];
    padded[..values.len()].copy_from_slice(values);
    padded
}

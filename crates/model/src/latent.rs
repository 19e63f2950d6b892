//! Where the recurrence starts: the initial latent of a position.

use crate::random::{Stream, draws, uniform};

/// Standard deviations at which the distribution is cut.
const CUT: f64 = 3.0;
/// Φ(−3), the mass below the cut.
const TAIL: f64 = 1.349_898_031_630_094_5e-3;

/// The initial latent of `position`, `[hidden]`: each entry `N(0, 2 / (5 · hidden))` cut at three standard deviations,
/// times √hidden, times `scale`. A function of its arguments alone.
pub fn initial_latent(seed: u64, position: u32, scale: f32, hidden: usize) -> Vec<f32> {
    let mut latent = vec![0.0; hidden];
    fill_initial_latent(seed, position, scale, &mut latent);
    latent
}

/// The same, written to `latent`.
pub fn fill_initial_latent(seed: u64, position: u32, scale: f32, latent: &mut [f32]) {
    /// Entries computed side by side.
    const BLOCK: usize = 32;
    if scale == 0.0 {
        return latent.fill(0.0);
    }
    let hidden = latent.len() as f64;
    let deviation = (2.0 / (5.0 * hidden)).sqrt() * hidden.sqrt() * f64::from(scale);
    for (block, out) in latent.chunks_mut(BLOCK).enumerate() {
        let words = draws::<{ BLOCK / 2 }>(seed, Stream::Latent, position, (block * BLOCK / 2) as u32);
        let mut probabilities = [0.0; BLOCK];
        for i in 0..BLOCK / 2 {
            for half in 0..2 {
                let uniform = uniform(words[2 * half][i], words[2 * half + 1][i]);
                probabilities[2 * i + half] = TAIL + uniform * (1.0 - 2.0 * TAIL);
            }
        }
        // The formula of the middle for all, without a branch, and then again for the one in twenty it does not hold for.
        let mut normals = probabilities;
        for normal in &mut normals {
            *normal = central_quantile(*normal);
        }
        for (normal, &probability) in normals.iter_mut().zip(&probabilities) {
            if !is_central(probability) {
                *normal = normal_quantile(probability);
            }
        }
        for (out, normal) in out.iter_mut().zip(normals) {
            *out = (normal.clamp(-CUT, CUT) * deviation) as f32;
        }
    }
}

/// Below it, and above one minus it, a quantile is in a tail.
const TAIL_BELOW: f64 = 0.02425;

fn is_central(p: f64) -> bool {
    (TAIL_BELOW..=1.0 - TAIL_BELOW).contains(&p)
}

/// Φ⁻¹, to 1.2e-9 relative (P. J. Acklam, "An algorithm for computing the inverse normal cumulative distribution
/// function", 2003).
fn normal_quantile(p: f64) -> f64 {
    if is_central(p) {
        central_quantile(p)
    } else if p < TAIL_BELOW {
        lower_quantile(p)
    } else {
        -lower_quantile(1.0 - p)
    }
}

/// Φ⁻¹ in the middle.
#[inline(always)]
fn central_quantile(p: f64) -> f64 {
    const A: [f64; 6] = [
        -3.969_683_028_665_376e1,
        2.209_460_984_245_205e2,
        -2.759_285_104_469_687e2,
        1.383_577_518_672_69e2,
        -3.066_479_806_614_716e1,
        2.506_628_277_459_239,
    ];
    const B: [f64; 6] = [
        -5.447_609_879_822_406e1,
        1.615_858_368_580_409e2,
        -1.556_989_798_598_866e2,
        6.680_131_188_771_972e1,
        -1.328_068_155_288_572e1,
        1.0,
    ];
    let q = p - 0.5;
    q * polynomial(&A, q * q) / polynomial(&B, q * q)
}

/// Φ⁻¹ in the lower tail.
fn lower_quantile(p: f64) -> f64 {
    const C: [f64; 6] = [
        -7.784_894_002_430_293e-3,
        -3.223_964_580_411_365e-1,
        -2.400_758_277_161_838,
        -2.549_732_539_343_734,
        4.374_664_141_464_968,
        2.938_163_982_698_783,
    ];
    const D: [f64; 5] = [
        7.784_695_709_041_462e-3,
        3.224_671_290_700_398e-1,
        2.445_134_137_142_996,
        3.754_408_661_907_416,
        1.0,
    ];
    let q = (-2.0 * p.ln()).sqrt();
    polynomial(&C, q) / polynomial(&D, q)
}

#[inline(always)]
fn polynomial<const N: usize>(coefficients: &[f64; N], x: f64) -> f64 {
    let mut sum = 0.0;
    for c in coefficients {
        sum = sum * x + c;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::draw;

    #[test]
    fn entries_are_what_one_at_a_time_gives() {
        let (seed, position, scale, hidden) = (11, 5, 0.7, 1001);
        let deviation = (2.0 / (5.0 * hidden as f64)).sqrt() * (hidden as f64).sqrt() * f64::from(scale);
        let entry = |i: usize| {
            let words = draw(seed, Stream::Latent, position, i as u32 / 2);
            let pair = if i.is_multiple_of(2) { [words[0], words[1]] } else { [words[2], words[3]] };
            let probability = TAIL + uniform(pair[0], pair[1]) * (1.0 - 2.0 * TAIL);
            (normal_quantile(probability).clamp(-CUT, CUT) * deviation) as f32
        };
        let expected: Vec<f32> = (0..hidden).map(entry).collect();
        assert_eq!(initial_latent(seed, position, scale, hidden), expected);
    }

    #[test]
    fn latents_have_the_model_s_distribution() {
        let hidden = 4096;
        let all: Vec<f64> = (0..16).flat_map(|p| initial_latent(7, p, 1.0, hidden)).map(f64::from).collect();
        let mean = all.iter().sum::<f64>() / all.len() as f64;
        let deviation = (all.iter().map(|x| x * x).sum::<f64>() / all.len() as f64).sqrt();
        let largest = all.iter().fold(0.0_f64, |largest, x| largest.max(x.abs()));
        // A normal distribution cut at three deviations has a deviation of 0.98658.
        assert!(mean.abs() < 0.01 && (deviation / 0.4_f64.sqrt() - 0.98658).abs() < 0.005);
        assert!(largest <= 3.0 * 0.4_f64.sqrt() * 1.000_001 && largest > 2.8 * 0.4_f64.sqrt());
    }

    #[test]
    fn latents_depend_on_seed_and_position_only() {
        assert_eq!(initial_latent(1, 2, 1.0, 64), initial_latent(1, 2, 1.0, 64));
        assert_ne!(initial_latent(1, 2, 1.0, 64), initial_latent(1, 3, 1.0, 64));
        assert_ne!(initial_latent(1, 2, 1.0, 64), initial_latent(2, 2, 1.0, 64));
        assert_eq!(initial_latent(1, 2, 0.0, 4), [0.0; 4]);
    }

    #[test]
    fn quantiles_match_known_values() {
        for (p, x) in [(0.5, 0.0), (0.975, 1.959_963_984_540_054), (0.001_349_898_031_630_1, -3.0)] {
            assert!((normal_quantile(p) - x).abs() < 1e-7, "{p}");
        }
    }
}

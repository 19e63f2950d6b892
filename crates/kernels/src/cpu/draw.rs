//! Drawing an output from a row of logits.

use super::isa::{Isa, by_isa};
use crate::draw::{Draw, LogitChange, MOST_OUTPUTS, Weights, key};

/// Working memory of a draw, kept for the next.
#[derive(Debug, Default)]
pub struct DrawScratch {
    /// By output.
    weights: Vec<u64>,
    /// Ranks of outputs of which the last kept is one.
    ranks: Vec<u64>,
}

/// Draws an output from `logits`, which are changed first.
///
/// # Panics
/// If there are none, or a change is of none of them.
pub fn draw(logits: &mut [f32], draw: &Draw, changes: &[LogitChange], scratch: &mut DrawScratch) -> u32 {
    draw_on(Isa::detect(), logits, draw, changes, scratch)
}

pub(super) fn draw_on(
    isa: Isa,
    logits: &mut [f32],
    draw: &Draw,
    changes: &[LogitChange],
    scratch: &mut DrawScratch,
) -> u32 {
    assert!((1..=MOST_OUTPUTS).contains(&logits.len()), "a draw from {} logits", logits.len());
    changes.iter().for_each(|change| change.apply(logits));
    let largest = ranks(logits).max().expect("there are logits");
    if draw.temperature == 0.0 || is_nan(largest) {
        return output(largest);
    }
    let DrawScratch { weights, ranks } = scratch;
    weights.resize(logits.len(), 0);
    weigh(isa, Weights::new(logits[output(largest) as usize], draw.temperature), logits, weights);
    // What is not left weighs nothing, and so is never drawn.
    let (least, least_weight) = (least_rank(draw, logits, weights, ranks), draw.least_weight());
    if least > 0 || least_weight > 0 {
        for (weight, rank) in weights.iter_mut().zip(self::ranks(logits)) {
            if rank < least || *weight < least_weight {
                *weight = 0;
            }
        }
    }
    let mut left = draw.target(weights.iter().sum());
    let is_drawn = |&weight: &u64| {
        let is_drawn = left < weight;
        left = left.saturating_sub(weight);
        is_drawn
    };
    weights.iter().position(is_drawn).expect("a target below the sum of the weights") as u32
}

/// Numbers that are larger for larger logits, and of equal ones for lower outputs.
fn ranks(logits: &[f32]) -> impl Iterator<Item = u64> + Clone {
    logits.iter().zip(0_u32..).map(|(&logit, output)| u64::from(key(logit)) << 32 | u64::from(!output))
}

fn output(rank: u64) -> u32 {
    !(rank as u32)
}

fn is_nan(rank: u64) -> bool {
    rank >> 32 == 0
}

by_isa!(fn weigh = weigh_body(by: Weights, logits: &[f32], weights: &mut [u64]));

#[inline(always)]
fn weigh_body(by: Weights, logits: &[f32], weights: &mut [u64]) {
    for (weight, &logit) in weights.iter_mut().zip(logits) {
        *weight = by.of(logit);
    }
}

/// The least rank that top-k and top-p keep.
fn least_rank(draw: &Draw, logits: &[f32], weights: &[u64], scratch: &mut Vec<u64>) -> u64 {
    let mut least = 0;
    if (draw.top_k as usize) < logits.len() {
        least = fewest(ranks(logits), draw.top_k.into(), |_| 1, scratch);
    }
    if draw.top_p < 1.0 {
        let kept = ranks(logits).filter(|rank| *rank >= least);
        let weight = |rank: u64| weights[output(rank) as usize];
        least = fewest(kept.clone(), draw.mass(kept.map(weight).sum()), weight, scratch);
    }
    least
}

/// The least of the fewest ranks, from the largest on, that measure at least `left`, which all of them do.
fn fewest(
    ranks: impl Iterator<Item = u64> + Clone,
    mut left: u64,
    measure: impl Fn(u64) -> u64,
    scratch: &mut Vec<u64>,
) -> u64 {
    /// Leading bits of a rank: the logit's sign, its exponent and two bits more.
    const DIGIT_BITS: u32 = 11;
    let digit_of = |rank: u64| (rank >> (u64::BITS - DIGIT_BITS)) as usize;
    let mut sums = [0; 1 << DIGIT_BITS];
    ranks.clone().for_each(|rank| sums[digit_of(rank)] += measure(rank));
    let mut digit = sums.len() - 1;
    while sums[digit] < left {
        left -= sums[digit];
        digit -= 1;
    }
    scratch.clear();
    scratch.extend(ranks.filter(|&rank| digit_of(rank) == digit));
    scratch.sort_unstable_by(|a, b| b.cmp(a));
    let is_last = |&&rank: &&u64| {
        let is_last = left <= measure(rank);
        left = left.saturating_sub(measure(rank));
        is_last
    };
    *scratch.iter().find(is_last).expect("ranks that measure enough")
}

//! An output drawn from a row of logits, in integers: the same one on every device.
//!
//! A logit weighs exp((logit − largest) / temperature), in units of 2⁻⁴⁰. Sums of weights are then exact, so it does not matter in
//! which order or by how many threads they are added up, and all devices compute a weight by the same operations.

/// What to draw one row's output by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Draw {
    /// Where the draw falls among the weights that are left, in units of 2⁻⁶⁴ of their sum.
    pub at: u64,
    /// Divides the logits; 0 takes the largest, the lowest of equals.
    pub temperature: f32,
    /// Keeps the largest k, of equals the lower outputs; at least 1.
    pub top_k: u32,
    /// Keeps the fewest of these, from the largest on, whose weights reach this share of their sum.
    pub top_p: f32,
    /// Keeps those with at least this share of the largest's weight.
    pub min_p: f32,
    /// Where this row's changes begin among those of all rows.
    pub first_change: u32,
    /// How many they are.
    pub changes: u32,
}

impl Default for Draw {
    /// By the logits as they are, all of them, from the lowest output on.
    fn default() -> Self {
        let (at, temperature, top_k, top_p, min_p) = (0, 1.0, u32::MAX, 1.0, 0.0);
        Self { at, temperature, top_k, top_p, min_p, first_change: 0, changes: 0 }
    }
}

/// A change of one logit before the draw: `bias` is added, what is positive then is divided by `repetition` and what is not is
/// multiplied by it, and `penalty` is subtracted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogitChange {
    /// Which output; none is there twice in a row.
    pub output: u32,
    /// Added.
    pub bias: f32,
    /// A divisor or factor; 1 changes nothing.
    pub repetition: f32,
    /// Subtracted.
    pub penalty: f32,
}

/// Draws of several rows.
#[derive(Debug, Clone, Copy)]
pub struct Draws<'a> {
    /// One per row.
    pub rows: &'a [Draw],
    /// Of all rows.
    pub changes: &'a [LogitChange],
}

impl<'a> Draws<'a> {
    /// A row's changes.
    pub(crate) fn changes_of(&self, row: usize) -> &'a [LogitChange] {
        let Draw { first_change, changes, .. } = self.rows[row];
        &self.changes[first_change as usize..][..changes as usize]
    }
}

/// The weight of the largest logit.
pub(crate) const ONE: u64 = 1 << 40;

/// Outputs of a row at most, so that sums of weights do not overflow.
pub(crate) const MOST_OUTPUTS: usize = 1 << 23;

impl Draw {
    /// The share that top-p keeps in units of 2⁻⁶⁴; zero for all.
    pub(crate) fn top_p_units(&self) -> u64 {
        if self.top_p < 1.0 { units(self.top_p).max(1) as u64 } else { 0 }
    }

    /// How much weight the largest logits must have of `total` to be all that top-p keeps.
    pub(crate) fn mass(&self, total: u64) -> u64 {
        match self.top_p_units() {
            0 => total,
            units => share(units.into(), total).max(1),
        }
    }

    /// The least weight that min-p keeps.
    pub(crate) fn least_weight(&self) -> u64 {
        share(units(self.min_p), ONE)
    }

    /// Where the draw falls among weights of this sum.
    pub(crate) fn target(&self, total: u64) -> u64 {
        ((u128::from(self.at) * u128::from(total)) >> 64) as u64
    }
}

impl LogitChange {
    pub(crate) fn apply(&self, logits: &mut [f32]) {
        let logit = &mut logits[self.output as usize];
        *logit += self.bias;
        *logit = if *logit > 0.0 { *logit / self.repetition } else { *logit * self.repetition };
        *logit -= self.penalty;
    }
}

/// A share of `whole`, rounded up; it is in units of 2⁻⁶⁴, of which there are 2⁶⁴ at most.
fn share(units: u128, whole: u64) -> u64 {
    (units * u128::from(whole)).div_ceil(1 << 64) as u64
}

/// A share in units of 2⁻⁶⁴, rounded up where it is below 2⁻⁴¹; it is in 0..=1.
fn units(share: f32) -> u128 {
    (f64::from(share) * 2f64.powi(64)).ceil() as u128
}

/// A number that is larger for a larger logit, least for NaN, and the same for both zeros.
#[inline(always)]
pub(crate) fn key(logit: f32) -> u32 {
    let bits = (logit + 0.0).to_bits();
    let ordered = if bits >> 31 == 0 { bits | 1 << 31 } else { !bits };
    if logit.is_nan() { 0 } else { ordered }
}

/// Weights of a row's logits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weights {
    largest: f32,
    temperature: f64,
    largest_scaled: f64,
}

impl Weights {
    /// Of logits up to `largest`, at a temperature above zero.
    pub(crate) fn new(largest: f32, temperature: f32) -> Self {
        let temperature = f64::from(temperature);
        Self { largest, temperature, largest_scaled: f64::from(largest) / temperature }
    }

    /// The weight of a logit, at most [`ONE`]; none of a NaN.
    ///
    /// Every operation rounds as IEEE 754 says, and `draw.cu` has the same ones.
    #[inline(always)]
    pub(crate) fn of(&self, logit: f32) -> u64 {
        /// Adding it rounds to an integer, in the low bits.
        const ROUND: f64 = 6_755_399_441_055_744.0; // 1.5 · 2⁵²
        const LN_2_HIGH: f64 = 0.693_147_180_369_123_8;
        const LN_2_LOW: f64 = 1.908_214_929_270_587_7e-10;
        /// exp(x) rounds to nothing below.
        const LEAST: f64 = -29.0;
        if logit == self.largest {
            return ONE;
        }
        let x = f64::from(logit) / self.temperature - self.largest_scaled;
        let rounded = x.mul_add(std::f64::consts::LOG2_E, ROUND);
        let n = rounded - ROUND;
        let r = n.mul_add(-LN_2_LOW, n.mul_add(-LN_2_HIGH, x));
        let exp = EXP_TERMS.iter().fold(0.0, |sum: f64, term| sum.mul_add(r, *term));
        // 2⁴⁰⁺ⁿ: n is an integer from −42 to 0.
        let exponent = rounded.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(1023 + 40);
        let scale = f64::from_bits(exponent << 52);
        let weight = exp.mul_add(scale, ROUND).to_bits().wrapping_sub(ROUND.to_bits());
        if x >= LEAST { weight } else { 0 }
    }
}

/// 1 / n!, from n = 11 to 0.
const EXP_TERMS: [f64; 12] = [
    1.0 / 39_916_800.0,
    1.0 / 3_628_800.0,
    1.0 / 362_880.0,
    1.0 / 40_320.0,
    1.0 / 5_040.0,
    1.0 / 720.0,
    1.0 / 120.0,
    1.0 / 24.0,
    1.0 / 6.0,
    1.0 / 2.0,
    1.0,
    1.0,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_is_the_exponential_to_the_last_unit_but_one() {
        for temperature in [0.3, 1.0, 1.7] {
            let weights = Weights::new(3.0, temperature);
            for i in 0..20_000 {
                let logit = 3.0 - i as f32 * 0.0015;
                let exact = ((f64::from(logit) - 3.0) / f64::from(temperature)).exp() * ONE as f64;
                assert!((weights.of(logit) as f64 - exact).abs() <= 0.6, "{logit} at {temperature}");
            }
        }
    }

    #[test]
    fn weights_of_strange_logits() {
        let weights = Weights::new(2.0, 1.0);
        assert_eq!([2.0, f32::NAN, f32::NEG_INFINITY, -1e30].map(|x| weights.of(x)), [ONE, 0, 0, 0]);
        let weights = Weights::new(f32::INFINITY, 1.0);
        assert_eq!([f32::INFINITY, 0.0].map(|x| weights.of(x)), [ONE, 0]);
        // Where one unit of the temperature is more than all of them.
        assert_eq!(Weights::new(1.0, f32::MIN_POSITIVE).of(0.999), 0);
    }

    #[test]
    fn shares_are_rounded_up() {
        assert_eq!([0.0, 1e-30, 0.5, 1.0].map(|of| share(units(of), 7)), [0, 1, 4, 7]);
        assert_eq!(share(units(1.0), u64::MAX), u64::MAX);
    }
}

//! Depth policies: how many core iterations a position gets.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Completed core iterations of one position.
pub type Depth = u32;

/// How many core iterations the positions of one request get.
///
/// As JSON: `{"fixed": 8}` or `{"adaptive": {"criterion": "latent-diff", "threshold": 0.03, "min": 1, "max": 32,
/// "every": 1}}`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DepthPolicy {
    /// Every position gets this many.
    Fixed(Depth),
    /// A generated position stops by a criterion; prompt positions get `max`.
    Adaptive(AdaptiveDepth),
}

impl DepthPolicy {
    /// Most iterations a position can get; what prompt positions always get.
    pub fn max(&self) -> Depth {
        match self {
            Self::Fixed(depth) => *depth,
            Self::Adaptive(adaptive) => adaptive.max,
        }
    }

    /// Checks the policy's own numbers and that no position can go deeper than `max_depth`.
    pub fn validate(&self, max_depth: Depth) -> Result<(), DepthError> {
        if self.max() < 1 || self.max() > max_depth {
            return Err(DepthError::Max { max: self.max(), max_depth });
        }
        let Self::Adaptive(AdaptiveDepth { criterion, threshold, min, max, every }) = *self else {
            return Ok(());
        };
        if !threshold.is_finite() || threshold <= 0.0 {
            return Err(DepthError::Threshold { criterion, threshold });
        }
        if min < 1 || min > max {
            return Err(DepthError::Min { min, max });
        }
        if every < 1 {
            return Err(DepthError::Every);
        }
        Ok(())
    }
}

/// Stops a position when a value compared after every n-th iteration passes its threshold.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdaptiveDepth {
    /// What is compared.
    pub criterion: Criterion,
    /// Stop below this value; for `argmax-stability`, at or above it.
    pub threshold: f64,
    /// Fewest iterations.
    #[serde(default = "one")]
    pub min: Depth,
    /// Most iterations.
    pub max: Depth,
    /// Iterations from one check to the next.
    #[serde(default = "one")]
    pub every: Depth,
}

fn one() -> Depth {
    1
}

/// When a position may stop (arXiv 2502.05171, section 6, and its reference implementation).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Criterion {
    /// ‖s_i − s_{i−1}‖ / ‖s_i‖.
    LatentDiff,
    /// 1 − cos(s_i, s_{i−1}).
    Cosine,
    /// Σ p_{i−1} (log p_{i−1} − log p_i), first against the uniform distribution.
    Kl,
    /// The same after every p below a tenth of the largest became 1/V and the row was renormalised.
    MinpKl,
    /// |H(p_i) − H(p_{i−1})|, first against 100.
    EntropyDiff,
    /// Consecutive checks with the same most likely token.
    ArgmaxStability,
}

impl Criterion {
    /// All criteria.
    pub const ALL: [Self; 6] =
        [Self::LatentDiff, Self::Cosine, Self::Kl, Self::MinpKl, Self::EntropyDiff, Self::ArgmaxStability];

    /// The name in requests and configs.
    pub fn name(self) -> &'static str {
        match self {
            Self::LatentDiff => "latent-diff",
            Self::Cosine => "cosine",
            Self::Kl => "kl",
            Self::MinpKl => "minp-kl",
            Self::EntropyDiff => "entropy-diff",
            Self::ArgmaxStability => "argmax-stability",
        }
    }

    /// The threshold where a request names none.
    pub fn default_threshold(self) -> f64 {
        match self {
            Self::LatentDiff => 0.03,
            Self::Cosine | Self::EntropyDiff => 1e-3,
            Self::Kl => 5e-4,
            Self::MinpKl => 1e-5,
            Self::ArgmaxStability => 5.0,
        }
    }

    /// Whether a check needs logits (coda and head), not the latent alone.
    pub fn needs_logits(self) -> bool {
        !matches!(self, Self::LatentDiff | Self::Cosine)
    }

    /// Whether a position with this value stops.
    pub fn is_met(self, value: f64, threshold: f64) -> bool {
        match self {
            Self::ArgmaxStability => value >= threshold,
            _ => value < threshold,
        }
    }
}

impl fmt::Display for Criterion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Criterion {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|criterion| criterion.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("unknown exit criterion '{name}': use one of {names}")
        })
    }
}

/// A depth policy that cannot be run.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum DepthError {
    #[error("{max} is out of range: use 1 to {max_depth}")]
    Max { max: Depth, max_depth: Depth },
    #[error("{min} is out of range: use 1 to max, which is {max}")]
    Min { min: Depth, max: Depth },
    #[error("{threshold} is out of range: use a finite number above 0 (default for {criterion}: {})", criterion.default_threshold())]
    Threshold { criterion: Criterion, threshold: f64 },
    #[error("0 is out of range: use at least 1")]
    Every,
}

impl DepthError {
    /// The field at fault, as a request names it.
    pub fn field(&self) -> &'static str {
        match self {
            Self::Max { .. } => "depth",
            Self::Min { .. } => "depth.adaptive.min",
            Self::Threshold { .. } => "depth.adaptive.threshold",
            Self::Every => "depth.adaptive.every",
        }
    }
}

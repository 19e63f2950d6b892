//! Depth and K/V policies in a line of JSON, as in requests over HTTP.

use serde::Deserialize;
use windlass_proto::v1::{
    AdaptiveDepth, DepthPolicy, ExitCriterion, FullKv, KvPolicy, depth_policy, kv_policy,
};

/// `{"fixed": 8}` or `{"adaptive": {…}}`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Depth {
    Fixed(u32),
    Adaptive(Adaptive),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Adaptive {
    criterion: Criterion,
    threshold: Option<f64>,
    min: Option<u32>,
    max: Option<u32>,
    every: Option<u32>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Criterion {
    LatentDiff,
    Cosine,
    Kl,
    MinpKl,
    EntropyDiff,
    ArgmaxStability,
}

/// `"full"`, `{"ring": 4}` or `{"anchor": 4}`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kv {
    Full,
    Ring(u32),
    Anchor(u32),
}

impl From<Depth> for DepthPolicy {
    fn from(depth: Depth) -> Self {
        let policy = match depth {
            Depth::Fixed(depth) => depth_policy::Policy::Fixed(depth),
            Depth::Adaptive(Adaptive { criterion, threshold, min, max, every }) => {
                let criterion = ExitCriterion::from(criterion).into();
                depth_policy::Policy::Adaptive(AdaptiveDepth { criterion, threshold, min, max, every })
            }
        };
        Self { policy: Some(policy) }
    }
}

impl From<Criterion> for ExitCriterion {
    fn from(criterion: Criterion) -> Self {
        match criterion {
            Criterion::LatentDiff => Self::LatentDiff,
            Criterion::Cosine => Self::Cosine,
            Criterion::Kl => Self::Kl,
            Criterion::MinpKl => Self::MinpKl,
            Criterion::EntropyDiff => Self::EntropyDiff,
            Criterion::ArgmaxStability => Self::ArgmaxStability,
        }
    }
}

impl From<Kv> for KvPolicy {
    fn from(kv: Kv) -> Self {
        let policy = match kv {
            Kv::Full => kv_policy::Policy::Full(FullKv {}),
            Kv::Ring(slots) => kv_policy::Policy::Ring(slots),
            Kv::Anchor(slots) => kv_policy::Policy::Anchor(slots),
        };
        Self { policy: Some(policy) }
    }
}

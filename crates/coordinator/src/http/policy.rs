//! The JSON of depth and K/V policies.

use std::fmt;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use windlass_proto::v1::{
    AdaptiveDepth, DepthPolicy, ExitCriterion, FullKv, KvPolicy, depth_policy, kv_policy,
};

use super::error::ApiError;
use super::strict::{Object, Shape};

/// `{"fixed": 8}` or `{"adaptive": {…}}`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Depth {
    fixed: Option<u32>,
    adaptive: Option<Object<Adaptive>>,
}

impl Shape for Depth {
    const SHAPE: &'static str = "an object with exactly one of fixed and adaptive";
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Adaptive {
    criterion: Criterion,
    threshold: Option<f64>,
    min: Option<u32>,
    max: Option<u32>,
    every: Option<u32>,
}

impl Shape for Adaptive {
    const SHAPE: &'static str = "an object with a criterion";
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

impl Depth {
    pub(super) fn policy(self) -> Result<DepthPolicy, ApiError> {
        let policy = match (self.fixed, self.adaptive) {
            (Some(depth), None) => depth_policy::Policy::Fixed(depth),
            (None, Some(Object(adaptive))) => depth_policy::Policy::Adaptive(AdaptiveDepth {
                criterion: adaptive.criterion.exit_criterion().into(),
                threshold: adaptive.threshold,
                min: adaptive.min,
                max: adaptive.max,
                every: adaptive.every,
            }),
            _ => return Err(ApiError::invalid("depth", "depth: use exactly one of fixed and adaptive")),
        };
        Ok(DepthPolicy { policy: Some(policy) })
    }
}

impl Criterion {
    fn exit_criterion(self) -> ExitCriterion {
        match self {
            Self::LatentDiff => ExitCriterion::LatentDiff,
            Self::Cosine => ExitCriterion::Cosine,
            Self::Kl => ExitCriterion::Kl,
            Self::MinpKl => ExitCriterion::MinpKl,
            Self::EntropyDiff => ExitCriterion::EntropyDiff,
            Self::ArgmaxStability => ExitCriterion::ArgmaxStability,
        }
    }
}

/// `"full"`, `{"ring": 4}` or `{"anchor": 4}`.
#[derive(Debug)]
pub(super) enum Kv {
    Full,
    Slots(KvSlots),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KvSlots {
    ring: Option<u32>,
    anchor: Option<u32>,
}

const KV_SHAPE: &str = "\"full\", {\"ring\": k} or {\"anchor\": a}";

impl Kv {
    pub(super) fn policy(self) -> Result<KvPolicy, ApiError> {
        let policy = match self {
            Self::Full => kv_policy::Policy::Full(FullKv {}),
            Self::Slots(KvSlots { ring: Some(slots), anchor: None }) => kv_policy::Policy::Ring(slots),
            Self::Slots(KvSlots { ring: None, anchor: Some(slots) }) => kv_policy::Policy::Anchor(slots),
            Self::Slots(_) => {
                return Err(ApiError::invalid("kv", "kv: use exactly one of ring and anchor, or \"full\""));
            }
        };
        Ok(KvPolicy { policy: Some(policy) })
    }
}

impl<'de> Deserialize<'de> for Kv {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(KvVisitor)
    }
}

struct KvVisitor;

impl<'de> Visitor<'de> for KvVisitor {
    type Value = Kv;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(KV_SHAPE)
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Kv, E> {
        match name {
            "full" => Ok(Kv::Full),
            _ => Err(E::invalid_value(serde::de::Unexpected::Str(name), &self)),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Kv, A::Error> {
        KvSlots::deserialize(MapAccessDeserializer::new(map)).map(Kv::Slots)
    }
}

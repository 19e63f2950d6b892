//! Efforts: the named depth policies of a model.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::config::{GENERATION_FILE, ModelConfig, from_json};
use crate::depth::{AdaptiveDepth, Criterion, Depth, DepthPolicy};
use crate::error::ConfigError;

/// Deepest `max_depth` a model may ask for.
const DEEPEST: Depth = 4096;

/// Named depth policies, read from the key `windlass` of `generation_config.json`:
///
/// ```json
/// {"windlass": {
///   "default_effort": "medium",
///   "max_depth": 64,
///   "efforts": {"medium": {"adaptive": {"criterion": "latent-diff", "threshold": 0.03, "max": 16}}}
/// }}
/// ```
///
/// A folder without that key gets, for a model trained at mean recurrence r: `low`, `medium` and `high`, which
/// stop by `latent-diff` 0.03 after at most r/2, r and 2r iterations; `medium` is the default, and nothing runs
/// deeper than 4r.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Efforts {
    /// Name of the effort of a request that names neither an effort nor a depth.
    #[serde(rename = "default_effort")]
    pub default: String,
    /// Deepest policy accepted from anyone.
    pub max_depth: Depth,
    /// The policies.
    #[serde(rename = "efforts")]
    pub by_name: BTreeMap<String, DepthPolicy>,
}

#[derive(Deserialize)]
struct GenerationFile {
    windlass: Option<Efforts>,
}

impl Efforts {
    /// Reads the contents of `generation_config.json`, if the folder has one, and checks every policy.
    pub fn parse(generation: Option<&[u8]>, config: &ModelConfig) -> Result<Self, ConfigError> {
        let file: Option<GenerationFile> =
            generation.map(|bytes| from_json(GENERATION_FILE, bytes)).transpose()?;
        let efforts =
            file.and_then(|file| file.windlass).unwrap_or_else(|| Self::around(config.mean_recurrence));
        efforts.validate()?;
        Ok(efforts)
    }

    /// Names and policies, the shallowest first.
    pub fn by_depth(&self) -> Vec<(&str, DepthPolicy)> {
        let mut efforts: Vec<_> =
            self.by_name.iter().map(|(name, policy)| (name.as_str(), *policy)).collect();
        efforts.sort_by_key(|(_, policy)| policy.max());
        efforts
    }

    /// The names as one text, the shallowest first.
    pub fn names(&self) -> String {
        self.by_depth().into_iter().map(|(name, _)| name).collect::<Vec<_>>().join(", ")
    }

    /// The default effort's policy.
    pub fn default_policy(&self) -> DepthPolicy {
        self.by_name[&self.default]
    }

    fn around(mean: Depth) -> Self {
        let stopping_by = |max| {
            let criterion = Criterion::LatentDiff;
            let threshold = criterion.default_threshold();
            DepthPolicy::Adaptive(AdaptiveDepth { criterion, threshold, min: 1, max, every: 1 })
        };
        let policies = [("low", (mean / 2).max(1)), ("medium", mean), ("high", (2 * mean).min(DEEPEST))];
        Self {
            default: "medium".to_owned(),
            max_depth: (4 * mean).min(DEEPEST),
            by_name: policies.map(|(name, max)| (name.to_owned(), stopping_by(max))).into(),
        }
    }

    fn validate(&self) -> Result<(), ConfigError> {
        if self.max_depth < 1 || self.max_depth > DEEPEST {
            return Err(wrong("max_depth", &self.max_depth, format!("must be from 1 to {DEEPEST}")));
        }
        if !self.by_name.contains_key(&self.default) {
            let remedy = format!("must be one of the efforts: {}", self.names());
            return Err(wrong("default_effort", &format!("'{}'", self.default), remedy));
        }
        for (name, policy) in &self.by_name {
            policy
                .validate(self.max_depth)
                .map_err(|source| ConfigError::Effort { effort: name.clone(), source })?;
        }
        Ok(())
    }
}

fn wrong(field: &str, value: &impl ToString, remedy: String) -> ConfigError {
    ConfigError::Value {
        file: GENERATION_FILE,
        field: format!("windlass.{field}"),
        value: value.to_string(),
        remedy,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folder::ModelFolder;

    fn parse(windlass: &str) -> Result<Efforts, ConfigError> {
        let config = ModelFolder::demo().config().unwrap();
        Efforts::parse(Some(format!(r#"{{"eos_token_id": 2, "windlass": {windlass}}}"#).as_bytes()), &config)
    }

    fn depths(efforts: &Efforts) -> Vec<(&str, Depth)> {
        efforts.by_depth().into_iter().map(|(name, policy)| (name, policy.max())).collect()
    }

    #[test]
    fn the_demo_brings_its_own_efforts() {
        let demo = ModelFolder::demo();
        let efforts = demo.efforts(&demo.config().unwrap()).unwrap();
        assert_eq!(depths(&efforts), [("low", 8), ("medium", 16), ("high", 32)]);
        assert_eq!((efforts.max_depth, efforts.default_policy().max()), (64, 16));
    }

    #[test]
    fn a_folder_without_efforts_gets_them_around_the_trained_depth() {
        let config = ModelConfig { mean_recurrence: 1, ..ModelFolder::demo().config().unwrap() };
        let efforts = Efforts::parse(None, &config).unwrap();
        assert_eq!(depths(&efforts), [("low", 1), ("medium", 1), ("high", 2)]);
        assert_eq!(efforts.max_depth, 4);
        let deep = ModelConfig { mean_recurrence: 3000, ..config };
        let efforts = Efforts::parse(None, &deep).unwrap();
        assert_eq!(depths(&efforts), [("low", 1500), ("medium", 3000), ("high", 4096)]);
        assert_eq!(efforts.max_depth, 4096);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let cases = [
            (
                r#"{"default_effort": "x", "max_depth": 4, "efforts": {"low": {"fixed": 2}}}"#,
                "windlass.default_effort is 'x'",
            ),
            (
                r#"{"default_effort": "low", "max_depth": 0, "efforts": {"low": {"fixed": 2}}}"#,
                "windlass.max_depth is 0",
            ),
            (
                r#"{"default_effort": "low", "max_depth": 4, "efforts": {"low": {"fixed": 5}}}"#,
                "windlass.efforts.low: 5 is out of range",
            ),
            (
                r#"{"default_effort": "low", "max_depth": 4, "efforts": {"low": {"fixed": 2}}, "x": 1}"#,
                "unknown field 'x'",
            ),
            (
                r#"{"default_effort": "low", "max_depth": 4, "efforts": {"low": {"slow": 2}}}"#,
                "'slow' is unknown: use one of fixed, adaptive",
            ),
        ];
        for (windlass, expected) in cases {
            let message = parse(windlass).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}

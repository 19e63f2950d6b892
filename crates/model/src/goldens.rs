//! Recorded runs of the reference implementation, and how close to them a run must be.
//!
//! For tests: everything here panics on a folder it cannot read. A folder of goldens is a model folder with
//! `cases.json` and `expected.safetensors` beside the model's own files. All cases start from the zero state.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use serde::Deserialize;

use crate::depth::{AdaptiveDepth, Criterion, Depth, DepthPolicy};
use crate::exit::argmax;
use crate::folder::ModelFolder;
use crate::kv::KvPolicy;
use crate::oracle::{OracleRequest, OracleToken};

/// Largest difference of logits, relative to the row's largest magnitude.
pub const LOGITS_TOLERANCE: f32 = 1e-4;
/// Below this lead of the most likely token, another may be taken.
pub const MARGIN: f32 = 1e-3;
/// Relative distance from the threshold within which a position may stop at another depth.
pub const THRESHOLD_TOLERANCE: f64 = 1e-3;

/// A model with recorded runs.
pub struct Goldens {
    /// The model.
    pub model: ModelFolder,
    /// The recorded generations.
    pub cases: Vec<GoldenCase>,
    expected: HashMap<String, Tensor>,
}

/// One recorded generation.
#[derive(Debug, Clone)]
pub struct GoldenCase {
    /// What to call it in a message.
    pub name: String,
    /// The prompt.
    pub prompt: Vec<u32>,
    /// The K/V policy it ran under.
    pub kv: KvPolicy,
    /// The depth policy it ran under.
    pub depth: DepthPolicy,
    /// The most likely tokens, which the reference took.
    pub tokens: Vec<u32>,
    /// Iterations of the position each token was read from.
    pub depths: Vec<Depth>,
    /// The criterion's value at every check of that position.
    pub exit_values: Vec<Vec<f64>>,
    /// Name of the recorded logits, [tokens, vocabulary]; adaptive cases have none.
    pub logits: Option<String>,
}

#[derive(Deserialize)]
struct CasesFile {
    cases: Vec<RawCase>,
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum RawCase {
    Generate {
        key: String,
        prompt: Vec<u32>,
        kv: String,
        num_steps: Depth,
        tokens: Vec<u32>,
    },
    Adaptive {
        prompt: Vec<u32>,
        kv: String,
        criterion: Criterion,
        threshold: f64,
        max_steps: Depth,
        tokens: Vec<u32>,
        steps: Vec<Depth>,
        /// NaN is recorded as null.
        exit_values: Vec<Vec<Option<f64>>>,
    },
}

impl Goldens {
    /// Reads a folder of goldens.
    pub fn open(folder: &Path) -> Self {
        let model = ModelFolder::open(folder).expect("a model folder");
        let text = std::fs::read_to_string(folder.join("cases.json")).expect("cases.json");
        // The recorder wrote NaN, which JSON does not have.
        let file: CasesFile =
            serde_json::from_str(&text.replace("NaN", "null")).expect("cases of known kinds");
        let expected = candle_core::safetensors::load(folder.join("expected.safetensors"), &Device::Cpu);
        let cases = file.cases.into_iter().map(GoldenCase::from).collect();
        Self { model, cases, expected: expected.expect("expected.safetensors") }
    }

    /// A recorded tensor, flat.
    pub fn tensor(&self, name: &str) -> Vec<f32> {
        let tensor = &self.expected[name];
        let values = tensor.to_dtype(DType::F32).and_then(|tensor| tensor.flatten_all()?.to_vec1());
        values.expect("a tensor of numbers")
    }

    /// Recorded token ids.
    pub fn ids(&self, name: &str) -> Vec<u32> {
        self.tensor(name).into_iter().map(|id| id as u32).collect()
    }

    /// Holds a teacher-forced run's logits against the recorded ones, if the case has any.
    pub fn check_logits(&self, case: &GoldenCase, produced: &[OracleToken]) -> Result<(), String> {
        let Some(name) = &case.logits else { return Ok(()) };
        let produced: Vec<f32> = produced.iter().flat_map(|token| token.logits.iter().copied()).collect();
        close(&produced, &self.tensor(name), LOGITS_TOLERANCE).map_err(|error| format!("{name}: {error}"))
    }
}

impl GoldenCase {
    /// The case as a request, on the recorded tokens or running free.
    pub fn request(&self, teacher_forced: bool) -> OracleRequest {
        OracleRequest {
            prompt: self.prompt.clone(),
            max_tokens: self.tokens.len(),
            depth: self.depth,
            kv: self.kv,
            forced_tokens: teacher_forced.then(|| self.tokens.clone()),
        }
    }

    /// Holds tokens, depths and exit values of a run against the recorded ones, up to the first token where the
    /// two may rightly part: a narrow lead (a run without logits must not part) or a value at its threshold.
    /// Returns how many tokens agreed.
    pub fn compare(&self, produced: &[OracleToken]) -> Result<usize, String> {
        if produced.len() != self.tokens.len() {
            return Err(format!("{}: {} tokens instead of {}", self.name, produced.len(), self.tokens.len()));
        }
        for (t, token) in produced.iter().enumerate() {
            let context = |error| format!("{}: token {t}: {error}", self.name);
            if !self.same_depth(t, token).map_err(context)? {
                return Ok(t);
            }
            if token.token != self.tokens[t] {
                return match lead(&token.logits) {
                    Some(lead) if lead <= MARGIN => Ok(t),
                    lead => {
                        Err(context(format!("{} instead of {}, lead {lead:?}", token.token, self.tokens[t])))
                    }
                };
            }
        }
        Ok(produced.len())
    }

    /// Whether token t stopped where it was recorded; an error where it should have.
    fn same_depth(&self, t: usize, token: &OracleToken) -> Result<bool, String> {
        let recorded = &self.exit_values[t];
        for (&value, &expected) in token.exit_values.iter().zip(recorded) {
            if !same_value(value, expected) {
                return Err(format!("exit values {:?} instead of {recorded:?}", token.exit_values));
            }
        }
        if token.depth == self.depths[t] {
            return if token.exit_values.len() == recorded.len() {
                Ok(true)
            } else {
                Err(format!("{} checks instead of {}", token.exit_values.len(), recorded.len()))
            };
        }
        let last_common = token.exit_values.len().min(recorded.len()).checked_sub(1);
        match (self.depth, last_common) {
            (DepthPolicy::Adaptive(AdaptiveDepth { threshold, .. }), Some(last))
                if (recorded[last] - threshold).abs() <= THRESHOLD_TOLERANCE * threshold =>
            {
                Ok(false)
            }
            _ => Err(format!("depth {} instead of {}", token.depth, self.depths[t])),
        }
    }
}

impl From<RawCase> for GoldenCase {
    fn from(raw: RawCase) -> Self {
        match raw {
            RawCase::Generate { key, prompt, kv, num_steps, tokens } => Self {
                name: key.clone(),
                prompt,
                kv: kv_policy(&kv),
                depth: DepthPolicy::Fixed(num_steps),
                depths: vec![num_steps; tokens.len()],
                exit_values: vec![Vec::new(); tokens.len()],
                tokens,
                logits: Some(format!("{key}.logits")),
            },
            RawCase::Adaptive { prompt, kv, criterion, threshold, max_steps, tokens, steps, exit_values } => {
                let depth = AdaptiveDepth { criterion, threshold, min: 1, max: max_steps, every: 1 };
                let restore =
                    |values: Vec<Option<f64>>| values.into_iter().map(|v| v.unwrap_or(f64::NAN)).collect();
                Self {
                    name: format!("adaptive.{criterion}.{threshold}.{kv}.prompt{}", prompt.len()),
                    prompt,
                    kv: kv_policy(&kv),
                    depth: DepthPolicy::Adaptive(depth),
                    tokens,
                    depths: steps,
                    exit_values: exit_values.into_iter().map(restore).collect(),
                    logits: None,
                }
            }
        }
    }
}

/// The reference's name for a K/V policy; its ring counts the four core layers of every slot.
fn kv_policy(name: &str) -> KvPolicy {
    match name.strip_prefix("latest-m4-compress-s") {
        Some(layer_steps) => KvPolicy::Ring(layer_steps.parse::<u32>().expect("a number of layer steps") / 4),
        None if name == "full" || name == "latest-m4" => KvPolicy::Full,
        None => panic!("unknown K/V policy {name}"),
    }
}

/// The most likely token's lead over the second, if there are logits.
fn lead(logits: &[f32]) -> Option<f32> {
    let best = (!logits.is_empty()).then(|| argmax(logits))?;
    let others = logits.iter().enumerate().filter(|&(token, _)| token != best).map(|(_, &logit)| logit);
    Some(logits[best] - others.fold(f32::NEG_INFINITY, f32::max))
}

/// The reference computes values in f32, where differences of large numbers lose digits.
fn same_value(value: f64, expected: f64) -> bool {
    (value.is_nan() && expected.is_nan()) || (value - expected).abs() <= 1e-3 * expected.abs() + 2e-5
}

/// Whether two tensors agree to `tolerance`, relative to the largest expected magnitude.
pub fn close(produced: &[f32], expected: &[f32], tolerance: f32) -> Result<(), String> {
    if produced.len() != expected.len() {
        return Err(format!("{} values instead of {}", produced.len(), expected.len()));
    }
    let largest = expected.iter().fold(0f32, |largest, x| largest.max(x.abs()));
    for (i, (p, e)) in produced.iter().zip(expected).enumerate() {
        let difference = (p - e).abs();
        if difference.is_nan() || difference > tolerance * largest {
            return Err(format!("value {i} is {p} instead of {e}, largest {largest}"));
        }
    }
    Ok(())
}

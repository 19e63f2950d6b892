//! Results as lines of JSON: what outputs consist of.

use serde::{Deserialize, Serialize};
use windlass_proto::v1::{FinishReason, ItemAnswer, ItemError, ItemResult, Usage, item_result};

use crate::error::JobsError;
use crate::record::Totals;

#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Line {
    Failed { index: u64, id: String, error: ErrorBody },
    Answered(AnsweredLine),
}

#[derive(Debug, Serialize, Deserialize)]
struct ErrorBody {
    code: String,
    message: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct AnsweredLine {
    index: u64,
    id: String,
    text: String,
    token_ids: Vec<u32>,
    depths: Vec<u32>,
    /// Null without tokens.
    mean_depth: Option<f64>,
    finish_reason: Finish,
    usage: UsageBody,
    seed: u64,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Finish {
    Stop,
    Length,
    Timeout,
}

/// As in answers over HTTP.
#[derive(Debug, Serialize, Deserialize)]
struct UsageBody {
    prompt_tokens: u32,
    completion_tokens: u32,
    total_tokens: u64,
    core_iterations: CoreIterations,
}

#[derive(Debug, Serialize, Deserialize)]
struct CoreIterations {
    prompt: u64,
    completion: u64,
    completion_limit: u64,
}

/// The line of a result, without an end of line.
pub fn result_line(result: &ItemResult) -> String {
    let ItemResult { index, id, outcome } = result;
    let (index, id) = (*index, id.clone());
    let line = match outcome.clone() {
        Some(item_result::Outcome::Answer(answer)) => Line::Answered(answered(index, id, answer)),
        Some(item_result::Outcome::Error(ItemError { code, message })) => {
            Line::Failed { index, id, error: ErrorBody { code, message } }
        }
        None => {
            let (code, message) = ("internal".to_owned(), "the result has no outcome".to_owned());
            Line::Failed { index, id, error: ErrorBody { code, message } }
        }
    };
    serde_json::to_string(&line).expect("numbers and texts are JSON")
}

/// The results of the lines that the object called `name` has.
pub(crate) fn parse_results(name: &str, lines: &[u8]) -> Result<Vec<ItemResult>, JobsError> {
    let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines
        .map(|line| serde_json::from_slice(line).map(result))
        .collect::<Result<_, _>>()
        .map_err(|error| JobsError::damaged(name, &error))
}

/// What a result adds to its job's totals.
pub(crate) fn totals(result: &ItemResult) -> Totals {
    match &result.outcome {
        Some(item_result::Outcome::Answer(answer)) => {
            let usage = answer.usage.unwrap_or_default();
            Totals {
                succeeded: 1,
                failed: 0,
                completion_tokens: usage.completion_tokens.into(),
                core_iterations: usage.completion_core_iterations,
            }
        }
        _ => Totals { failed: 1, ..Totals::default() },
    }
}

fn answered(index: u64, id: String, answer: ItemAnswer) -> AnsweredLine {
    let finish_reason = match answer.finish_reason() {
        FinishReason::Length => Finish::Length,
        FinishReason::Timeout => Finish::Timeout,
        FinishReason::Stop | FinishReason::Unspecified => Finish::Stop,
    };
    let ItemAnswer { text, token_ids, depths, usage, seed, .. } = answer;
    let usage = usage.unwrap_or_default();
    let sum: u64 = depths.iter().map(|depth| u64::from(*depth)).sum();
    AnsweredLine {
        index,
        id,
        text,
        token_ids,
        mean_depth: (!depths.is_empty()).then(|| sum as f64 / depths.len() as f64),
        depths,
        finish_reason,
        usage: UsageBody {
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            total_tokens: u64::from(usage.prompt_tokens) + u64::from(usage.completion_tokens),
            core_iterations: CoreIterations {
                prompt: usage.prompt_core_iterations,
                completion: usage.completion_core_iterations,
                completion_limit: usage.completion_core_iterations_limit,
            },
        },
        seed,
    }
}

fn result(line: Line) -> ItemResult {
    match line {
        Line::Failed { index, id, error: ErrorBody { code, message } } => {
            ItemResult { index, id, outcome: Some(item_result::Outcome::Error(ItemError { code, message })) }
        }
        Line::Answered(line) => {
            let reason = match line.finish_reason {
                Finish::Stop => FinishReason::Stop,
                Finish::Length => FinishReason::Length,
                Finish::Timeout => FinishReason::Timeout,
            };
            let usage = Usage {
                prompt_tokens: line.usage.prompt_tokens,
                completion_tokens: line.usage.completion_tokens,
                prompt_core_iterations: line.usage.core_iterations.prompt,
                completion_core_iterations: line.usage.core_iterations.completion,
                completion_core_iterations_limit: line.usage.core_iterations.completion_limit,
            };
            let AnsweredLine { index, id, text, token_ids, depths, seed, .. } = line;
            let usage = Some(usage);
            let answer = ItemAnswer { text, token_ids, depths, finish_reason: reason.into(), usage, seed };
            ItemResult { index, id, outcome: Some(item_result::Outcome::Answer(answer)) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_comes_back_from_its_line() {
        let usage = Usage {
            prompt_tokens: 3,
            completion_tokens: 2,
            completion_core_iterations: 12,
            ..Usage::default()
        };
        let answer = ItemAnswer {
            text: "a\n\"b\"".into(),
            token_ids: vec![5, 6],
            depths: vec![4, 8],
            finish_reason: FinishReason::Length.into(),
            usage: Some(usage),
            seed: u64::MAX,
        };
        let answered =
            ItemResult { index: 7, id: "x".into(), outcome: Some(item_result::Outcome::Answer(answer)) };
        let error = ItemError { code: "invalid_request".into(), message: "no".into() };
        let failed =
            ItemResult { index: 8, id: "8".into(), outcome: Some(item_result::Outcome::Error(error)) };
        let lines = format!("{}\n{}\n", result_line(&answered), result_line(&failed));
        assert!(lines.contains("\"mean_depth\":6.0"), "{lines}");
        assert_eq!(lines.lines().count(), 2);
        assert_eq!(parse_results("x", lines.as_bytes()).unwrap(), [answered.clone(), failed.clone()]);
        let sum = totals(&answered) + totals(&failed);
        assert_eq!((sum.succeeded, sum.failed, sum.completion_tokens, sum.core_iterations), (1, 1, 2, 12));
    }
}

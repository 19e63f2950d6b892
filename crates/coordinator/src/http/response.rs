//! The JSON of answers, as OpenAI's clients know it.

use serde::Serialize;
use windlass_proto::v1::Usage;

use super::logprobs::Logprobs;

/// Which endpoint's shapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Completion,
    Chat,
}

/// A whole answer, or one chunk of a streamed one.
#[derive(Debug, Serialize)]
pub(super) struct Answer<'a> {
    pub(super) id: &'a str,
    pub(super) object: &'static str,
    pub(super) created: u64,
    pub(super) model: &'a str,
    pub(super) system_fingerprint: &'static str,
    pub(super) choices: Vec<Choice>,
    /// The inner `None` is null: usage comes in another chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) usage: Option<Option<UsageBody>>,
}

#[derive(Debug, Serialize)]
pub(super) struct Choice {
    pub(super) index: usize,
    #[serde(flatten)]
    pub(super) content: Content,
    pub(super) logprobs: Option<Logprobs>,
    pub(super) finish_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) seed: Option<u64>,
    #[serde(flatten)]
    pub(super) extras: TokenExtras,
}

/// What was asked for of each token; all lists have one entry per token.
#[derive(Debug, Default, Serialize)]
pub(super) struct TokenExtras {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) depths: Option<Vec<u32>>,
    /// The criterion's value at every check of the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) exit_values: Option<Vec<Vec<f64>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) token_ids: Option<Vec<u32>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Content {
    Text(String),
    Message(Message),
    Delta(Delta),
}

#[derive(Debug, Serialize)]
pub(super) struct Message {
    pub(super) role: &'static str,
    pub(super) content: String,
    pub(super) refusal: Option<String>,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Delta {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) content: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct UsageBody {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
    completion_tokens_details: CompletionTokensDetails,
    core_iterations: CoreIterations,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct CompletionTokensDetails {
    /// Windlass' models think in latent space, not in tokens.
    reasoning_tokens: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct CoreIterations {
    prompt: u64,
    completion: u64,
    /// What the completion would have taken at its policy's maximum depth.
    completion_limit: u64,
}

impl UsageBody {
    /// The sum over choices; choices of one prompt follow each other, and their prompt's tokens count once.
    pub(super) fn sum(usages: &[Usage], choices_per_prompt: usize) -> Self {
        let sum = |field: fn(&Usage) -> u64| usages.iter().map(field).sum::<u64>();
        // A choice that has not begun says nothing yet.
        let of_prompt = |choices: &[Usage]| choices.iter().map(|usage| u64::from(usage.prompt_tokens)).max();
        let prompt_tokens = usages.chunks(choices_per_prompt).filter_map(of_prompt).sum();
        let completion_tokens = sum(|usage| usage.completion_tokens.into());
        Self {
            prompt_tokens,
            completion_tokens,
            total_tokens: prompt_tokens + completion_tokens,
            completion_tokens_details: CompletionTokensDetails { reasoning_tokens: 0 },
            core_iterations: CoreIterations {
                prompt: sum(|usage| usage.prompt_core_iterations),
                completion: sum(|usage| usage.completion_core_iterations),
                completion_limit: sum(|usage| usage.completion_core_iterations_limit),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_counts_once_for_all_its_choices() {
        let usage = |prompt_tokens, completion_tokens| Usage {
            prompt_tokens,
            completion_tokens,
            prompt_core_iterations: u64::from(prompt_tokens) * 4,
            ..Usage::default()
        };
        let sum = UsageBody::sum(&[usage(5, 1), usage(5, 2), usage(7, 3), usage(7, 4)], 2);
        assert_eq!((sum.prompt_tokens, sum.completion_tokens, sum.total_tokens), (12, 10, 22));
        let waiting = UsageBody::sum(&[Usage::default(), usage(5, 2)], 2);
        assert_eq!((waiting.prompt_tokens, waiting.completion_tokens), (5, 2));
        assert_eq!(sum.core_iterations.prompt, 96, "work was done for each choice");
    }
}

//! What is asked: short prompts, so that no two share a beginning that routing would know.

use windlass_proto::v1::{
    AdaptiveDepth, DepthPolicy, ExitCriterion, GenerationParameters, Sampling, depth_policy,
};

use super::clients::Request;

/// Core iterations of a token at a fixed depth, and the most at an adaptive one.
pub(super) const DEPTH: u32 = 16;
/// Positions of a prompt.
pub(super) const PROMPT: usize = 8;
/// Tokens with a text of one character.
const CHARACTERS: std::ops::Range<u32> = 5..15;

/// The request of this index: so many tokens at this fixed depth.
pub(super) fn fixed(index: usize, tokens: u32, depth: u32) -> Request {
    request(index, tokens, depth_policy::Policy::Fixed(depth))
}

/// The same, each token at a depth that is drawn for it, up to [`DEPTH`].
pub(super) fn adaptive(index: usize, tokens: u32) -> Request {
    let adaptive = AdaptiveDepth {
        criterion: ExitCriterion::LatentDiff.into(),
        max: Some(DEPTH),
        ..AdaptiveDepth::default()
    };
    request(index, tokens, depth_policy::Policy::Adaptive(adaptive))
}

fn request(index: usize, tokens: u32, policy: depth_policy::Policy) -> Request {
    let parameters = GenerationParameters {
        max_tokens: Some(tokens),
        depth: Some(DepthPolicy { policy: Some(policy) }),
        sampling: Some(Sampling { seed: Some(index as u64), ..Sampling::default() }),
        ignore_eos: true,
        ..GenerationParameters::default()
    };
    // The digits of the index.
    let digit = |place: usize| (index / 10_usize.pow(place as u32) % CHARACTERS.len()) as u32;
    Request { prompt: (0..PROMPT).map(|place| CHARACTERS.start + digit(place)).collect(), parameters }
}

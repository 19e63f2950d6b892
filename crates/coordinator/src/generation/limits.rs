//! Limits of what one request may ask for, the same for all fronts.

use windlass_proto::v1::GenerationParameters;

use super::GenerationError;
use crate::config::RequestLimits;

const STOP_STRINGS: usize = 16;
const STOP_BYTES: usize = 1024;
const STOP_TOKEN_IDS: usize = 1024;
const LOGIT_BIASES: usize = 1024;
const MESSAGES: usize = 4096;

/// Refuses a chat of too many messages.
pub(super) fn check_messages(count: usize) -> Result<(), GenerationError> {
    check("messages", "messages", count, MESSAGES)
}

/// Refuses a request with too much in it.
pub(super) fn check_request(
    limits: &RequestLimits,
    prompts: &[Vec<u32>],
    parameters: &GenerationParameters,
    stop: &[String],
) -> Result<(), GenerationError> {
    let longest = prompts.iter().map(Vec::len).max().unwrap_or_default();
    if let Some(limit) = limits.max_prompt_tokens.filter(|limit| longest > *limit as usize) {
        let message = format!("{longest} tokens exceed the server's limit of {limit}: send a shorter one");
        return Err(GenerationError::invalid("prompt", message));
    }
    check("stop", "stop strings", stop.len(), STOP_STRINGS)?;
    if let Some(long) = stop.iter().find(|stop| stop.len() > STOP_BYTES) {
        let message = format!("a stop string has {} bytes: use at most {STOP_BYTES}", long.len());
        return Err(GenerationError::invalid("stop", message));
    }
    check("stop_token_ids", "stop tokens", parameters.stop_token_ids.len(), STOP_TOKEN_IDS)?;
    let biases = parameters.sampling.as_ref().map_or(0, |sampling| sampling.logit_bias.len());
    check("logit_bias", "entries", biases, LOGIT_BIASES)
}

/// Refuses more choices of a prompt than are allowed.
pub(super) fn check_choices(limits: &RequestLimits, choices: u32) -> Result<(), GenerationError> {
    let max_n = limits.max_n;
    if (1..=max_n).contains(&choices) {
        return Ok(());
    }
    Err(GenerationError::invalid("n", format!("{choices} is out of range: use 1 to {max_n}")))
}

fn check(field: &str, what: &str, count: usize, limit: usize) -> Result<(), GenerationError> {
    if count <= limit {
        return Ok(());
    }
    Err(GenerationError::invalid(field, format!("{count} {what} are too many: use at most {limit}")))
}

#[cfg(test)]
mod tests {
    use windlass_proto::v1::Sampling;

    use super::*;

    fn message(prompt: usize, parameters: &GenerationParameters, stop: &[String]) -> String {
        let limits = RequestLimits { max_prompt_tokens: Some(8), ..RequestLimits::default() };
        check_request(&limits, &[vec![1; prompt]], parameters, stop)
            .map_or_else(|e| e.to_string(), |()| String::new())
    }

    #[test]
    fn what_is_too_much_is_refused_with_field_value_and_limit() {
        let none = GenerationParameters::default();
        assert_eq!(
            message(9, &none, &[]),
            "prompt: 9 tokens exceed the server's limit of 8: send a shorter one"
        );
        assert_eq!(message(8, &none, &[]), "");
        let stops = vec!["a".to_owned(); 17];
        assert_eq!(message(1, &none, &stops), "stop: 17 stop strings are too many: use at most 16");
        assert_eq!(message(1, &none, &stops[1..]), "");
        let long = ["a".repeat(1025)];
        assert_eq!(message(1, &none, &long), "stop: a stop string has 1025 bytes: use at most 1024");
        let tokens = GenerationParameters { stop_token_ids: vec![1; 1025], ..none.clone() };
        let expected = "stop_token_ids: 1025 stop tokens are too many: use at most 1024";
        assert_eq!(message(1, &tokens, &[]), expected);
        let sampling =
            Sampling { logit_bias: (0..1025).map(|id| (id, 0.5)).collect(), ..Sampling::default() };
        let biases = GenerationParameters { sampling: Some(sampling), ..none };
        assert_eq!(message(1, &biases, &[]), "logit_bias: 1025 entries are too many: use at most 1024");
        assert!(check_messages(4096).is_ok() && check_messages(4097).is_err());
        let limits = RequestLimits::default();
        assert!(check_choices(&limits, 16).is_ok());
        let error = check_choices(&limits, 17).unwrap_err().to_string();
        assert_eq!(error, "n: 17 is out of range: use 1 to 16");
    }
}

use std::fmt;

use super::GenerationError;
use crate::security::OverLimit;

/// How many answers one request asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sequences {
    prompts: u32,
    /// Answers to each prompt.
    choices: u32,
}

impl Sequences {
    pub(super) fn new(prompts: usize, choices: u32) -> Self {
        Self { prompts: u32::try_from(prompts).unwrap_or(u32::MAX), choices }
    }

    pub(super) fn count(self) -> u32 {
        self.prompts.saturating_mul(self.choices)
    }

    /// More than a limit allows; `limit` names it.
    pub(super) fn too_many(self, limit: &str) -> GenerationError {
        let field = if self.choices > 1 { "n" } else { "prompt" };
        GenerationError::invalid(field, format!("{self} exceed {limit}: ask for fewer at once"))
    }

    /// The limits of the caller's key do not allow them.
    pub(super) fn over_limit(self, over: OverLimit) -> GenerationError {
        match over {
            OverLimit::Later { message, retry_after } => GenerationError::Limited { message, retry_after },
            OverLimit::Never { limit } => self.too_many(&limit),
        }
    }
}

impl fmt::Display for Sequences {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { prompts, choices } = self;
        match (prompts, choices) {
            (prompts, 1) => write!(formatter, "{prompts} prompts"),
            (1, choices) => write!(formatter, "{choices} choices"),
            _ => write!(
                formatter,
                "{prompts} prompts with {choices} choices each ({} sequences)",
                self.count()
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_are_told_with_all_that_was_counted() {
        let told = |prompts, choices| Sequences::new(prompts, choices).too_many("the limit of 8").to_string();
        assert_eq!(told(9, 1), "prompt: 9 prompts exceed the limit of 8: ask for fewer at once");
        assert_eq!(told(1, 9), "n: 9 choices exceed the limit of 8: ask for fewer at once");
        let both =
            "n: 3 prompts with 4 choices each (12 sequences) exceed the limit of 8: ask for fewer at once";
        assert_eq!(told(3, 4), both);
    }
}

/// Why text could not be turned into tokens, or tokens into text.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// `tokenizer.json` cannot be used.
    #[error("tokenizer.json: {reason}")]
    Tokenizer {
        /// What is wrong with it.
        reason: String,
    },
    /// `tokenizer_config.json` cannot be used.
    #[error("tokenizer_config.json: {reason}")]
    Config {
        /// What is wrong with it.
        reason: String,
    },
    /// The messages do not suit the model's chat template.
    #[error("the chat template cannot render these messages: {reason}")]
    Template {
        /// What the template says.
        reason: String,
    },
    /// The text has no tokens in this vocabulary.
    #[error("the text cannot be tokenised: {reason}")]
    Encode {
        /// What is wrong with it.
        reason: String,
    },
    /// The tokens have no text.
    #[error("the tokens have no text: {reason}")]
    Decode {
        /// What the tokenizer says.
        reason: String,
    },
}

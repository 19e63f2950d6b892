//! Text on one side, token ids on the other: tokenizer, chat template and the text of a running generation.
//!
//! Independent of the network: the command line uses it for local generation too.

mod chat_template;
mod config;
mod error;
mod stream;
mod tokenizer;

pub use chat_template::{ChatMessage, ChatTemplate};
pub use config::TokenizerInfo;
pub use error::TextError;
pub use stream::{TextStep, TextStream};
pub use tokenizer::Tokenizer;

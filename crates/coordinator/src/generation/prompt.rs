use super::GenerationError;
use super::limits::check_messages;
use crate::registry::Model;
use crate::text::{ChatMessage, Tokenizer};

/// What to continue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Prompt {
    /// Tokenised with the model's special tokens.
    Text(String),
    TokenIds(Vec<u32>),
    /// Rendered with the model's chat template.
    Chat(Vec<ChatMessage>),
}

impl Prompt {
    /// A chat of these roles and contents, at least one; every role must be known.
    pub(crate) fn chat(turns: Vec<(String, String)>) -> Result<Self, GenerationError> {
        if turns.is_empty() {
            let message = "the list is missing or empty: send at least one message";
            return Err(GenerationError::invalid("messages", message));
        }
        check_messages(turns.len())?;
        let messages = turns.into_iter().enumerate().map(|(index, (role, content))| {
            let role = known_role(index, &role)?.to_owned();
            Ok(ChatMessage { role, content })
        });
        Ok(Self::Chat(messages.collect::<Result<_, GenerationError>>()?))
    }

    /// How much text is to be tokenised.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::TokenIds(_) => 0,
            Self::Chat(messages) => messages.iter().map(|message| message.content.len()).sum(),
        }
    }

    /// Its token ids. Takes a while where there is much text.
    pub(super) fn ids(self, model: &Model) -> Result<Vec<u32>, GenerationError> {
        match self {
            Self::Text(text) => Ok(tokenizer(model, "prompt")?.encode(&text, true)?),
            Self::TokenIds(ids) => Ok(ids),
            Self::Chat(messages) => {
                let tokenizer = tokenizer(model, "messages")?;
                let template = model.template.as_ref().ok_or_else(|| {
                    let name = &model.info.name;
                    let message = format!("model '{name}' has no chat template: send a text prompt instead");
                    GenerationError::invalid("messages", message)
                })?;
                Ok(tokenizer.encode(&template.render(&messages)?, false)?)
            }
        }
    }
}

fn tokenizer<'a>(model: &'a Model, field: &str) -> Result<&'a Tokenizer, GenerationError> {
    model.tokenizer.as_deref().ok_or_else(|| {
        let message = format!("model '{}' has no tokenizer: send the prompt as token ids", model.info.name);
        GenerationError::invalid(field, message)
    })
}

/// The role as templates know it.
fn known_role(index: usize, role: &str) -> Result<&str, GenerationError> {
    match role {
        "system" | "user" | "assistant" => Ok(role),
        // The newer name.
        "developer" => Ok("system"),
        _ => {
            let message = format!("'{role}' is not a role: use system, developer, user or assistant");
            Err(GenerationError::invalid(&format!("messages[{index}].role"), message))
        }
    }
}

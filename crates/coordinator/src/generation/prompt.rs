use super::GenerationError;
use super::limits::check_messages;
use crate::text::ChatMessage;

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

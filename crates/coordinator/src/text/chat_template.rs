use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, Value, context};

use super::TextError;
use super::config::{SpecialToken, TokenizerConfig};

const NAME: &str = "chat";

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatMessage {
    /// Who speaks, such as `system`, `user` or `assistant`.
    pub role: String,
    /// What is said.
    pub content: String,
}

/// A model's Jinja template, which turns messages into a prompt.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    bos_token: Option<String>,
    eos_token: Option<String>,
}

impl ChatTemplate {
    /// Compiles the template in the bytes of `tokenizer_config.json`; `None` where there is none.
    pub fn from_config(config_json: &[u8]) -> Result<Option<Self>, TextError> {
        let config = TokenizerConfig::read(config_json)?;
        let Some(templates) = &config.chat_template else {
            return Ok(None);
        };
        let source = templates.default_source()?.to_owned();
        let mut environment = environment()?;
        environment
            .add_template_owned(NAME, source)
            .map_err(|error| TextError::Config { reason: format!("chat_template: {error:#}") })?;
        let text = |token: &SpecialToken| token.text().to_owned();
        Ok(Some(Self {
            environment,
            bos_token: config.bos_token.as_ref().map(text),
            eos_token: config.eos_token.as_ref().map(text),
        }))
    }

    /// The prompt for these messages, up to where the assistant begins to speak.
    ///
    /// It holds the model's special tokens already: tokenise it without adding any.
    pub fn render(&self, messages: &[ChatMessage]) -> Result<String, TextError> {
        let failed = |error: Error| TextError::Template { reason: reason(&error) };
        let template = self.environment.get_template(NAME).map_err(failed)?;
        let message = |message: &ChatMessage| context! { role => &message.role, content => &message.content };
        let variables = context! {
            messages => messages.iter().map(message).collect::<Vec<_>>(),
            bos_token => &self.bos_token,
            eos_token => &self.eos_token,
            add_generation_prompt => true,
        };
        template.render(variables).map_err(failed)
    }
}

/// Jinja as the templates' authors expect it: blocks trimmed, Python's methods on values.
fn environment() -> Result<Environment<'static>, TextError> {
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    let mut environment = Environment::new();
    environment.set_syntax(syntax.map_err(|error| TextError::Config { reason: error.to_string() })?);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function("raise_exception", raise_exception);
    Ok(environment)
}

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

/// What the template raised, without the engine's own words around it.
fn reason(error: &Error) -> String {
    error.detail().map_or_else(|| error.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(role: &str, content: &str) -> ChatMessage {
        ChatMessage { role: role.into(), content: content.into() }
    }

    fn template(config: &serde_json::Value) -> ChatTemplate {
        ChatTemplate::from_config(config.to_string().as_bytes()).unwrap().unwrap()
    }

    #[test]
    fn the_template_sees_messages_special_tokens_and_the_generation_prompt() {
        let source = "{{ bos_token }}{% for m in messages %}{{ m['role'].upper() }}: {{ m.content | trim }}\n\
                      {% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}";
        let config = serde_json::json!({"bos_token": {"content": "<s>"}, "chat_template": source});
        let prompt = template(&config).render(&[message("user", " hello ")]).unwrap();
        assert_eq!(prompt, "<s>USER: hello\nASSISTANT:");
    }

    #[test]
    fn of_several_templates_the_default_one_is_taken() {
        let config = serde_json::json!({"chat_template": [
            {"name": "tool_use", "template": "tools"}, {"name": "default", "template": "plain"}]});
        assert_eq!(template(&config).render(&[]).unwrap(), "plain");
    }

    #[test]
    fn an_exception_raised_by_the_template_is_the_reason() {
        let config = serde_json::json!({"chat_template": "{{ raise_exception('no user turn') }}"});
        let error = template(&config).render(&[]).unwrap_err();
        assert_eq!(error.to_string(), "the chat template cannot render these messages: no user turn");
    }

    #[test]
    fn a_config_without_template_has_none() {
        assert!(ChatTemplate::from_config(b"").unwrap().is_none());
        assert!(ChatTemplate::from_config(b"{}").unwrap().is_none());
    }

    #[test]
    fn a_broken_template_is_refused_when_loaded() {
        let error = ChatTemplate::from_config(br#"{"chat_template": "{% if %}"}"#).unwrap_err();
        assert!(error.to_string().starts_with("tokenizer_config.json: chat_template: "), "{error}");
    }

    #[test]
    fn the_demo_template_renders_the_last_user_message() {
        let template =
            ChatTemplate::from_config(include_bytes!("../../../../models/demo/tokenizer_config.json"))
                .unwrap()
                .unwrap();
        let messages = [message("user", "1+1="), message("assistant", "2;"), message("user", "7+5-3*2=")];
        assert_eq!(template.render(&messages).unwrap(), "<|begin_text|>7+5-3*2=");
        assert!(template.render(&[message("system", "be brief")]).is_err());
    }
}

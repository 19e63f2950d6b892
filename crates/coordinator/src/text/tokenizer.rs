use std::collections::{HashMap, HashSet};

use windlass_wording::plain;

use super::TextError;
use super::config::{SpecialToken, TokenizerConfig};

/// A character that no vocabulary has.
const PRIVATE_CHARACTER: &str = "\u{10FFFD}";

/// A model's tokenizer.
#[derive(Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    spelling: Spelling,
    special: HashSet<u32>,
    /// Put before a text tokenised with special tokens, where `tokenizer.json` does not do so itself.
    missing_bos: Option<u32>,
    /// The vocabulary lacks characters and has no token that stands for them.
    lossy: bool,
}

/// How a vocabulary entry spells its bytes.
#[derive(Debug)]
enum Spelling {
    /// Each character stands for one byte.
    ByteLevel(HashMap<char, u8>),
    /// `▁` stands for a space, `<0x0A>` for a byte.
    Metaspace,
    /// As the decoder says.
    Plain,
}

impl Tokenizer {
    /// Reads the bytes of `tokenizer.json` and of `tokenizer_config.json` (which may be empty).
    pub fn new(tokenizer_json: &[u8], config_json: &[u8]) -> Result<Self, TextError> {
        let refused = |reason: String| TextError::Tokenizer { reason };
        let inner = tokenizers::Tokenizer::from_bytes(tokenizer_json)
            .map_err(|error| refused(plain(&error.to_string())))?;
        let config = TokenizerConfig::read(config_json)?;
        let special = inner
            .get_added_tokens_decoder()
            .into_iter()
            .filter_map(|(id, token)| token.special.then_some(id))
            .collect();
        let spelling = Spelling::of(&inner);
        let lossy = inner.get_normalizer().is_none() && !has_tokens(&inner, PRIVATE_CHARACTER);
        let mut tokenizer = Self { inner, spelling, special, missing_bos: None, lossy };
        if config.add_bos_token == Some(true) {
            tokenizer.missing_bos = tokenizer.missing_bos(config.bos_token.as_ref())?;
        }
        Ok(tokenizer)
    }

    /// Token ids of a text, with the model's special tokens around it if asked for.
    ///
    /// Special tokens spelled out in the text become themselves. A character that the vocabulary lacks is an error.
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>, TextError> {
        let encoding = self
            .inner
            .encode(text, add_special_tokens)
            .map_err(|error| TextError::Encode { reason: error.to_string() })?;
        if self.lossy {
            self.refuse_unknown(text, &encoding)?;
        }
        let bos = self.missing_bos.filter(|_| add_special_tokens);
        Ok(bos.into_iter().chain(encoding.get_ids().iter().copied()).collect())
    }

    /// The text of token ids; special tokens have none, nor have ids outside the vocabulary.
    pub fn decode(&self, ids: &[u32]) -> Result<String, TextError> {
        self.inner.decode(ids, true).map_err(|error| TextError::Decode { reason: error.to_string() })
    }

    /// The text of token ids, with special tokens by their names.
    pub fn decode_with_special(&self, ids: &[u32]) -> Result<String, TextError> {
        self.inner.decode(ids, false).map_err(|error| TextError::Decode { reason: error.to_string() })
    }

    /// The bytes one token stands for, wherever it is in a text; of a special token, its name.
    pub fn token_bytes(&self, id: u32) -> Vec<u8> {
        let Some(token) = self.inner.id_to_token(id) else {
            return Vec::new();
        };
        if self.special.contains(&id) {
            return token.into_bytes();
        }
        match &self.spelling {
            Spelling::ByteLevel(bytes) => {
                let spelled: Option<Vec<u8>> = token.chars().map(|c| bytes.get(&c).copied()).collect();
                spelled.unwrap_or_else(|| token.into_bytes())
            }
            Spelling::Metaspace => byte_token(&token)
                .map_or_else(|| token.replace('\u{2581}', " ").into_bytes(), |byte| vec![byte]),
            Spelling::Plain => self.inner.decode(&[id], false).unwrap_or(token).into_bytes(),
        }
    }

    /// The same as text, where a part of a character is U+FFFD.
    pub fn token_text(&self, id: u32) -> String {
        String::from_utf8_lossy(&self.token_bytes(id)).into_owned()
    }

    /// Whether a token is a special one, which has no text.
    pub fn is_special(&self, id: u32) -> bool {
        self.special.contains(&id)
    }

    /// Errs if a character outside the special tokens has no token: the library leaves such out silently.
    fn refuse_unknown(&self, text: &str, encoding: &tokenizers::Encoding) -> Result<(), TextError> {
        let mut plain = Vec::new();
        let mut start = 0;
        for (id, (from, to)) in encoding.get_ids().iter().zip(encoding.get_offsets()) {
            if self.special.contains(id) && from < to {
                plain.push(&text[start..*from]);
                start = *to;
            }
        }
        plain.push(&text[start..]);
        let mut seen = HashSet::new();
        let mut distinct = plain.into_iter().flat_map(str::chars).filter(|character| seen.insert(*character));
        let split_at_space = self.inner.get_pre_tokenizer().is_some();
        let known = |character: &char| {
            (split_at_space && character.is_whitespace()) || has_tokens(&self.inner, &character.to_string())
        };
        match distinct.find(|character| !known(character)) {
            None => Ok(()),
            Some(character) => {
                let reason = format!("character {character:?} is not in the model's vocabulary");
                Err(TextError::Encode { reason })
            }
        }
    }

    fn missing_bos(&self, bos: Option<&SpecialToken>) -> Result<Option<u32>, TextError> {
        let bos = bos.ok_or_else(|| TextError::Config {
            reason: "add_bos_token is true but bos_token is absent: name the token".into(),
        })?;
        let id = self.inner.token_to_id(bos.text()).ok_or_else(|| TextError::Config {
            reason: format!("bos_token '{}' is not in the vocabulary of tokenizer.json", bos.text()),
        })?;
        let added = self
            .inner
            .encode("", true)
            .map_err(|error| TextError::Tokenizer { reason: error.to_string() })?;
        Ok((added.get_ids().first() != Some(&id)).then_some(id))
    }
}

fn has_tokens(tokenizer: &tokenizers::Tokenizer, text: &str) -> bool {
    tokenizer.encode(text, false).is_ok_and(|encoding| !encoding.get_ids().is_empty())
}

impl Spelling {
    fn of(tokenizer: &tokenizers::Tokenizer) -> Self {
        let decoder = serde_json::to_string(&tokenizer.get_decoder()).unwrap_or_default();
        if decoder.contains("\"ByteLevel\"") {
            Self::ByteLevel(byte_characters())
        } else if decoder.contains('\u{2581}') {
            Self::Metaspace
        } else {
            Self::Plain
        }
    }
}

/// The characters by which byte-level vocabularies spell bytes: printable ones stand for themselves, the others
/// for the characters from U+0100 on.
fn byte_characters() -> HashMap<char, u8> {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let others = (0..=u8::MAX).filter(|byte| !printable(*byte));
    let shifted = ('\u{100}'..).zip(others);
    (0..=u8::MAX)
        .filter(|byte| printable(*byte))
        .map(|byte| (char::from(byte), byte))
        .chain(shifted)
        .collect()
}

fn byte_token(token: &str) -> Option<u8> {
    let hex = token.strip_prefix("<0x")?.strip_suffix('>')?;
    u8::from_str_radix(hex, 16).ok()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const DEMO: &[u8] = include_bytes!("../../../../models/demo/tokenizer.json");

    /// A tokenizer with one token per byte: id 0 to 255 is the byte, 256 is the special token `<s>`.
    pub(in crate::text) fn byte_level() -> Tokenizer {
        Tokenizer::new(byte_level_json().to_string().as_bytes(), b"").unwrap()
    }

    fn byte_level_json() -> serde_json::Value {
        let vocabulary: HashMap<String, u8> =
            byte_characters().into_iter().map(|(character, byte)| (character.to_string(), byte)).collect();
        serde_json::json!({
            "version": "1.0",
            "added_tokens": [{"id": 256, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true}],
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
            "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
            "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
        })
    }

    #[test]
    fn byte_level_tokens_are_their_bytes() {
        let tokenizer = byte_level();
        let ids = tokenizer.encode("a €\n", false).unwrap();
        assert_eq!(ids, "a €\n".bytes().map(u32::from).collect::<Vec<_>>());
        assert_eq!(
            (0..256).map(|id| tokenizer.token_bytes(id)).collect::<Vec<_>>().concat(),
            (0..=255).collect::<Vec<u8>>()
        );
        assert_eq!(tokenizer.token_text(0xE2), "\u{FFFD}");
    }

    #[test]
    fn a_text_prompt_gets_the_post_processors_special_tokens() {
        let tokenizer = Tokenizer::new(DEMO, b"").unwrap();
        assert_eq!(tokenizer.encode("7+5=", true).unwrap(), [1, 12, 15, 10, 19]);
        assert_eq!(tokenizer.encode("7+5=", false).unwrap(), [12, 15, 10, 19]);
        assert_eq!(tokenizer.encode("<|begin_text|>7<|end_text|>", false).unwrap(), [1, 12, 2]);
    }

    #[test]
    fn bos_is_added_once_where_the_config_wants_it() {
        let config = br#"{"add_bos_token": true, "bos_token": "<s>"}"#;
        let bare = Tokenizer::new(byte_level_json().to_string().as_bytes(), config).unwrap();
        assert_eq!(bare.encode("a", true).unwrap(), [256, 97]);
        assert_eq!(bare.encode("a", false).unwrap(), [97]);
        let config = br#"{"add_bos_token": true, "bos_token": "<|begin_text|>"}"#;
        assert_eq!(Tokenizer::new(DEMO, config).unwrap().encode("7", true).unwrap(), [1, 12]);
    }

    #[test]
    fn a_character_outside_the_vocabulary_is_named() {
        let error = Tokenizer::new(DEMO, b"").unwrap().encode("7\u{d7}3=", true).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the text cannot be tokenised: character '×' is not in the model's vocabulary"
        );
    }

    #[test]
    fn of_several_unknown_characters_the_first_is_named() {
        let tokenizer = Tokenizer::new(DEMO, b"").unwrap();
        for text in ["7É×ÈÀ3=", "<|begin_text|>É<|end_text|>×ÈÀÈÉ"] {
            let error = tokenizer.encode(text, true).unwrap_err().to_string();
            assert!(error.contains("'É'"), "{error}");
        }
    }

    #[test]
    fn special_tokens_have_no_text() {
        let tokenizer = Tokenizer::new(DEMO, b"").unwrap();
        assert_eq!(tokenizer.decode(&[1, 12, 2]).unwrap(), "7");
        assert!(tokenizer.is_special(2));
        assert_eq!(tokenizer.token_text(2), "<|end_text|>");
    }
}

use std::sync::Arc;

use super::{TextError, Tokenizer};

/// Prompt tokens kept in front, since the text of a token can depend on those before it.
const CONTEXT_TOKENS: usize = 4;

/// Tokens without a complete character after which their text is taken as it is: a character has at most four
/// bytes, so this happens only where the bytes are no characters at all.
const PENDING_LIMIT: usize = 8;

/// The text of a generation as its tokens arrive.
///
/// Text is given out once it is certain: a character that still lacks bytes is held back, and so is text that may
/// turn out to be the beginning of a stop string.
#[derive(Debug)]
pub struct TextStream {
    tokenizer: Arc<Tokenizer>,
    stop: Vec<String>,
    /// `ids[..given]` are context whose text was given out; the rest is pending.
    ids: Vec<u32>,
    given: usize,
    held: String,
}

/// What one token added.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TextStep {
    /// Text that is certain now.
    pub text: String,
    /// A stop string was found; `text` ends before it and no more will follow.
    pub stopped: bool,
}

impl TextStream {
    /// A stream for the generation after `prompt` that ends at the first of the (not empty) stop strings.
    pub fn new(tokenizer: Arc<Tokenizer>, prompt: &[u32], stop: Vec<String>) -> Self {
        let mut ids: Vec<u32> = prompt
            .iter()
            .rev()
            .copied()
            .filter(|id| !tokenizer.is_special(*id))
            .take(CONTEXT_TOKENS)
            .collect();
        ids.reverse();
        Self { tokenizer, stop, given: ids.len(), ids, held: String::new() }
    }

    /// Takes the next token.
    pub fn push(&mut self, id: u32) -> Result<TextStep, TextError> {
        if self.tokenizer.is_special(id) {
            return Ok(TextStep::default());
        }
        self.ids.push(id);
        let text = self.pending_text()?;
        let incomplete = text.is_empty() || text.ends_with(char::REPLACEMENT_CHARACTER);
        if incomplete && self.ids.len() - self.given < PENDING_LIMIT {
            return Ok(TextStep::default());
        }
        self.ids.drain(..self.given);
        self.given = self.ids.len();
        self.held.push_str(&text);
        Ok(self.release(self.certain()))
    }

    /// Ends the text: what was held back is certain now.
    pub fn finish(&mut self) -> Result<TextStep, TextError> {
        let text = self.pending_text()?;
        self.given = self.ids.len();
        self.held.push_str(&text);
        Ok(self.release(self.held.len()))
    }

    fn pending_text(&self) -> Result<String, TextError> {
        let context = self.tokenizer.decode(&self.ids[..self.given])?;
        let whole = self.tokenizer.decode(&self.ids)?;
        match whole.strip_prefix(&context) {
            Some(text) => Ok(text.to_owned()),
            None => self.tokenizer.decode(&self.ids[self.given..]),
        }
    }

    /// Gives out the held text up to a stop string, or else its first `certain` bytes.
    fn release(&mut self, certain: usize) -> TextStep {
        let found = self.stop.iter().filter_map(|stop| self.held.find(stop.as_str())).min();
        let text = self.held.drain(..found.unwrap_or(certain)).collect();
        if found.is_some() {
            self.held.clear();
        }
        TextStep { text, stopped: found.is_some() }
    }

    /// Bytes of the held text before the longest ending that begins a stop string.
    fn certain(&self) -> usize {
        let begins_a_stop = |ending: &str| self.stop.iter().any(|stop| stop.starts_with(ending));
        let starts = self.held.char_indices().map(|(start, _)| start);
        starts.into_iter().find(|start| begins_a_stop(&self.held[*start..])).unwrap_or(self.held.len())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tokenizer::tests::byte_level;
    use super::*;

    fn stream(stop: &[&str]) -> TextStream {
        TextStream::new(Arc::new(byte_level()), &[], stop.iter().map(ToString::to_string).collect())
    }

    /// The text of every step up to the stop, and whether it stopped.
    fn run(stream: &mut TextStream, bytes: &[u8]) -> (Vec<String>, bool) {
        let mut texts = Vec::new();
        for byte in bytes {
            let step = stream.push(u32::from(*byte)).unwrap();
            texts.push(step.text);
            if step.stopped {
                return (texts, true);
            }
        }
        let last = stream.finish().unwrap();
        texts.push(last.text);
        (texts, last.stopped)
    }

    #[test]
    fn a_character_is_held_back_until_it_is_complete() {
        let (texts, _) = run(&mut stream(&[]), "a€b".as_bytes());
        assert_eq!(texts, ["a", "", "", "€", "b", ""]);
    }

    #[test]
    fn any_text_comes_out_whole() {
        let text = "naïve Ωmega — 日本語 🧭🪢 end";
        assert_eq!(run(&mut stream(&["never"]), text.as_bytes()).0.concat(), text);
    }

    #[test]
    fn an_unfinished_character_ends_as_a_replacement_character() {
        assert_eq!(run(&mut stream(&[]), b"a\xE2\x82").0, ["a", "", "", "\u{FFFD}"]);
    }

    #[test]
    fn bytes_that_are_no_characters_are_not_held_forever() {
        let (texts, _) = run(&mut stream(&[]), &[0xFF; 20]);
        assert!(texts[..20].iter().any(|text| !text.is_empty()));
        assert_eq!(texts.concat(), "\u{FFFD}".repeat(20));
    }

    #[test]
    fn a_stop_string_cuts_the_text_before_it() {
        assert_eq!(
            run(&mut stream(&["END"]), b"one END two"),
            (["o", "n", "e", " ", "", "", ""].map(String::from).to_vec(), true)
        );
    }

    #[test]
    fn a_beginning_that_is_no_stop_string_is_given_out_later() {
        let (texts, stopped) = run(&mut stream(&["abc"]), b"ababd");
        assert_eq!((texts, stopped), (["", "", "ab", "", "abd", ""].map(String::from).to_vec(), false));
    }

    #[test]
    fn the_earliest_of_several_stop_strings_wins() {
        let (texts, stopped) = run(&mut stream(&["cd", "b"]), b"abcd");
        assert_eq!((texts.concat().as_str(), stopped), ("a", true));
    }

    #[test]
    fn a_held_back_beginning_is_given_out_at_the_end() {
        assert_eq!(
            run(&mut stream(&["END"]), b"the EN"),
            (["t", "h", "e", " ", "", "", "EN"].map(String::from).to_vec(), false)
        );
    }

    #[test]
    fn special_tokens_add_nothing() {
        let mut stream = stream(&[]);
        assert_eq!(stream.push(256).unwrap(), TextStep::default());
        assert_eq!(stream.push(97).unwrap().text, "a");
    }
}

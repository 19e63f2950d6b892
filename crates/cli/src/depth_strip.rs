//! Depths as colours: blue for few core iterations, red for many.

use std::env;
use std::io::IsTerminal;

/// Colours of the 256-colour palette, from shallow to deep.
const RAMP: [u8; 12] = [33, 39, 44, 43, 42, 76, 112, 148, 184, 214, 208, 196];

/// Paints tokens by their depth; in plain text where colours are not wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DepthStrip {
    colours: bool,
    deepest: u32,
}

impl DepthStrip {
    /// For output to `stream`: in colour on a terminal, unless the environment says `NO_COLOR`. Depth `deepest` is the
    /// end of the scale.
    pub(crate) fn new(stream: &impl IsTerminal, deepest: u32) -> Self {
        Self { colours: colours_wanted(stream), deepest }
    }

    /// The text in its depth's colour, or as it is.
    pub(crate) fn paint(self, text: &str, depth: u32) -> String {
        if self.colours && !text.is_empty() {
            format!("\x1b[38;5;{}m{text}\x1b[0m", self.colour(depth))
        } else {
            text.to_owned()
        }
    }

    /// One cell per token, with its text and its depth.
    pub(crate) fn strip<'a>(self, tokens: impl IntoIterator<Item = (&'a str, u32)>) -> String {
        let cell = |(text, depth): (&str, u32)| {
            let label = if text.is_empty() { depth.to_string() } else { format!("{text} {depth}") };
            if self.colours {
                format!("\x1b[48;5;{};38;5;16m {label} \x1b[0m", self.colour(depth))
            } else {
                format!("[{label}]")
            }
        };
        tokens.into_iter().map(cell).collect()
    }

    fn colour(self, depth: u32) -> u8 {
        let last = RAMP.len() - 1;
        let place = depth.saturating_sub(1) as usize * last / self.deepest.saturating_sub(1).max(1) as usize;
        RAMP[place.min(last)]
    }
}

/// Whether colours suit the stream (<https://no-color.org>).
pub(crate) fn colours_wanted(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_strips_have_no_escapes() {
        let strip = DepthStrip { colours: false, deepest: 16 };
        assert_eq!(strip.strip([("8", 16), ("end", 2), ("", 3)]), "[8 16][end 2][3]");
        assert_eq!(strip.paint("8", 16), "8");
    }

    #[test]
    fn deeper_is_further_along_the_ramp() {
        let strip = DepthStrip { colours: true, deepest: 16 };
        assert_eq!((strip.colour(1), strip.colour(16), strip.colour(99)), (33, 196, 196));
        let places: Vec<_> =
            (1..=16).map(|depth| RAMP.iter().position(|c| *c == strip.colour(depth))).collect();
        assert!(places.is_sorted());
        assert_eq!(strip.paint("8", 16), "\x1b[38;5;196m8\x1b[0m");
        assert_eq!(DepthStrip { colours: true, deepest: 1 }.colour(1), 33);
    }
}

//! Counts in sentences.

/// `1 token`, `2 tokens`.
pub(crate) fn counted(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_no_plural() {
        assert_eq!([0, 1, 2].map(|count| counted(count, "puzzle")), ["0 puzzles", "1 puzzle", "2 puzzles"]);
    }
}

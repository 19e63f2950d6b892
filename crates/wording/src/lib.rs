//! What serde says of a wrong value, in the words of those who write requests and settings.
//!
//! For JSON and TOML alike. Knows no field and no format, and no message that is not serde's own.

/// Longest part of a wrong value that is repeated, in characters.
const SHOWN: usize = 60;

/// The message without words of the Rust language; one that is not known stays as it is.
///
/// `invalid type: string "8", expected u32 at line 1 column 9` becomes `expected a whole number from 0 to 4294967295,
/// not "8" at line 1 column 9`.
pub fn plain(message: &str) -> String {
    let (text, place) = message.rfind(" at line ").map_or((message, ""), |at| message.split_at(at));
    match wrong_value(text).or_else(|| wrong_name(text)).or_else(|| wrong_syntax(text)) {
        Some(reworded) => reworded + place,
        None => message.to_owned(),
    }
}

fn wrong_value(text: &str) -> Option<String> {
    let wrong = ["invalid type: ", "invalid value: ", "invalid length "]
        .iter()
        .find_map(|kind| text.strip_prefix(kind));
    let (found, expected) = wrong?.rsplit_once(", expected ")?;
    let found = if text.starts_with("invalid length ") { format!("a list of {found}") } else { value(found) };
    Some(format!("expected {}, not {found}", kind(expected)))
}

fn wrong_name(text: &str) -> Option<String> {
    if let Some(rest) = text.strip_prefix("unknown variant `") {
        let (found, expected) = rest.split_once("`, ")?;
        return Some(format!("'{}' is unknown: use one of {}", shortened(found), names(expected)));
    }
    if let Some(rest) = text.strip_prefix("unknown field `") {
        let (found, expected) = rest.split_once('`')?;
        return Some(match names(expected).as_str() {
            "" => format!("unknown field '{}': leave it out", shortened(found)),
            names => format!("unknown field '{}': use one of {names}", shortened(found)),
        });
    }
    if let Some(field) = text.strip_prefix("missing field `") {
        return Some(format!("{} is missing", field.trim_end_matches('`')));
    }
    let field = text.strip_prefix("duplicate field `")?;
    Some(format!("{} is there twice: keep one", field.trim_end_matches('`')))
}

fn wrong_syntax(text: &str) -> Option<String> {
    if text.starts_with("EOF while parsing") {
        return Some("the text ends too early".to_owned());
    }
    let plain = match text {
        "expected ident" => {
            "it is no JSON here: write true, false or null in full, and texts in double quotes"
        }
        "expected value" => "it is no JSON here: a value is missing, such as \"text\", 7, [...] or {...}",
        "key must be a string" => "it is no JSON here: names stand in double quotes",
        "expected `:`" => "it is no JSON here: a colon is missing behind a name",
        "expected `,` or `}`" => "it is no JSON here: a comma or the object's closing brace is missing",
        "expected `,` or `]`" => "it is no JSON here: a comma or the list's closing bracket is missing",
        "trailing comma" => "it is no JSON here: the comma behind the last entry is too many",
        "trailing characters" => "something stands behind the end of the JSON: one value is allowed",
        _ => "",
    };
    if !plain.is_empty() {
        return Some(plain.to_owned());
    }
    (text == "invalid value: expected key to be a number in quotes")
        .then(|| "expected every name to be a whole number in quotes".to_owned())
}

/// The names in backticks, separated by commas.
fn names(text: &str) -> String {
    text.split('`').skip(1).step_by(2).collect::<Vec<_>>().join(", ")
}

/// What was expected.
fn kind(expected: &str) -> String {
    let whole = |least: i64, most: u64| format!("a whole number from {least} to {most}");
    match expected {
        "u8" => whole(0, u8::MAX.into()),
        "u16" => whole(0, u16::MAX.into()),
        "u32" => whole(0, u32::MAX.into()),
        "u64" | "usize" => whole(0, u64::MAX),
        "i32" => whole(i32::MIN.into(), i32::MAX as u64),
        "i64" | "isize" => whole(i64::MIN, i64::MAX as u64),
        "f32" | "f64" => "a number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "an object".to_owned(),
        "unit" => "null".to_owned(),
        _ if expected.starts_with("struct ") => "an object".to_owned(),
        _ => expected.to_owned(),
    }
}

/// What was found instead.
fn value(found: &str) -> String {
    if let Some(text) = found.strip_prefix("string ") {
        return shortened(text);
    }
    match found {
        "map" => "an object".to_owned(),
        "sequence" => "a list".to_owned(),
        "unit" | "unit value" | "null" => "null".to_owned(),
        _ => found.split('`').nth(1).map_or_else(|| found.to_owned(), str::to_owned),
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_serde_lose_the_words_of_rust() {
        let cases = [
            (
                "invalid type: string \"8\", expected u32",
                "expected a whole number from 0 to 4294967295, not \"8\"",
            ),
            ("invalid value: integer `-8`, expected u16", "expected a whole number from 0 to 65535, not -8"),
            (
                "invalid type: floating point `1.5`, expected i32",
                "expected a whole number from -2147483648 to 2147483647, not 1.5",
            ),
            (
                "invalid type: boolean `true`, expected f32 at line 1 column 4",
                "expected a number, not true at line 1 column 4",
            ),
            ("invalid type: map, expected unit", "expected null, not an object"),
            ("invalid type: sequence, expected struct Adaptive", "expected an object, not a list"),
            ("invalid type: null, expected a boolean", "expected true or false, not null"),
            (
                "invalid type: string \"a, expected b\", expected a map",
                "expected an object, not \"a, expected b\"",
            ),
            ("invalid length 1, expected a pair", "expected a pair, not a list of 1"),
            ("unknown variant `x`, expected `a` or `b`", "'x' is unknown: use one of a, b"),
            ("unknown variant `x`, expected one of `a`, `b`, `c`", "'x' is unknown: use one of a, b, c"),
            ("unknown field `x`, expected `a`", "unknown field 'x': use one of a"),
            ("unknown field `x`, there are no fields", "unknown field 'x': leave it out"),
            ("missing field `a`", "a is missing"),
            ("duplicate field `a`", "a is there twice: keep one"),
            ("EOF while parsing a value at line 1 column 0", "the text ends too early at line 1 column 0"),
            (
                "invalid value: expected key to be a number in quotes",
                "expected every name to be a whole number in quotes",
            ),
            (
                "expected ident at line 1 column 2",
                "it is no JSON here: write true, false or null in full, and texts in double quotes at line 1 column 2",
            ),
            ("trailing comma", "it is no JSON here: the comma behind the last entry is too many"),
            ("invalid escape at line 1 column 2", "invalid escape at line 1 column 2"),
        ];
        for (message, expected) in cases {
            assert_eq!(plain(message), expected);
        }
    }

    #[test]
    fn a_long_value_is_not_repeated_in_full() {
        let message = plain(&format!("invalid type: string \"{}\", expected u32", "é".repeat(1000)));
        assert!(message.chars().count() < 150, "{message}");
    }
}

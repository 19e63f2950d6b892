//! The shape of a model, as written on the command line.

use std::str::FromStr;

use windlass_model::ModelConfig;
use windlass_model::synthetic::{Shape, ShapeError};

/// What keys that are left out stand at.
const DEFAULT: Shape = Shape {
    hidden: 1024,
    heads: 16,
    intermediate: 2816,
    prelude_layers: 2,
    core_layers: 4,
    coda_layers: 2,
    vocabulary: 8192,
    context_length: 1024,
};

const KEYS: &str = "d, heads, ff, layers, vocabulary, context";

/// `d=1024,heads=16,ff=2816,layers=2+4+2,vocabulary=8192,context=1024`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ShapeArgument(pub(super) ModelConfig);

impl FromStr for ShapeArgument {
    type Err = String;

    fn from_str(argument: &str) -> Result<Self, String> {
        let mut shape = DEFAULT;
        let mut seen = Vec::new();
        for pair in argument.split(',') {
            let (key, value) =
                pair.split_once('=').ok_or_else(|| format!("'{pair}' is no KEY=VALUE: use keys {KEYS}"))?;
            if seen.contains(&key) {
                return Err(format!("{key} is given twice: give it once"));
            }
            seen.push(key);
            match key {
                "d" => shape.hidden = size(key, value)?,
                "heads" => shape.heads = size(key, value)?,
                "ff" => shape.intermediate = size(key, value)?,
                "layers" => {
                    (shape.prelude_layers, shape.core_layers, shape.coda_layers) = layers(value)?;
                }
                "vocabulary" => shape.vocabulary = size(key, value)?,
                "context" => shape.context_length = size(key, value)?,
                _ => return Err(format!("unknown key '{key}': use {KEYS}")),
            }
        }
        shape.config().map(Self).map_err(|error| with_key(&error))
    }
}

/// The shape of any model, as an argument that gives it again.
pub(super) fn to_argument(config: &ModelConfig) -> String {
    let ModelConfig { hidden, heads, intermediate, vocabulary, context_length, .. } = config;
    let ModelConfig { prelude_layers, core_layers, coda_layers, .. } = config;
    format!(
        "d={hidden},heads={heads},ff={intermediate},layers={prelude_layers}+{core_layers}+{coda_layers},\
         vocabulary={vocabulary},context={context_length}"
    )
}

fn size(key: &str, value: &str) -> Result<usize, String> {
    value.parse().map_err(|_| format!("{key} is '{value}': use a whole number"))
}

/// Layers of prelude, core and coda.
fn layers(value: &str) -> Result<(usize, usize, usize), String> {
    let wrong = || format!("layers is '{value}': use PRELUDE+CORE+CODA, such as 2+4+2");
    let counts: Result<Vec<usize>, _> = value.split('+').map(str::parse).collect();
    match counts.map_err(|_| wrong())?.as_slice() {
        &[prelude, core, coda] => Ok((prelude, core, coda)),
        _ => Err(wrong()),
    }
}

/// The error in the words of the command line.
fn with_key(error: &ShapeError) -> String {
    let key = match error.field {
        "hidden" => "d",
        "intermediate" => "ff",
        "prelude_layers" => "layers, of the prelude,",
        "core_layers" => "layers, of the core,",
        "coda_layers" => "layers, of the coda,",
        "context_length" => "context",
        field => field,
    };
    format!("{key} is {}: {}", error.value, error.remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_is_read_as_written_and_written_as_read() {
        let text = "d=64,heads=4,ff=96,layers=1+2+3,vocabulary=128,context=256";
        let ShapeArgument(config) = text.parse().unwrap();
        assert_eq!((config.hidden, config.heads, config.head_dim, config.intermediate), (64, 4, 16, 96));
        assert_eq!((config.prelude_layers, config.core_layers, config.coda_layers), (1, 2, 3));
        assert_eq!(to_argument(&config), text);
    }

    #[test]
    fn keys_left_out_have_defaults() {
        let ShapeArgument(config) = "d=512".parse().unwrap();
        let expected = "d=512,heads=16,ff=2816,layers=2+4+2,vocabulary=8192,context=1024";
        assert_eq!(to_argument(&config), expected);
    }

    #[test]
    fn what_is_no_shape_is_refused_by_key_value_and_remedy() {
        let cases = [
            ("", "'' is no KEY=VALUE: use keys d, heads"),
            ("d", "'d' is no KEY=VALUE: use keys d, heads"),
            ("width=3", "unknown key 'width': use d, heads, ff, layers"),
            ("d=8,heads=2,d=8", "d is given twice"),
            ("d=many", "d is 'many': use a whole number"),
            ("d=-1", "d is '-1': use a whole number"),
            ("d=0", "d is 0: use 1 to 32768"),
            ("d=1024,heads=7", "heads is 7: use a number that divides the width, 1024,"),
            ("ff=0", "ff is 0: use 1 to"),
            ("layers=2+4", "layers is '2+4': use PRELUDE+CORE+CODA"),
            ("layers=2+x+2", "layers is '2+x+2': use PRELUDE+CORE+CODA"),
            ("layers=2+0+2", "layers, of the core, is 0: use 1 to 1024"),
            ("vocabulary=999999999", "vocabulary is 999999999: use 1 to"),
            ("context=0", "context is 0: use 1 to"),
        ];
        for (text, expected) in cases {
            let message = text.parse::<ShapeArgument>().unwrap_err();
            assert!(message.starts_with(expected), "{text}: {message}");
        }
    }
}

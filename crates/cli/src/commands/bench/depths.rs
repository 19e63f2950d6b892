//! Where recorded exit depths come from: a named distribution, or a file.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use windlass_model::Depth;
use windlass_model::random::{Stream, draw, uniform};

/// Deepest exit that can be asked for.
const DEEPEST: Depth = 4096;

const FORMS: &str = "uniform:LOW:HIGH, geometric:MEAN:MAX, bimodal:LOW:HIGH, fixed:DEPTH or a file with one JSON array of depths a line";

/// `uniform:1:32`, `geometric:8:32`, `bimodal:4:32`, `fixed:16`, or a file's path.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Depths {
    /// Drawn.
    Drawn(Distribution),
    /// Read.
    File(PathBuf),
}

/// How a token's depth is drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Distribution {
    /// Every depth from `low` to `high` equally often.
    Uniform { low: Depth, high: Depth },
    /// Every iteration is the last with odds 1 / `mean`, and `max` is the last in any case.
    Geometric { mean: f64, max: Depth },
    /// `low` or `high`, at even odds.
    Bimodal { low: Depth, high: Depth },
    /// Always the same.
    Fixed(Depth),
}

impl Depths {
    /// The depth of every token of every request: `requests` of `tokens` each, fewer where a file has fewer.
    pub(super) fn table(&self, seed: u64, requests: usize, tokens: usize) -> Result<Vec<Vec<Depth>>> {
        match self {
            Self::Drawn(distribution) => Ok(distribution.table(seed, requests, tokens)),
            Self::File(path) => read(path, requests, tokens),
        }
    }

    /// The deepest that a token of `table` can be.
    pub(super) fn most(&self, table: &[Vec<Depth>]) -> Depth {
        match self {
            Self::Drawn(distribution) => distribution.most(),
            Self::File(_) => table.iter().flatten().copied().max().unwrap_or(1),
        }
    }
}

impl Distribution {
    /// The depth at `quantile`, which lies between 0 and 1 and is neither.
    fn depth(self, quantile: f64) -> Depth {
        match self {
            Self::Uniform { low, high } => low + (quantile * f64::from(high - low + 1)) as Depth,
            Self::Geometric { mean, max } => {
                let iterations_before = quantile.ln() / (1.0 - 1.0 / mean).ln();
                (1.0 + iterations_before).min(f64::from(max)) as Depth
            }
            Self::Bimodal { low, high } => {
                if quantile < 0.5 {
                    low
                } else {
                    high
                }
            }
            Self::Fixed(depth) => depth,
        }
    }

    fn most(self) -> Depth {
        match self {
            Self::Uniform { high, .. } | Self::Bimodal { high, .. } => high,
            Self::Geometric { max, .. } => max,
            Self::Fixed(depth) => depth,
        }
    }

    fn table(self, seed: u64, requests: usize, tokens: usize) -> Vec<Vec<Depth>> {
        let depth = |request: usize, token: usize| {
            let [high, low, ..] = draw(seed, Stream::Depths, request as u32, token as u32);
            self.depth(uniform(high, low))
        };
        (0..requests).map(|request| (0..tokens).map(|token| depth(request, token)).collect()).collect()
    }

    fn validate(self) -> Result<Self, String> {
        let (low, high) = match self {
            Self::Uniform { low, high } | Self::Bimodal { low, high } => (low, high),
            Self::Geometric { max, .. } => (1, max),
            Self::Fixed(depth) => (depth, depth),
        };
        if !(1..=DEEPEST).contains(&high) {
            return Err(format!("the highest depth is {high}: use 1 to {DEEPEST}"));
        }
        if !(1..=high).contains(&low) {
            return Err(format!("the lowest depth is {low}: use 1 to the highest, {high}"));
        }
        match self {
            Self::Geometric { mean, .. } if !mean.is_finite() || mean < 1.0 => {
                Err(format!("the mean is {mean}: use a finite number of at least 1"))
            }
            distribution => Ok(distribution),
        }
    }
}

impl FromStr for Depths {
    type Err = String;

    fn from_str(argument: &str) -> Result<Self, String> {
        let distribution = match argument.split(':').collect::<Vec<_>>().as_slice() {
            ["uniform", low, high] => Distribution::Uniform { low: depth(low)?, high: depth(high)? },
            ["geometric", mean, max] => {
                let mean = mean.parse().map_err(|_| format!("the mean is '{mean}': use a number"))?;
                Distribution::Geometric { mean, max: depth(max)? }
            }
            ["bimodal", low, high] => Distribution::Bimodal { low: depth(low)?, high: depth(high)? },
            ["fixed", exit] => Distribution::Fixed(depth(exit)?),
            ["uniform" | "geometric" | "bimodal" | "fixed", ..] => return Err(format!("use {FORMS}")),
            _ if argument.is_empty() => return Err(format!("use {FORMS}")),
            _ => return Ok(Self::File(argument.into())),
        };
        distribution.validate().map(Self::Drawn)
    }
}

impl fmt::Display for Depths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Drawn(Distribution::Uniform { low, high }) => write!(f, "uniform:{low}:{high}"),
            Self::Drawn(Distribution::Geometric { mean, max }) => write!(f, "geometric:{mean}:{max}"),
            Self::Drawn(Distribution::Bimodal { low, high }) => write!(f, "bimodal:{low}:{high}"),
            Self::Drawn(Distribution::Fixed(depth)) => write!(f, "fixed:{depth}"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

fn depth(text: &str) -> Result<Depth, String> {
    text.parse().map_err(|_| format!("'{text}' is no depth: use a whole number"))
}

/// One array a line, cut to `tokens`; the first `requests` of them.
fn read(path: &Path, requests: usize, tokens: usize) -> Result<Vec<Vec<Depth>>> {
    let name = path.display();
    let text = fs::read_to_string(path).with_context(|| {
        format!("depths: {name} is no known distribution and cannot be read as a file (use {FORMS})")
    })?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let mut table = Vec::new();
    for (index, line) in lines.take(requests) {
        let number = index + 1;
        let mut depths: Vec<Depth> = serde_json::from_str(line).with_context(|| {
            format!("depths: line {number} of {name} is no JSON array of whole numbers, such as [32, 7, 12]")
        })?;
        depths.truncate(tokens);
        if depths.is_empty() {
            bail!("depths: line {number} of {name} has no depths: give one per token");
        }
        if let Some(depth) = depths.iter().find(|depth| !(1..=DEEPEST).contains(*depth)) {
            bail!("depths: line {number} of {name} has depth {depth}: use 1 to {DEEPEST}");
        }
        table.push(depths);
    }
    if table.is_empty() {
        bail!("depths: {name} has no lines: give one JSON array of depths per request");
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(text: &str) -> Vec<Depth> {
        text.parse::<Depths>().unwrap().table(1, 200, 200).unwrap().concat()
    }

    #[test]
    fn distributions_have_the_means_and_ends_they_name() {
        let cut_geometric = 8.0 * (1.0 - (1.0 - 1.0 / 8.0_f64).powi(32));
        let cases = [
            ("uniform:1:32", 16.5, 1, 32),
            ("uniform:5:5", 5.0, 5, 5),
            ("geometric:8:32", cut_geometric, 1, 32),
            ("geometric:1:32", 1.0, 1, 1),
            ("bimodal:4:32", 18.0, 4, 32),
            ("fixed:16", 16.0, 16, 16),
        ];
        for (text, mean, least, most) in cases {
            let depths = drawn(text);
            let found = depths.iter().copied().map(f64::from).sum::<f64>() / depths.len() as f64;
            assert!((found / mean - 1.0).abs() < 0.01, "{text}: {found}");
            assert_eq!((depths.iter().min(), depths.iter().max()), (Some(&least), Some(&most)), "{text}");
        }
    }

    #[test]
    fn depths_depend_on_seed_request_and_token_only() {
        let depths: Depths = "uniform:1:32".parse().unwrap();
        let large = depths.table(3, 8, 8).unwrap();
        let small = depths.table(3, 4, 2).unwrap();
        assert!(small.iter().zip(&large).all(|(small, large)| large.starts_with(small)));
        assert_ne!(depths.table(4, 8, 8).unwrap(), large);
    }

    #[test]
    fn a_file_gives_requests_of_its_own_lengths() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("depths");
        fs::write(&path, "[3, 1, 2]\n\n[7]\n[1, 1]\n").unwrap();
        let depths: Depths = path.to_str().unwrap().parse().unwrap();
        let table = depths.table(0, 2, 2).unwrap();
        assert_eq!((table.as_slice(), depths.most(&table)), (&[vec![3, 1], vec![7]][..], 7));
        assert_eq!(depths.to_string(), path.display().to_string());
        for (text, expected) in [
            ("", "has no lines"),
            ("[1]\n[]", "line 2 of"),
            ("[0]", "has depth 0: use 1 to"),
            ("[1, -2]", "is no JSON array of whole numbers"),
            ("1 2", "is no JSON array of whole numbers"),
        ] {
            fs::write(&path, text).unwrap();
            let message = format!("{:#}", depths.table(0, 9, 9).unwrap_err());
            assert!(message.starts_with("depths: ") && message.contains(expected), "{text}: {message}");
        }
    }

    #[test]
    fn what_is_no_distribution_is_refused_with_a_remedy() {
        let cases = [
            ("uniform:0:3", "the lowest depth is 0: use 1 to the highest, 3"),
            ("uniform:4:3", "the lowest depth is 4: use 1 to the highest, 3"),
            ("uniform:1", "use uniform:LOW:HIGH, geometric:MEAN:MAX"),
            ("uniform:a:3", "'a' is no depth: use a whole number"),
            ("bimodal:1:9999", "the highest depth is 9999: use 1 to 4096"),
            ("geometric:0.5:32", "the mean is 0.5: use a finite number of at least 1"),
            ("geometric:nan:32", "the mean is NaN: use a finite number"),
            ("geometric:x:32", "the mean is 'x': use a number"),
            ("geometric:8:0", "the highest depth is 0"),
            ("fixed:0", "the highest depth is 0"),
            ("fixed", "use uniform:LOW:HIGH"),
            ("", "use uniform:LOW:HIGH"),
        ];
        for (text, expected) in cases {
            let message = text.parse::<Depths>().unwrap_err();
            assert!(message.starts_with(expected), "{text}: {message}");
        }
        let unknown: Depths = "normal:8:2".parse().unwrap();
        let message = unknown.table(0, 1, 1).unwrap_err().to_string();
        assert!(message.starts_with("depths: normal:8:2 is no known distribution"), "{message}");
    }
}

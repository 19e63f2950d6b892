//! Depth and K/V policies and other values as written on the command line.

use std::str::FromStr;

use windlass_model::{AdaptiveDepth, Criterion, Depth, DepthPolicy, KvPolicy};

/// `fixed:8`, or `adaptive:latent-diff:0.03` with an optional `:16` at the end.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum DepthArgument {
    Fixed(Depth),
    Adaptive { criterion: Criterion, threshold: f64, max: Option<Depth> },
}

impl DepthArgument {
    /// The policy for a model trained at `mean_recurrence`, which is the most iterations where none are given.
    pub(crate) fn policy(self, mean_recurrence: Depth) -> DepthPolicy {
        match self {
            Self::Fixed(depth) => DepthPolicy::Fixed(depth),
            Self::Adaptive { criterion, threshold, max } => {
                let max = max.unwrap_or(mean_recurrence);
                DepthPolicy::Adaptive(AdaptiveDepth { criterion, threshold, min: 1, max, every: 1 })
            }
        }
    }
}

impl From<DepthArgument> for windlass_client::Depth {
    fn from(argument: DepthArgument) -> Self {
        use windlass_client::Criterion as Asked;
        match argument {
            DepthArgument::Fixed(depth) => Self::Fixed(depth),
            DepthArgument::Adaptive { criterion, threshold, max } => {
                let criterion = match criterion {
                    Criterion::LatentDiff => Asked::LatentDiff,
                    Criterion::Cosine => Asked::Cosine,
                    Criterion::Kl => Asked::Kl,
                    Criterion::MinpKl => Asked::MinpKl,
                    Criterion::EntropyDiff => Asked::EntropyDiff,
                    Criterion::ArgmaxStability => Asked::ArgmaxStability,
                };
                let adaptive = windlass_client::Adaptive::new(criterion);
                Self::Adaptive(windlass_client::Adaptive { threshold: Some(threshold), max, ..adaptive })
            }
        }
    }
}

impl FromStr for DepthArgument {
    type Err = String;

    fn from_str(argument: &str) -> Result<Self, String> {
        match argument.split(':').collect::<Vec<_>>().as_slice() {
            ["fixed", depth] => Ok(Self::Fixed(number("depth", depth)?)),
            ["adaptive", criterion, threshold, max @ ..] if max.len() <= 1 => Ok(Self::Adaptive {
                criterion: criterion.parse()?,
                threshold: number("threshold", threshold)?,
                max: max.first().map(|max| number("maximum depth", max)).transpose()?,
            }),
            _ => Err("use fixed:DEPTH or adaptive:CRITERION:THRESHOLD[:MAX]".to_owned()),
        }
    }
}

/// `full`, `ring:4` or `anchor:4`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct KvArgument(pub(crate) KvPolicy);

impl FromStr for KvArgument {
    type Err = String;

    fn from_str(argument: &str) -> Result<Self, String> {
        match argument.split_once(':') {
            None if argument == "full" => Ok(Self(KvPolicy::Full)),
            Some(("ring", slots)) => Ok(Self(KvPolicy::Ring(number("number of slots", slots)?))),
            Some(("anchor", slots)) => Ok(Self(KvPolicy::Anchor(number("number of slots", slots)?))),
            _ => Err("use full, ring:SLOTS or anchor:SLOTS".to_owned()),
        }
    }
}

/// A number that is neither NaN nor infinite.
pub(crate) fn finite(argument: &str) -> Result<f32, String> {
    let number: f32 = argument.parse().map_err(|_| "use a number".to_owned())?;
    if number.is_finite() { Ok(number) } else { Err("use a finite number".to_owned()) }
}

fn number<T: FromStr>(what: &str, text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("'{text}' is not a {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depths_are_read_as_written() {
        let adaptive = |criterion, threshold, max| DepthArgument::Adaptive { criterion, threshold, max };
        let cases = [
            ("fixed:8", DepthArgument::Fixed(8)),
            ("adaptive:latent-diff:0.03", adaptive(Criterion::LatentDiff, 0.03, None)),
            ("adaptive:minp-kl:1e-5:12", adaptive(Criterion::MinpKl, 1e-5, Some(12))),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn the_most_iterations_are_the_trained_depth_unless_given() {
        let max = |text: &str| text.parse::<DepthArgument>().unwrap().policy(16).max();
        assert_eq!((max("adaptive:kl:0.1"), max("adaptive:kl:0.1:5"), max("fixed:3")), (16, 5, 3));
    }

    #[test]
    fn what_is_no_policy_is_refused_with_a_remedy() {
        let cases = [
            ("fixed:x", "'x' is not a depth"),
            ("fixed", "use fixed:DEPTH or"),
            ("fixed:1:2", "use fixed:DEPTH or"),
            ("8", "use fixed:DEPTH or"),
            ("adaptive:kl", "use fixed:DEPTH or"),
            ("adaptive:speed:1", "unknown exit criterion 'speed': use one of latent-diff"),
            ("adaptive:kl:low", "'low' is not a threshold"),
            ("adaptive:kl:1:-1", "'-1' is not a maximum depth"),
            ("adaptive:kl:1:2:3", "use fixed:DEPTH or"),
        ];
        for (text, expected) in cases {
            let message = text.parse::<DepthArgument>().unwrap_err();
            assert!(message.starts_with(expected), "{text}: {message}");
        }
        assert_eq!("ring:2".parse(), Ok(KvArgument(KvPolicy::Ring(2))));
        assert_eq!("anchor:3".parse(), Ok(KvArgument(KvPolicy::Anchor(3))));
        assert_eq!("full".parse(), Ok(KvArgument(KvPolicy::Full)));
        assert_eq!("ring".parse::<KvArgument>().unwrap_err(), "use full, ring:SLOTS or anchor:SLOTS");
        assert_eq!("ring:".parse::<KvArgument>().unwrap_err(), "'' is not a number of slots");
    }
}

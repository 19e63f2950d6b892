//! The schedulers that are compared.

use clap::ValueEnum;
use serde::Serialize;
use windlass_engine::{Draft, Schedule};

/// One scheduler. In the order of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Mode {
    /// Rows of any depth share every launch; each leaves when it is done
    Depth,
    /// The same, and positions run on guesses of the tokens before them, as --draft says: what `windlass serve` does
    Drafts,
    /// Rows start a token together and wait for the deepest of them, as in servers that batch by token
    Lockstep,
    /// Continuous batching without exits: every token takes the most iterations
    FullDepth,
    /// Rows of one depth share a launch, those of the depth that most are at, as in batchers of single loops
    Homogeneous,
}

impl Mode {
    pub(super) const ALL: [Self; 5] =
        [Self::Depth, Self::Drafts, Self::Lockstep, Self::FullDepth, Self::Homogeneous];
    /// What others are compared with.
    pub(super) const PEERS: [Self; 2] = [Self::Lockstep, Self::Homogeneous];

    /// The name on the command line and in reports.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Depth => "depth",
            Self::Drafts => "drafts",
            Self::Lockstep => "lockstep",
            Self::FullDepth => "full-depth",
            Self::Homogeneous => "homogeneous",
        }
    }

    pub(super) fn schedule(self) -> Schedule {
        match self {
            Self::Depth | Self::Drafts | Self::FullDepth => Schedule::Depth,
            Self::Lockstep => Schedule::Lockstep,
            Self::Homogeneous => Schedule::Homogeneous,
        }
    }

    /// `configured`: how guesses are made where they are.
    pub(super) fn draft(self, configured: Draft) -> Draft {
        if self == Self::Drafts { configured } else { Draft::Off }
    }

    /// Whether tokens leave at their recorded depths.
    pub(super) fn has_exits(self) -> bool {
        self != Self::FullDepth
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_command_line() {
        assert_eq!(Mode::value_variants(), Mode::ALL);
        for mode in Mode::ALL {
            let value = mode.to_possible_value().unwrap();
            assert_eq!(value.get_name(), mode.name());
            assert_eq!(serde_json::to_value(mode).unwrap(), mode.name());
        }
    }
}

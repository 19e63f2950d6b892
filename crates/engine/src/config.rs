//! Limits of one engine, and how it schedules.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

use windlass_kernels::{BLOCK_POSITIONS, KvFormat};
use windlass_model::network::kv_shape;
use windlass_model::{Capacity, Depth, ModelConfig};

/// Which rows share a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schedule {
    /// Rows of any depth share every launch; each leaves when it is done.
    Depth,
    /// Rows start together and wait for the deepest of them: what servers that batch by token do. For comparison.
    Lockstep,
    /// Rows of one depth share a launch, those of the depth that most are at: what loop-level batchers do. For comparison.
    Homogeneous,
}

/// How long a row that is done iterating may wait for others, to share prelude and coda with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coalesce {
    /// It leaves at once.
    Off,
    /// It leaves once it, or one that waits with it, has waited this many ticks.
    Fixed(u32),
    /// As long as it pays by the launches' measured costs.
    Auto,
}

impl FromStr for Coalesce {
    type Err = ParseCoalesceError;

    /// `off`, `auto`, or a number of ticks.
    fn from_str(text: &str) -> Result<Self, ParseCoalesceError> {
        match text {
            "off" => Ok(Self::Off),
            "auto" => Ok(Self::Auto),
            ticks => ticks.parse().map(Self::Fixed).map_err(|_| ParseCoalesceError(text.to_owned())),
        }
    }
}

/// A text that is no [`Coalesce`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("coalesce is '{0}': use off, auto or a number of ticks")]
pub struct ParseCoalesceError(String);

/// Whether positions behind a lane's last token run on guesses of the tokens that they read, as far as ticks have room for them. It makes
/// few sequences faster, and costs rows that come to nothing. Where K/V slots are overwritten, or exits are decided by logits,
/// nothing is guessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Draft {
    /// Tokens are waited for.
    Off,
    /// The next token is guessed from every position that has completed so many more iterations, at least 1.
    Every(Depth),
    /// As it pays by the launches' measured costs, and by how many guesses came true.
    Auto,
}

impl FromStr for Draft {
    type Err = ParseDraftError;

    /// `off`, `auto`, or a number of iterations.
    fn from_str(text: &str) -> Result<Self, ParseDraftError> {
        match text {
            "off" => Ok(Self::Off),
            "auto" => Ok(Self::Auto),
            iterations => match iterations.parse() {
                Ok(0) | Err(_) => Err(ParseDraftError(text.to_owned())),
                Ok(iterations) => Ok(Self::Every(iterations)),
            },
        }
    }
}

impl Display for Draft {
    fn fmt(&self, to: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => to.write_str("off"),
            Self::Auto => to.write_str("auto"),
            Self::Every(iterations) => write!(to, "{iterations}"),
        }
    }
}

/// A text that is no [`Draft`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("draft is '{0}': use off, auto or a number of iterations of at least 1")]
pub struct ParseDraftError(String);

/// Limits of one engine, and how it schedules. [`EngineConfig::validate`] before use. Only `prefill_segment` can change an
/// answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineConfig {
    /// Sequences served at once.
    pub max_lanes: usize,
    /// Rows of one tick.
    pub max_rows: usize,
    /// Positions of one lane in one tick.
    pub prefill_chunk: usize,
    /// Prompt positions of all lanes in flight, at most; a longer prompt is refused.
    pub prefill_positions: usize,
    /// Requests that wait for a lane.
    pub max_waiting: usize,
    /// Memory for keys and values, in bytes.
    pub kv_bytes: usize,
    /// Deepest policy accepted.
    pub max_depth: u32,
    /// Which rows share a launch.
    pub schedule: Schedule,
    /// Whether rows wait to share prelude and coda.
    pub coalesce: Coalesce,
    /// Most ticks that a row waits to share them.
    pub coalesce_limit: u32,
    /// Whether positions run on guesses of the tokens before them.
    pub draft: Draft,
    /// Whether K/V of prompts are kept for prompts that begin alike.
    pub prefix_cache: bool,
    /// Under K/V policies that reuse slots, prompt positions that move through the depths together, counted from position
    /// 0, a multiple of [`BLOCK_POSITIONS`]; none for whole prompts, whose K/V are not kept then.
    pub prefill_segment: Option<usize>,
}

/// A configuration that cannot be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineConfigError {
    /// A count is zero.
    #[error("{field} is 0: use at least 1")]
    Zero {
        /// The setting.
        field: &'static str,
    },
    /// The K/V budget does not hold the smallest request.
    #[error("kv_bytes {kv_bytes} holds no request: two K/V blocks take {least} bytes, use at least that")]
    KvBytes {
        /// The setting.
        kv_bytes: usize,
        /// What two blocks take: one for prelude and coda, one for the core.
        least: usize,
    },
    /// Segments would not end where blocks do.
    #[error(
        "prefill_segment {segment} is not a multiple of {BLOCK_POSITIONS}: use one, or leave it out for whole prompts"
    )]
    Segment {
        /// The setting.
        segment: usize,
    },
}

/// Bytes of one K/V block of a model.
pub fn block_bytes(model: &ModelConfig, kv: KvFormat) -> usize {
    kv_shape(model, 1).block_len() * kv.bytes()
}

impl EngineConfig {
    /// Defaults for `model`, up to policies of `max_depth`.
    pub fn new(model: &ModelConfig, max_depth: u32) -> Self {
        /// Shortest limit on prompt positions in flight.
        const PREFILL_POSITIONS: usize = 4096;
        Self {
            max_lanes: 64,
            max_rows: 256,
            prefill_chunk: 128,
            prefill_positions: model.context_length.max(PREFILL_POSITIONS),
            max_waiting: 1024,
            kv_bytes: 1 << 30,
            max_depth,
            schedule: Schedule::Depth,
            coalesce: Coalesce::Auto,
            coalesce_limit: 16,
            draft: Draft::Auto,
            prefix_cache: true,
            prefill_segment: None,
        }
    }

    /// Checks every limit for this model, with keys and values stored like this.
    pub fn validate(&self, model: &ModelConfig, kv: KvFormat) -> Result<(), EngineConfigError> {
        let counts = [
            ("max_lanes", self.max_lanes),
            ("max_rows", self.max_rows),
            ("prefill_chunk", self.prefill_chunk),
            ("prefill_positions", self.prefill_positions),
            ("max_waiting", self.max_waiting),
            ("max_depth", self.max_depth as usize),
            ("coalesce_limit", self.coalesce_limit as usize),
            ("draft", if let Draft::Every(interval) = self.draft { interval as usize } else { 1 }),
            ("prefill_segment", self.prefill_segment.unwrap_or(BLOCK_POSITIONS)),
        ];
        if let Some((field, _)) = counts.into_iter().find(|(_, count)| *count == 0) {
            return Err(EngineConfigError::Zero { field });
        }
        if let Some(segment) = self.prefill_segment.filter(|segment| !segment.is_multiple_of(BLOCK_POSITIONS))
        {
            return Err(EngineConfigError::Segment { segment });
        }
        let least = 2 * block_bytes(model, kv);
        if self.kv_bytes < least {
            return Err(EngineConfigError::KvBytes { kv_bytes: self.kv_bytes, least });
        }
        Ok(())
    }

    /// The memory these limits ask for, with keys and values stored like this.
    pub fn capacity(&self, model: &ModelConfig, kv: KvFormat) -> Capacity {
        Capacity {
            // Rows that wait to leave do so beside a full launch.
            rows: self.max_rows.saturating_add(self.max_lanes),
            // Each row of a tick may be a draft.
            latents: self.prefill_positions.saturating_add(self.max_lanes).saturating_add(self.max_rows),
            blocks: self.kv_bytes / block_bytes(model, kv),
        }
    }
}

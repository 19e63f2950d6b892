//! What goes round the ring: the rows of a launch, and what has become of them so far.

use windlass_kernels::{KvRow, KvRows, KvTable, LargestOutput, LatentChange};

use crate::network::Launch;
use crate::runner::{Busy, Part, Wanted};

/// A launch that is under way, with all that stages need of it; used again and again, for its memory.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) part: Part,
    pub(super) rows: ParcelRows,
    pub(super) entering: Entering,
    /// `[rows, hidden]`, from one stage to the next: the one thing that devices hand to each other.
    pub(super) x: Vec<f32>,
    pub(super) changes: Vec<LatentChange>,
    pub(super) wanted_logits: Vec<u32>,
    pub(super) wanted_tokens: Vec<u32>,
    pub(super) logits: Vec<f32>,
    pub(super) most_likely: Vec<LargestOutput>,
    pub(super) busy: Busy,
}

/// Rows that go through the prelude first.
#[derive(Debug)]
pub(super) struct Entering {
    pub(super) rows: ParcelRows,
    pub(super) tokens: Vec<u32>,
    /// `[rows, hidden]`.
    pub(super) initial: Vec<f32>,
}

/// The rows of a [`Launch`], kept beyond it.
#[derive(Debug)]
pub(super) struct ParcelRows {
    latents: Vec<u32>,
    kv: Vec<KvRow>,
    /// Snapshots of the rows' own lanes' tables.
    tables: Vec<KvTable>,
}

impl Parcel {
    /// With room for this many rows, so that a launch allocates nothing.
    pub(super) fn new(rows: usize, hidden: usize) -> Self {
        Self {
            part: Part::Core,
            rows: ParcelRows::new(rows),
            entering: Entering {
                rows: ParcelRows::new(rows),
                tokens: Vec::with_capacity(rows),
                initial: Vec::with_capacity(rows * hidden),
            },
            x: Vec::with_capacity(rows * hidden),
            changes: Vec::with_capacity(rows),
            wanted_logits: Vec::with_capacity(rows),
            wanted_tokens: Vec::with_capacity(rows),
            // Rows of logits are long, and seldom wanted: these grow.
            logits: Vec::new(),
            most_likely: Vec::with_capacity(rows),
            busy: Busy::default(),
        }
    }

    /// Notes what the head is wanted for.
    pub(super) fn want(&mut self, wanted: Wanted<'_>) {
        let Self { wanted_logits, wanted_tokens, .. } = self;
        wanted_logits.clear();
        wanted_logits.extend_from_slice(wanted.logits);
        wanted_tokens.clear();
        wanted_tokens.extend_from_slice(wanted.most_likely);
    }

    /// Lets go of the tables, so that they can be changed without a copy.
    pub(super) fn release_tables(&mut self) {
        self.rows.tables.clear();
        self.entering.rows.tables.clear();
    }

    /// Forgets what the last launch left, but not the memory it took.
    pub(super) fn clear(&mut self) {
        let Self { rows, entering, busy, .. } = self;
        rows.clear();
        entering.rows.clear();
        entering.tokens.clear();
        entering.initial.clear();
        *busy = Busy::default();
    }
}

impl Entering {
    pub(super) fn fill(&mut self, tokens: &[u32], initial: &[f32], launch: Launch<'_>) {
        self.rows.fill(launch);
        self.tokens.extend_from_slice(tokens);
        self.initial.extend_from_slice(initial);
    }
}

impl ParcelRows {
    fn new(rows: usize) -> Self {
        Self {
            latents: Vec::with_capacity(rows),
            kv: Vec::with_capacity(rows),
            tables: Vec::with_capacity(rows),
        }
    }

    /// Keeps the rows of `launch`, and snapshots of the tables they use.
    pub(super) fn fill(&mut self, launch: Launch<'_>) {
        self.clear();
        let Self { latents, kv, tables } = self;
        latents.extend_from_slice(launch.latents);
        let mut last = None;
        for row in launch.kv.rows {
            // Rows of one lane follow on each other.
            if last.replace(row.table) != Some(row.table) {
                tables.push(launch.kv.tables[row.table as usize].clone());
            }
            kv.push(KvRow { table: tables.len() as u32 - 1, ..*row });
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.latents.is_empty()
    }

    pub(super) fn latents(&self) -> &[u32] {
        &self.latents
    }

    pub(super) fn launch(&self) -> Launch<'_> {
        Launch { latents: &self.latents, kv: KvRows { rows: &self.kv, tables: &self.tables } }
    }

    fn clear(&mut self) {
        self.latents.clear();
        self.kv.clear();
        self.tables.clear();
    }
}

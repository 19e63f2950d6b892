//! What the engine runs rows on: a model on some device or devices, with all memory that its launches write.

use std::time::Duration;

use windlass_kernels::{Arithmetic, Backend, KvTable, LatentChange};

use crate::config::ModelConfig;
use crate::network::{Capacity, Launch, Network, Workspace};
use crate::ranks::HeadPart;

/// A model that runs launches.
///
/// Launches are collected in the order in which [`Runner::next_done`] tells of them. Up to [`Runner::launches_under_way`] of
/// core and coda may be started and not collected. Rows of a launch that is under way take no part in another, but what a
/// prelude reads in goes on with the next core launch.
pub trait Runner: Send + 'static {
    /// The model's sizes.
    fn config(&self) -> &ModelConfig;
    /// What decides the bits of products.
    fn arithmetic(&self) -> Arithmetic;
    /// How many ranks share each product. Like the arithmetic it decides the order of sums, and so bits.
    fn ranks(&self) -> usize {
        1
    }
    /// Makes memory for `capacity` in place of what there was, whose contents are lost. Before that there is room for nothing.
    fn allocate(&mut self, capacity: Capacity);
    /// How many launches of core and coda it takes to keep everything busy; at least 1.
    fn launches_under_way(&self) -> usize;

    /// From now on `table` holds `contents`, which a lane begins with. Later changes are those that launches show: a row's own
    /// block, and the highest slot of its position.
    fn open(&mut self, table: u32, contents: &KvTable) {
        let _ = (table, contents);
    }

    /// Reads `tokens` (one per row) into the rows' embeddings, and sets their latents to `initial`, `[rows, hidden]`.
    fn prelude(&mut self, tokens: &[u32], initial: &[f32], launch: Launch<'_>);
    /// Starts one core iteration of every row, at whatever depth each is.
    fn start_core(&mut self, launch: Launch<'_>);
    /// Waits until one of the launches under way is done, and says of which part it is: the one of that part which was started
    /// first. It is collected next.
    fn next_done(&mut self) -> Part;
    /// Collects a core launch that is done. Replaces `changes` by how far each of its rows' latents moved.
    fn finish_core(&mut self, changes: &mut Vec<LatentChange>);
    /// Starts the coda on the rows' latents, and the head on some of them.
    fn start_coda(&mut self, launch: Launch<'_>, wanted: Wanted<'_>);
    /// Collects a coda launch that is done. Replaces `logits` by those of the rows that wanted them,
    /// `[rows, vocabulary]`, and `most_likely` by the tokens of those that wanted these.
    fn finish_coda(&mut self, logits: &mut Vec<f32>, most_likely: &mut Vec<u32>);
    /// How long the launch that was collected last kept devices busy; none where that is the time from its start to its end,
    /// since nothing else was under way.
    fn busy(&self) -> Option<Busy> {
        None
    }
}

/// A part of the model whose launches are started and collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// One iteration.
    Core,
    /// Coda and head.
    Coda,
}

/// How long a launch kept devices busy, all of them together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Busy {
    /// With the prelude of rows that entered.
    pub prelude: Duration,
    /// With the rest of it.
    pub launch: Duration,
}

/// What rows of a coda launch want of the head, as indices into the launch; a row that is in neither list only leaves K/V behind.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Rows that need their logits.
    pub logits: &'a [u32],
    /// Rows that need the most likely token alone.
    pub most_likely: &'a [u32],
}

impl Wanted<'_> {
    /// Whether the head has nothing to do.
    pub fn is_empty(&self) -> bool {
        self.logits.is_empty() && self.most_likely.is_empty()
    }
}

/// A whole network on one device: every launch is over when it has started.
pub struct Local<B: Backend> {
    network: Network<B>,
    workspace: Workspace<B>,
    /// The launch that was started last.
    done: Part,
    /// What the last launches left, until it is collected.
    changes: Vec<LatentChange>,
    pub(crate) head: HeadPart,
}

impl<B: Backend> Local<B> {
    /// Runs `network`, once memory is allocated.
    pub fn new(network: Network<B>) -> Self {
        let workspace = network.workspace(Capacity::NOTHING);
        Self { network, workspace, done: Part::Core, changes: Vec::new(), head: HeadPart::default() }
    }
}

impl<B: Backend> Runner for Local<B> {
    fn config(&self) -> &ModelConfig {
        self.network.config()
    }

    fn arithmetic(&self) -> Arithmetic {
        self.network.arithmetic()
    }

    fn allocate(&mut self, capacity: Capacity) {
        self.workspace = self.network.workspace(Capacity::NOTHING);
        self.workspace = self.network.workspace(capacity);
        self.changes.reserve(capacity.rows);
        self.head.reserve(capacity.rows);
    }

    fn launches_under_way(&self) -> usize {
        1
    }

    fn prelude(&mut self, tokens: &[u32], initial: &[f32], launch: Launch<'_>) {
        self.network.prelude(&mut self.workspace, tokens, initial, launch);
    }

    fn start_core(&mut self, launch: Launch<'_>) {
        self.network.core(&mut self.workspace, launch, &mut self.changes);
        self.done = Part::Core;
    }

    fn next_done(&mut self) -> Part {
        self.done
    }

    fn finish_core(&mut self, changes: &mut Vec<LatentChange>) {
        std::mem::swap(changes, &mut self.changes);
    }

    fn start_coda(&mut self, launch: Launch<'_>, wanted: Wanted<'_>) {
        self.network.coda(&mut self.workspace, launch, wanted.logits, &mut self.head.logits);
        self.network.most_likely(&mut self.workspace, wanted.most_likely, &mut self.head.most_likely);
        self.done = Part::Coda;
    }

    fn finish_coda(&mut self, logits: &mut Vec<f32>, most_likely: &mut Vec<u32>) {
        std::mem::swap(logits, &mut self.head.logits);
        most_likely.clear();
        most_likely.extend(self.head.most_likely.iter().map(|token| token.output));
    }
}

impl<R: Runner + ?Sized> Runner for Box<R> {
    fn config(&self) -> &ModelConfig {
        (**self).config()
    }

    fn arithmetic(&self) -> Arithmetic {
        (**self).arithmetic()
    }

    fn ranks(&self) -> usize {
        (**self).ranks()
    }

    fn allocate(&mut self, capacity: Capacity) {
        (**self).allocate(capacity);
    }

    fn launches_under_way(&self) -> usize {
        (**self).launches_under_way()
    }

    fn open(&mut self, table: u32, contents: &KvTable) {
        (**self).open(table, contents);
    }

    fn prelude(&mut self, tokens: &[u32], initial: &[f32], launch: Launch<'_>) {
        (**self).prelude(tokens, initial, launch);
    }

    fn start_core(&mut self, launch: Launch<'_>) {
        (**self).start_core(launch);
    }

    fn next_done(&mut self) -> Part {
        (**self).next_done()
    }

    fn busy(&self) -> Option<Busy> {
        (**self).busy()
    }

    fn finish_core(&mut self, changes: &mut Vec<LatentChange>) {
        (**self).finish_core(changes);
    }

    fn start_coda(&mut self, launch: Launch<'_>, wanted: Wanted<'_>) {
        (**self).start_coda(launch, wanted);
    }

    fn finish_coda(&mut self, logits: &mut Vec<f32>, most_likely: &mut Vec<u32>) {
        (**self).finish_coda(logits, most_likely);
    }
}

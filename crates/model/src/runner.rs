//! What the engine runs rows on: a model on some device or devices, with all memory that its launches write.

use windlass_kernels::{Arithmetic, Backend, LatentChange};

use crate::config::ModelConfig;
use crate::network::{Capacity, Launch, Network, Workspace};

/// A model that runs launches.
///
/// Launches take effect in the order in which they are started, and what came of them is collected in the same order. Up to
/// [`Runner::launches_under_way`] of core and coda may be started and not collected; rows of a launch that is under way take no
/// part in another.
pub trait Runner: Send + 'static {
    /// The model's sizes.
    fn config(&self) -> &ModelConfig;
    /// What decides the bits of products.
    fn arithmetic(&self) -> Arithmetic;
    /// Makes memory for `capacity` in place of what there was, whose contents are lost. Before that there is room for nothing.
    fn allocate(&mut self, capacity: Capacity);
    /// How many launches of core and coda it takes to keep everything busy; at least 1.
    fn launches_under_way(&self) -> usize;

    /// Reads `tokens` (one per row) into the rows' embeddings, and sets their latents to `initial`, `[rows, hidden]`.
    fn prelude(&mut self, tokens: &[u32], initial: &[f32], launch: Launch<'_>);
    /// Starts one core iteration of every row, at whatever depth each is.
    fn start_core(&mut self, launch: Launch<'_>);
    /// Waits for the core launch that was started first. Replaces `changes` by how far each of its rows' latents moved.
    fn finish_core(&mut self, changes: &mut Vec<LatentChange>);
    /// Starts the coda on the rows' latents, and the head on some of them.
    fn start_coda(&mut self, launch: Launch<'_>, wanted: Wanted<'_>);
    /// Waits for the coda launch that was started first. Replaces `logits` by those of the rows that wanted them,
    /// `[rows, vocabulary]`, and `most_likely` by the tokens of those that wanted these.
    fn finish_coda(&mut self, logits: &mut Vec<f32>, most_likely: &mut Vec<u32>);
}

/// What rows of a coda launch want of the head, as indices into the launch; a row that is in neither list only leaves K/V behind.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Rows that need their logits.
    pub logits: &'a [u32],
    /// Rows that need the most likely token alone.
    pub most_likely: &'a [u32],
}

/// A whole network on one device: every launch is over when it has started.
pub struct Local<B: Backend> {
    network: Network<B>,
    workspace: Workspace<B>,
    /// What the last launches left, until it is collected.
    changes: Vec<LatentChange>,
    logits: Vec<f32>,
    most_likely: Vec<u32>,
}

impl<B: Backend> Local<B> {
    /// Runs `network`, once memory is allocated.
    pub fn new(network: Network<B>) -> Self {
        let workspace = network.workspace(Capacity::NOTHING);
        Self { network, workspace, changes: Vec::new(), logits: Vec::new(), most_likely: Vec::new() }
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
    }

    fn launches_under_way(&self) -> usize {
        1
    }

    fn prelude(&mut self, tokens: &[u32], initial: &[f32], launch: Launch<'_>) {
        self.network.prelude(&mut self.workspace, tokens, initial, launch);
    }

    fn start_core(&mut self, launch: Launch<'_>) {
        self.network.core(&mut self.workspace, launch, &mut self.changes);
    }

    fn finish_core(&mut self, changes: &mut Vec<LatentChange>) {
        std::mem::swap(changes, &mut self.changes);
    }

    fn start_coda(&mut self, launch: Launch<'_>, wanted: Wanted<'_>) {
        self.network.coda(&mut self.workspace, launch, wanted.logits, &mut self.logits);
        self.network.most_likely(&mut self.workspace, wanted.most_likely, &mut self.most_likely);
    }

    fn finish_coda(&mut self, logits: &mut Vec<f32>, most_likely: &mut Vec<u32>) {
        std::mem::swap(logits, &mut self.logits);
        std::mem::swap(most_likely, &mut self.most_likely);
    }
}

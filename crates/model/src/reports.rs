//! What launches report, from their start until it is wanted.

use std::time::Duration;

use windlass_kernels::{Backend, LargestOutput, LatentChange};

use crate::network::{Capacity, Launch, Network, Workspace};
use crate::ranks::HeadPart;
use crate::runner::{Busy, Wanted};

/// What a core and a coda report; used again and again, for its memory.
pub(crate) struct Reports<B: Backend> {
    pub(crate) changes: B::Report<LatentChange>,
    logits: B::Report<f32>,
    most_likely: B::Report<LargestOutput>,
    drawn: B::Report<u32>,
    /// Before the prelude, if one came with the launch, before the launch and behind it.
    pub(crate) moments: [B::Mark; 3],
    pub(crate) has_prelude: bool,
}

impl<B: Backend> Reports<B> {
    /// With room for launches of that capacity. Rows of logits are long, and seldom wanted: they grow.
    pub(crate) fn new(backend: &B, capacity: Capacity) -> Self {
        Self {
            changes: backend.new_report(capacity.rows),
            logits: backend.new_report(0),
            most_likely: backend.new_report(capacity.rows),
            drawn: backend.new_report(capacity.rows),
            moments: Default::default(),
            has_prelude: false,
        }
    }

    /// How long the device was busy with the launch, by its own clock, and with the prelude that came with it. Waits for its end.
    pub(crate) fn busy(&self, backend: &B) -> Busy {
        let [_, began, ended] = &self.moments;
        Busy { prelude: self.wait_until_begun(backend), launch: backend.between(began, ended) }
    }

    /// Waits until the device has begun the launch; returns how long it was busy with the prelude that came with it.
    pub(crate) fn wait_until_begun(&self, backend: &B) -> Duration {
        let [entered, began, _] = &self.moments;
        let entered = if self.has_prelude { entered } else { began };
        backend.between(entered, began)
    }

    /// Whether the device has done the launch.
    pub(crate) fn is_done(&self, backend: &B) -> bool {
        backend.is_past(&self.moments[2])
    }
}

impl<B: Backend> Network<B> {
    /// Runs the coda, and the head where it is wanted.
    pub(crate) fn coda_and_head(
        &self,
        workspace: &mut Workspace<B>,
        launch: Launch<'_>,
        wanted: Wanted<'_>,
        reports: &mut Reports<B>,
    ) {
        self.coda(workspace, launch, wanted.logits, &mut reports.logits);
        self.most_likely(workspace, wanted.most_likely, &mut reports.most_likely);
        if !wanted.drawn.is_empty() {
            self.draw(workspace, wanted.drawn, wanted.draws, &mut reports.drawn);
        }
        self.backend().flush();
    }

    /// Replaces `changes` by what a core reported. Waits for it.
    pub(crate) fn receive_changes(&self, reports: &mut Reports<B>, changes: &mut Vec<LatentChange>) {
        self.backend().receive(&mut reports.changes, changes);
    }

    /// Replaces `head` by what a coda reported. Waits for it.
    pub(crate) fn receive_head(&self, reports: &mut Reports<B>, head: &mut HeadPart) {
        self.backend().receive(&mut reports.logits, &mut head.logits);
        self.backend().receive(&mut reports.most_likely, &mut head.most_likely);
        self.backend().receive(&mut reports.drawn, &mut head.drawn);
        for token in &mut head.most_likely {
            token.output += self.shard().vocabulary.start as u32;
        }
    }
}

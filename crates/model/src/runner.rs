//! What the engine runs rows on: a model on some device or devices, with all memory that its launches write.

use std::collections::VecDeque;
use std::time::Duration;

use windlass_kernels::{Arithmetic, Backend, Draws, KvTable, LatentChange, Stop};

use crate::config::ModelConfig;
use crate::network::{Capacity, Launch, Network, Workspace};
use crate::ranks::HeadPart;
use crate::reports::Reports;

/// A model that runs launches.
///
/// Launches are collected in the order in which [`Runner::next_done`] tells of them. Up to [`Runner::launches_under_way`] of
/// core and coda may be started and not collected. Rows of a launch that is under way take no part in another, but what a
/// prelude reads in goes on with the next core launch.
///
/// One that [runs ahead](Runner::runs_ahead) takes a tick's core before the core and the coda of the last are collected.
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
    /// Whether rows of a core launch may take part in the next before it is collected. Launches then run in the order of their
    /// start, and a row that stops in one changes nothing in those that follow until it leaves.
    fn runs_ahead(&self) -> bool {
        false
    }

    /// Whether tokens can be drawn where the logits are.
    fn draws(&self) -> bool {
        false
    }

    /// From now on `table` holds `contents`, which a lane begins with. Later changes are those that launches show, a row's own
    /// block and the highest slot of its position, and those of [`Runner::lower`].
    fn open(&mut self, table: u32, contents: &KvTable) {
        let _ = (table, contents);
    }

    /// From now on `slot` is the highest slot of `position` in `table`, less than launches have shown: its row stopped before those.
    /// Matters where this runs ahead.
    fn lower(&mut self, table: u32, position: usize, slot: u32) {
        let _ = (table, position, slot);
    }

    /// Reads `tokens` (one per row) into the rows' embeddings, and sets their latents to `initial`, `[rows, hidden]`.
    fn prelude(&mut self, tokens: &[u32], initial: &[f32], launch: Launch<'_>);
    /// Starts one core iteration of every row, at whatever depth each is. `stops` say by what change each stops, which matters where
    /// this runs ahead.
    fn start_core(&mut self, launch: Launch<'_>, stops: &[Stop]);
    /// Waits until one of the launches under way is done, and says of which part it is: the one of that part which was started
    /// first. It is collected next.
    fn next_done(&mut self) -> Part;
    /// Collects a core launch that is done. Replaces `changes` by how far each of its rows' latents moved.
    fn finish_core(&mut self, changes: &mut Vec<LatentChange>);
    /// Starts the coda on the rows' latents, and the head on some of them.
    fn start_coda(&mut self, launch: Launch<'_>, wanted: Wanted<'_>);
    /// Collects a coda launch that is done. Replaces what `found` has of what was wanted by what it found.
    fn finish_coda(&mut self, found: &mut Found);
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

/// What rows of a coda launch want of the head, as indices into the launch; a row that is in no list only leaves K/V behind.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Rows that need their logits.
    pub logits: &'a [u32],
    /// Rows that need the most likely token alone.
    pub most_likely: &'a [u32],
    /// Rows that need a drawn token alone, where the runner [draws](Runner::draws).
    pub drawn: &'a [u32],
    /// How each of these is drawn.
    pub draws: Draws<'a>,
}

/// What the head has of what rows wanted, in their order.
#[derive(Debug, Default)]
pub struct Found {
    /// `[rows, vocabulary]`.
    pub logits: Vec<f32>,
    /// The most likely tokens.
    pub most_likely: Vec<u32>,
    /// The drawn ones.
    pub drawn: Vec<u32>,
}

/// A whole network on one device.
pub struct Local<B: Backend> {
    network: Network<B>,
    workspace: Workspace<B>,
    runs_ahead: bool,
    /// Launches that were started and not collected, in that order.
    started: VecDeque<(Part, Reports<B>)>,
    /// For launches to come.
    spare: Vec<Reports<B>>,
    /// Of the core launch that comes with the prelude that was started last.
    entering: Option<Reports<B>>,
    /// Of the launch that was collected last, where others were under way.
    busy: Option<Busy>,
    /// Of the coda that was collected last.
    head: HeadPart,
}

impl<B: Backend> Local<B> {
    /// Runs `network`, once memory is allocated; ahead, where launches are only begun when their calls return.
    pub fn new(network: Network<B>) -> Self {
        let runs_ahead = network.backend().is_asynchronous();
        Self::with(network, runs_ahead)
    }

    /// The same, ahead on any device. On one where a launch is over when its call returns that only costs rows.
    pub fn ahead(network: Network<B>) -> Self {
        Self::with(network, true)
    }

    fn with(network: Network<B>, runs_ahead: bool) -> Self {
        Self {
            workspace: network.workspace(Capacity::NOTHING),
            network,
            runs_ahead,
            started: VecDeque::new(),
            spare: Vec::new(),
            entering: None,
            busy: None,
            head: HeadPart::default(),
        }
    }

    /// Reports for the next launch.
    fn reports(&mut self) -> Reports<B> {
        let mut reports = self.spare.pop().expect("reports for every launch there can be");
        reports.has_prelude = false;
        reports
    }

    fn start(&mut self, part: Part, launch: impl FnOnce(&Network<B>, &mut Workspace<B>, &mut Reports<B>)) {
        let mut reports = self.entering.take().unwrap_or_else(|| self.reports());
        let backend = self.network.backend();
        backend.mark(&mut reports.moments[1]);
        launch(&self.network, &mut self.workspace, &mut reports);
        backend.mark(&mut reports.moments[2]);
        self.started.push_back((part, reports));
    }

    fn finish(&mut self, receive: impl FnOnce(&Network<B>, &mut Reports<B>)) {
        let (_, mut reports) = self.started.pop_front().expect("a launch is collected after its start");
        receive(&self.network, &mut reports);
        if self.runs_ahead {
            self.busy = Some(reports.busy(self.network.backend()));
        }
        self.spare.push(reports);
    }

    /// Collects a coda launch into `head`.
    pub(crate) fn finish_head(&mut self, head: &mut HeadPart) {
        self.finish(|network, reports| network.receive_head(reports, head));
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
        let reports = || Reports::new(self.network.backend(), capacity);
        // Ahead there are a core and a coda of the last tick, and this one's core.
        self.spare = std::iter::repeat_with(reports).take(if self.runs_ahead { 3 } else { 1 }).collect();
        self.head.reserve(capacity.rows);
    }

    fn launches_under_way(&self) -> usize {
        1
    }

    fn runs_ahead(&self) -> bool {
        self.runs_ahead
    }

    fn draws(&self) -> bool {
        self.network.can_draw()
    }

    fn prelude(&mut self, tokens: &[u32], initial: &[f32], launch: Launch<'_>) {
        let mut reports = self.reports();
        reports.has_prelude = true;
        self.network.backend().mark(&mut reports.moments[0]);
        self.network.prelude(&mut self.workspace, tokens, initial, launch);
        self.entering = Some(reports);
    }

    fn start_core(&mut self, launch: Launch<'_>, stops: &[Stop]) {
        self.start(Part::Core, |network, workspace, reports| {
            network.core(workspace, launch, stops, &mut reports.changes);
        });
    }

    fn next_done(&mut self) -> Part {
        self.started.front().expect("a launch is under way").0
    }

    fn finish_core(&mut self, changes: &mut Vec<LatentChange>) {
        self.finish(|network, reports| network.receive_changes(reports, changes));
    }

    fn start_coda(&mut self, launch: Launch<'_>, wanted: Wanted<'_>) {
        self.start(Part::Coda, |network, workspace, reports| {
            network.coda_and_head(workspace, launch, wanted, reports);
        });
    }

    fn finish_coda(&mut self, found: &mut Found) {
        let mut head = std::mem::take(&mut self.head);
        self.finish_head(&mut head);
        head.hand_over(found);
        self.head = head;
    }

    fn busy(&self) -> Option<Busy> {
        self.busy
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

    fn runs_ahead(&self) -> bool {
        (**self).runs_ahead()
    }

    fn draws(&self) -> bool {
        (**self).draws()
    }

    fn open(&mut self, table: u32, contents: &KvTable) {
        (**self).open(table, contents);
    }

    fn lower(&mut self, table: u32, position: usize, slot: u32) {
        (**self).lower(table, position, slot);
    }

    fn prelude(&mut self, tokens: &[u32], initial: &[f32], launch: Launch<'_>) {
        (**self).prelude(tokens, initial, launch);
    }

    fn start_core(&mut self, launch: Launch<'_>, stops: &[Stop]) {
        (**self).start_core(launch, stops);
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

    fn finish_coda(&mut self, found: &mut Found) {
        (**self).finish_coda(found);
    }
}

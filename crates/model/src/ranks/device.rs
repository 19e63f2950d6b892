//! A device of a split model: its part of the network, which does what orders say.

use std::collections::VecDeque;
use std::time::Duration;

use windlass_kernels::{Backend, Draws, KvRow, KvRows, LatentChange};

use super::follower::HeadPart;
use super::order::{Order, Step};
use super::path::{Inlet, Outlet, Source, Target, links};
use super::tables::Tables;
use crate::network::{Capacity, Launch, Network, Workspace};
use crate::reports::Reports;
use crate::runner::{Busy, Wanted};

/// What a device made of its last order of a kind.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcome {
    /// Of a core what the stage behind goes on with, of the last stage the new latents, `[rows, hidden]`; nothing where devices hand
    /// that to each other.
    pub values: Vec<f32>,
    /// Of a core at the last stage, how far each latent moved.
    pub changes: Vec<LatentChange>,
    /// Of a coda.
    pub head: HeadPart,
    /// How long the device was busy with it, by its own clock; of a core that is handed on when it begins, with its prelude and the core
    /// before.
    pub busy: Option<Busy>,
}

impl Outcome {
    /// Makes room for launches of so many rows, so that none allocates.
    pub(crate) fn reserve(&mut self, rows: usize, hidden: usize) {
        self.values.reserve(rows * hidden);
        self.changes.reserve(rows);
        self.head.reserve(rows);
    }
}

/// Launches whose outcome can wait to be asked for.
pub const UNREAD: usize = 2;

/// A part of a network with all that its launches write, and what orders have told of the lanes.
pub struct Device<B: Backend> {
    network: Network<B>,
    workspace: Workspace<B>,
    tables: Tables,
    latents: Vec<u32>,
    rows: Vec<KvRow>,
    /// For launches to come.
    spare: Vec<Reports<B>>,
    /// Of the core that comes with the prelude of last.
    entering: Option<Reports<B>>,
    /// Cores and codas whose outcome was not asked for, at most [`UNREAD`].
    unread: VecDeque<(Step, Reports<B>)>,
    /// Of the core that was handed on last, when it began, until it is seen to be done.
    handed_on: Option<Reports<B>>,
    /// How long cores took that were handed on and are done, while nobody was told.
    untold: Duration,
    outcome: Outcome,
    /// From the device of the stage before and to that of the one behind, where they hand rows to each other.
    paths: Option<(Inlet<B>, Outlet<B>)>,
}

impl<B: Backend> Device<B> {
    /// One that has been told nothing yet.
    pub fn new(network: Network<B>) -> Self {
        Self::with(network, None)
    }

    fn with(network: Network<B>, paths: Option<(Inlet<B>, Outlet<B>)>) -> Self {
        Self {
            workspace: network.workspace(Capacity::NOTHING),
            spare: Vec::new(),
            entering: None,
            unread: VecDeque::new(),
            handed_on: None,
            untold: Duration::ZERO,
            network,
            tables: Tables::default(),
            latents: Vec::new(),
            rows: Vec::new(),
            outcome: Outcome::default(),
            paths,
        }
    }

    /// The same of a ring of so many stages in other processes. If its backend is linked to them, rows come from there and go there.
    pub fn in_ring(network: Network<B>, stages: usize) -> Self {
        let paths = network.backend().is_linked().then(|| links(stages));
        Self::with(network, paths)
    }

    /// The same between the devices of the stages before and behind.
    pub(crate) fn between(network: Network<B>, paths: (Inlet<B>, Outlet<B>)) -> Self {
        Self::with(network, Some(paths))
    }

    pub(crate) fn network(&self) -> &Network<B> {
        &self.network
    }

    /// How many launches there are whose outcome was not asked for.
    pub fn unread(&self) -> usize {
        self.unread.len()
    }

    /// Whether the outcome of the first of them can be asked for without waiting.
    pub fn is_done(&self) -> bool {
        self.unread
            .front()
            .is_none_or(|(step, reports)| self.is_handed_on(*step) || reports.is_done(self.network.backend()))
    }

    /// What it made of the first core or coda whose outcome was not asked for. Waits for its end, but where another device takes
    /// the rows over by itself: then for its beginning.
    pub fn outcome(&mut self) -> &mut Outcome {
        let Some((step, mut reports)) = self.unread.pop_front() else { return &mut self.outcome };
        let is_handed_on = self.is_handed_on(step);
        let Self { network, spare, handed_on, untold, outcome, .. } = self;
        let backend = network.backend();
        if is_handed_on {
            let prelude = reports.wait_until_begun(backend);
            // Then the one before is done.
            let before = handed_on.replace(reports);
            *untold += before.as_ref().map_or(Duration::ZERO, |before| before.busy(backend).launch);
            spare.extend(before);
            outcome.busy = Some(Busy { prelude, launch: std::mem::take(untold) });
            return outcome;
        }
        match step {
            Step::Core if network.is_last() => network.receive_changes(&mut reports, &mut outcome.changes),
            // Nothing comes to the host that tells of its end.
            Step::Core => backend.wait(),
            _ => network.receive_head(&mut reports, &mut outcome.head),
        }
        outcome.busy = backend.is_asynchronous().then(|| reports.busy(backend));
        spare.push(reports);
        outcome
    }

    /// Whether a core that was handed on is not done.
    ///
    /// # Panics
    /// If the device has failed.
    pub fn is_computing(&mut self) -> bool {
        let Self { network, spare, handed_on, untold, .. } = self;
        let backend = network.backend();
        if let Some(done) = handed_on.take_if(|reports| reports.is_done(backend)) {
            *untold += done.busy(backend).launch;
            spare.push(done);
        }
        handed_on.is_some()
    }

    /// Whether a launch is handed on when it begins.
    fn is_handed_on(&self, step: Step) -> bool {
        let is_taken_over = self.paths.is_some() && self.network.backend().is_asynchronous();
        step == Step::Core && !self.network.is_last() && is_taken_over
    }

    /// Gives up what nobody will ask for.
    pub(super) fn forget(&mut self) {
        self.spare.extend(self.unread.drain(..).map(|(_, reports)| reports));
    }

    /// Does as told, together with all ranks that have the same layers.
    pub fn obey(&mut self, order: &Order) {
        self.note(order);
        let Self {
            network,
            workspace,
            tables,
            latents,
            rows,
            spare,
            entering,
            unread,
            handed_on,
            outcome,
            paths,
            untold,
        } = self;
        let backend = network.backend();
        let reports = |spare: &mut Vec<Reports<B>>| {
            let mut reports = spare.pop().expect("reports for every launch there can be");
            reports.has_prelude = false;
            reports
        };
        let launch = Launch { latents, kv: KvRows { rows, tables: tables.all() } };
        match order.step {
            Step::Allocate(capacity) => {
                *workspace = network.workspace(Capacity::NOTHING);
                *workspace = network.workspace(capacity);
                unread.clear();
                (*entering, *handed_on, *untold) = (None, None, Duration::ZERO);
                // Those that wait to be asked for, the one that was handed on last, and the next.
                *spare = (0..UNREAD + 2).map(|_| Reports::new(backend, capacity)).collect();
                latents.reserve(capacity.rows);
                rows.reserve(capacity.rows);
                let hidden = network.config().hidden;
                outcome.reserve(capacity.rows, if paths.is_some() { 0 } else { hidden });
                if let Some((inlet, outlet)) = paths {
                    inlet.allocate(backend, capacity.rows, hidden);
                    outlet.allocate(backend, capacity.rows, hidden);
                }
            }
            Step::Prelude if network.is_first() => {
                let reports = entering.get_or_insert_with(|| reports(spare));
                reports.has_prelude = true;
                backend.mark(&mut reports.moments[0]);
                network.prelude(workspace, &order.tokens, &order.values, launch);
            }
            // The last stage compares the new latents with them.
            Step::Prelude if !network.is_last() => {}
            Step::Prelude => network.set_latents(workspace, Source::Host(&order.values), latents),
            Step::Latents => {
                let source = match paths {
                    Some((inlet, _)) => Source::Path(inlet),
                    None => Source::Host(&order.values),
                };
                network.set_latents(workspace, source, latents);
            }
            Step::Core => {
                let ways = match paths {
                    Some((inlet, outlet)) => (Source::Path(inlet), Target::Path(outlet)),
                    None => {
                        let is_whole = network.is_first() && network.is_last();
                        assert!(
                            is_whole || !backend.is_asynchronous(),
                            "values of a launch that is not done"
                        );
                        (Source::Host(&order.values), Target::Host(&mut outcome.values))
                    }
                };
                let mut reports = entering.take().unwrap_or_else(|| reports(spare));
                network.core_part(workspace, launch, ways, &order.stops, &mut reports);
                backend.mark(&mut reports.moments[2]);
                unread.push_back((Step::Core, reports));
            }
            Step::Coda => {
                let draws = Draws { rows: &order.draws, changes: &order.changes };
                let (logits, most_likely, drawn) = (&order.logits, &order.most_likely, &order.drawn);
                let wanted = Wanted { logits, most_likely, drawn, draws };
                let mut reports = reports(spare);
                backend.mark(&mut reports.moments[1]);
                network.coda_and_head(workspace, launch, wanted, &mut reports);
                backend.mark(&mut reports.moments[2]);
                unread.push_back((Step::Coda, reports));
            }
        }
    }

    /// Takes in the lanes' tables and the rows.
    fn note(&mut self, order: &Order) {
        self.tables.note(order);
        self.latents.clear();
        self.rows.clear();
        for row in &order.rows {
            self.latents.push(row.latent);
            self.rows.push(row.kv);
        }
    }
}

impl<B: Backend> Drop for Device<B> {
    fn drop(&mut self) {
        self.network.backend().unlink();
    }
}

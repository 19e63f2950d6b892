//! A device of a split model: its part of the network, which does what orders say.

use windlass_kernels::{Backend, Draws, KvRow, KvRows, LatentChange};

use super::follower::HeadPart;
use super::order::{Order, Step};
use super::path::{Inlet, Outlet, Source, Target, links};
use super::tables::Tables;
use crate::network::{Capacity, Launch, Network, Workspace};
use crate::reports::Reports;
use crate::runner::Wanted;

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
}

impl Outcome {
    /// Makes room for launches of so many rows, so that none allocates.
    pub(crate) fn reserve(&mut self, rows: usize, hidden: usize) {
        self.values.reserve(rows * hidden);
        self.changes.reserve(rows);
        self.head.reserve(rows);
    }
}

/// A part of a network with all that its launches write, and what orders have told of the lanes.
pub struct Device<B: Backend> {
    network: Network<B>,
    workspace: Workspace<B>,
    tables: Tables,
    latents: Vec<u32>,
    rows: Vec<KvRow>,
    reports: Reports<B>,
    /// The last core or coda, while what it reports is not asked for.
    unread: Option<Step>,
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
            reports: Reports::new(network.backend(), Capacity::NOTHING),
            unread: None,
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

    /// What it made of the last core and the last coda. Waits for that.
    pub fn outcome(&mut self) -> &mut Outcome {
        let Self { network, reports, outcome, .. } = self;
        match self.unread.take() {
            Some(Step::Core) if network.is_last() => network.receive_changes(reports, &mut outcome.changes),
            // Nothing comes to the host that tells of its end.
            Some(Step::Core) => network.backend().wait(),
            Some(Step::Coda) => network.receive_head(reports, &mut outcome.head),
            _ => {}
        }
        outcome
    }

    /// Does as told, together with all ranks that have the same layers.
    pub fn obey(&mut self, order: &Order) {
        self.note(order);
        let Self { network, workspace, tables, latents, rows, reports, unread, outcome, paths } = self;
        let launch = Launch { latents, kv: KvRows { rows, tables: tables.all() } };
        match order.step {
            Step::Allocate(capacity) => {
                *workspace = network.workspace(Capacity::NOTHING);
                *workspace = network.workspace(capacity);
                *reports = Reports::new(network.backend(), capacity);
                latents.reserve(capacity.rows);
                rows.reserve(capacity.rows);
                let hidden = network.config().hidden;
                outcome.reserve(capacity.rows, if paths.is_some() { 0 } else { hidden });
                if let Some((inlet, outlet)) = paths {
                    inlet.allocate(network.backend(), capacity.rows, hidden);
                    outlet.allocate(network.backend(), capacity.rows, hidden);
                }
            }
            Step::Prelude if network.is_first() => {
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
                    None => (Source::Host(&order.values), Target::Host(&mut outcome.values)),
                };
                network.core_part(workspace, launch, ways, &order.stops, &mut reports.changes);
                *unread = Some(Step::Core);
            }
            Step::Coda => {
                let draws = Draws { rows: &order.draws, changes: &order.changes };
                let (logits, most_likely, drawn) = (&order.logits, &order.most_likely, &order.drawn);
                let wanted = Wanted { logits, most_likely, drawn, draws };
                network.coda_and_head(workspace, launch, wanted, reports);
                *unread = Some(Step::Coda);
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

//! A device of a split model: its part of the network, which does what orders say.

use windlass_kernels::{Backend, Draws, KvRow, KvRows, KvTable, LatentChange};

use super::follower::HeadPart;
use super::order::{Order, Step};
use crate::network::{Capacity, Launch, Network, Workspace};
use crate::reports::Reports;
use crate::runner::Wanted;

/// What a device made of its last order of a kind.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcome {
    /// Of a core what the stage behind goes on with, of the last stage the new latents, `[rows, hidden]`.
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
    tables: Vec<KvTable>,
    latents: Vec<u32>,
    rows: Vec<KvRow>,
    reports: Reports<B>,
    /// The last core or coda, while what it reports is not asked for.
    unread: Option<Step>,
    outcome: Outcome,
}

impl<B: Backend> Device<B> {
    /// One that has been told nothing yet.
    pub fn new(network: Network<B>) -> Self {
        Self {
            workspace: network.workspace(Capacity::NOTHING),
            reports: Reports::new(network.backend(), Capacity::NOTHING),
            unread: None,
            network,
            tables: Vec::new(),
            latents: Vec::new(),
            rows: Vec::new(),
            outcome: Outcome::default(),
        }
    }

    pub(crate) fn network(&self) -> &Network<B> {
        &self.network
    }

    /// What it made of the last core and the last coda. Waits for that.
    pub fn outcome(&mut self) -> &mut Outcome {
        let Self { network, reports, outcome, .. } = self;
        match self.unread.take() {
            Some(Step::Core) => network.receive_changes(reports, &mut outcome.changes),
            Some(Step::Coda) => network.receive_head(reports, &mut outcome.head),
            _ => {}
        }
        outcome
    }

    /// Does as told, together with all ranks that have the same layers.
    pub fn obey(&mut self, order: &Order) {
        self.note(order);
        let Self { network, workspace, tables, latents, rows, reports, unread, outcome } = self;
        let launch = Launch { latents, kv: KvRows { rows, tables } };
        match order.step {
            Step::Allocate(capacity) => {
                *workspace = network.workspace(Capacity::NOTHING);
                *workspace = network.workspace(capacity);
                *reports = Reports::new(network.backend(), capacity);
                latents.reserve(capacity.rows);
                rows.reserve(capacity.rows);
                outcome.reserve(capacity.rows, network.config().hidden);
            }
            Step::Prelude if network.is_first() => {
                network.prelude(workspace, &order.tokens, &order.values, launch);
            }
            // The last stage compares the new latents with them.
            Step::Prelude if !network.is_last() => {}
            Step::Prelude | Step::Latents => network.set_latents(workspace, &order.values, latents),
            Step::Core => {
                let (input, output) = (&order.values, &mut outcome.values);
                network.core_part(workspace, launch, (input, output), &order.stops, &mut reports.changes);
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
        for opened in &order.opened {
            opened.fill(table(&mut self.tables, opened.table));
        }
        self.latents.clear();
        self.rows.clear();
        for row in &order.rows {
            row.update(table(&mut self.tables, row.kv.table));
            self.latents.push(row.latent);
            self.rows.push(row.kv);
        }
    }
}

fn table(tables: &mut Vec<KvTable>, index: u32) -> &mut KvTable {
    let index = index as usize;
    if tables.len() <= index {
        tables.resize_with(index + 1, KvTable::default);
    }
    &mut tables[index]
}

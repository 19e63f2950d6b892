//! A rank other than the first.

use std::sync::Arc;

use windlass_kernels::{Backend, KvRow, KvRows, KvTable, LargestOutput};

use super::order::{Order, Step};
use super::turns::Turns;
use crate::network::{Launch, Network};
use crate::runner::{Local, Runner, Wanted};

/// What a rank has of the head's outputs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HeadPart {
    /// Of the rows that want logits, `[rows, shard's vocabulary]`.
    pub logits: Vec<f32>,
    /// Of the rows that want the most likely token, the most likely of the rank's.
    pub most_likely: Vec<LargestOutput>,
}

/// A rank's network, and what rank 0 has told it of the lanes.
pub struct Follower<B: Backend> {
    local: Local<B>,
    tables: Vec<KvTable>,
    latents: Vec<u32>,
    rows: Vec<KvRow>,
    parts: Turns<HeadPart>,
}

impl<B: Backend> Follower<B> {
    /// A rank that has been told nothing yet.
    pub fn new(network: Network<B>) -> Self {
        Self {
            local: Local::new(network),
            tables: Vec::new(),
            latents: Vec::new(),
            rows: Vec::new(),
            parts: Turns::default(),
        }
    }

    /// Does as told, together with all other ranks; returns the rank's part of the head's outputs, if any were asked for.
    pub fn obey(&mut self, order: &Order) -> Option<Arc<HeadPart>> {
        self.note(order);
        let Self { local, tables, latents, rows, parts } = self;
        let launch = Launch { latents, kv: KvRows { rows, tables } };
        match order.step {
            Step::Allocate(capacity) => local.allocate(capacity),
            Step::Prelude => local.prelude(&order.tokens, &order.initial, launch),
            Step::Core => local.start_core(launch),
            Step::Coda => {
                let wanted = Wanted { logits: &order.logits, most_likely: &order.most_likely };
                local.start_coda(launch, wanted);
            }
        }
        let part = || {
            Arc::clone(parts.fill(|part| {
                std::mem::swap(&mut part.logits, &mut local.logits);
                std::mem::swap(&mut part.most_likely, &mut local.most_likely);
            }))
        };
        (order.step == Step::Coda && order.wants_head()).then(part)
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

//! The tables of lanes, as orders tell of them.

use windlass_kernels::{KvRows, KvTable};

use super::order::{LoweredSlot, Order};
use crate::network::Launch;

/// Tables by their number. All ranks that are told the same have the same.
#[derive(Default)]
pub(super) struct Tables(Vec<KvTable>);

impl Tables {
    /// Takes in what has become lower, what lanes have begun with, and what a launch changes.
    pub(super) fn note(&mut self, order: &Order) {
        for &LoweredSlot { table, position, slot } in &order.lowered {
            self.table(table).set_top_slot(position as usize, slot);
        }
        for opened in &order.opened {
            opened.fill(self.table(opened.table));
        }
        for row in &order.rows {
            row.update(self.table(row.kv.table));
        }
    }

    pub(super) fn all(&self) -> &[KvTable] {
        &self.0
    }

    /// The same launch, of these tables.
    pub(super) fn of<'a>(&'a self, launch: Launch<'a>) -> Launch<'a> {
        Launch { kv: KvRows { tables: &self.0, ..launch.kv }, ..launch }
    }

    fn table(&mut self, number: u32) -> &mut KvTable {
        let number = number as usize;
        if self.0.len() <= number {
            self.0.resize_with(number + 1, KvTable::default);
        }
        &mut self.0[number]
    }
}

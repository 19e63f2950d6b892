//! Matrix products over packed weights.
//!
//! Threads share the panels of a weight; a part of the work is a few panels by all rows. For each chunk of inputs and
//! each panel, strips of rows are multiplied and their sums kept in the cache; when the inputs are through, an
//! [`Epilogue`] takes the sums. Each sum is added up in one order of the inputs whatever the rows, strips, chunks and
//! threads, so a row's result does not depend on the batch it is in.

mod blocks;
mod chains;
mod dots;
mod epilogue;
pub(super) mod geometry;
mod input;
mod largest;
mod narrow;
mod packed;
mod prepared;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::ops::Range;

use blocks::{BlockProduct, ThreadTiles};
use dots::Narrow;
pub(super) use epilogue::{Epilogue, Gate, Store};
use geometry::{BLOCK_ROWS, Block, Sums};
pub(super) use input::Input;
pub(super) use largest::Largest;
pub(super) use packed::{Order, PackedMatrix};
use packed::{Panels, Scales};
pub(super) use prepared::Prepared;
use prepared::{OWN_VALUES, ProductId};

use super::isa::Isa;
use super::team::Team;

/// Rows whose sums are kept at a time, and whose inputs stay in the second-level cache beside a few panels.
const ROWS: usize = 256;
/// The same on processors without AVX-512, whose second-level caches are smaller.
const FEW_ROWS: usize = 64;
/// Panels of a part at most.
const PART_PANELS: usize = 4;
/// Bytes of f32 weights from which even a product of few rows is shared among threads: less takes one thread no longer than it
/// takes to wake others.
const PARALLEL_BYTES: usize = 1 << 17;
/// The same of narrow weights, whose products take a fraction of the time.
const PARALLEL_NARROW_BYTES: usize = 1 << 19;
/// Multiply-adds from which a product on fewer weights is shared.
const PARALLEL_WORK: usize = 1 << 20;

thread_local! {
    /// One panel's sums, `[rows]`.
    static SUMS: RefCell<Vec<Sums>> = const { RefCell::new(Vec::new()) };
}

/// `weight · input[i]` for each row, handed to `epilogue`.
pub(super) fn multiply(
    (isa, team): (Isa, &Team),
    prepared: &mut Prepared,
    input: Input<'_>,
    weight: &PackedMatrix,
    epilogue: &dyn Epilogue,
) {
    assert_eq!(input.width(), weight.inputs(), "input width and weight differ");
    let rows = input.rows.len();
    if rows == 0 {
        return;
    }
    let kernel = match &weight.panels {
        Panels::F32(_) => Kernel::Chains(input),
        Panels::Narrow(narrow, ..) if rows * input.width() <= OWN_VALUES => {
            Kernel::OwnDots(*narrow, input, ProductId::next())
        }
        Panels::Narrow(narrow, ..) => {
            prepared.fill_shared(isa, team, *narrow, &input);
            Kernel::Dots(*narrow, prepared)
        }
    };
    let product = Product { isa, kernel, weight, rows, epilogue };
    let panels = weight.panel_count();
    if !product.is_worth_sharing() {
        return product.panels(0..panels);
    }
    let group = product.panels_of_a_part(panels, team.threads());
    team.run(panels.div_ceil(group), &|part| {
        product.panels(part * group..panels.min((part + 1) * group));
    });
}

/// What multiplies.
enum Kernel<'a> {
    Chains(Input<'a>),
    /// On inputs rounded for all threads.
    Dots(Narrow, &'a Prepared),
    /// On inputs that each thread rounds for itself.
    OwnDots(Narrow, Input<'a>, ProductId),
}

/// A product under way.
struct Product<'a> {
    isa: Isa,
    kernel: Kernel<'a>,
    weight: &'a PackedMatrix,
    rows: usize,
    epilogue: &'a dyn Epilogue,
}

impl Product<'_> {
    /// Whether other threads are worth waking.
    fn is_worth_sharing(&self) -> bool {
        let least_bytes = match self.kernel {
            Kernel::Chains(_) => PARALLEL_BYTES,
            Kernel::Dots(..) | Kernel::OwnDots(..) => PARALLEL_NARROW_BYTES,
        };
        let work = self.rows * self.weight.outputs * self.weight.inputs;
        self.weight.bytes() >= least_bytes || work >= PARALLEL_WORK
    }

    /// Panels that share one pass over the inputs: few enough that every thread has several parts.
    fn panels_of_a_part(&self, panels: usize, threads: usize) -> usize {
        (panels / (4 * threads)).clamp(1, PART_PANELS)
    }

    /// All rows by some panels.
    fn panels(&self, panels: Range<usize>) {
        SUMS.with_borrow_mut(|sums| match (&self.kernel, &self.weight.panels) {
            (Kernel::Chains(input), Panels::F32(steps)) => self.each(panels, sums, |rows, panel, sums| {
                let (steps, following) = steps[panel * self.weight.inputs..].split_at(self.weight.inputs);
                chains::multiply(self.isa, input, rows.clone(), steps, following, &mut sums[..rows.len()]);
            }),
            (Kernel::Dots(narrow, inputs), Panels::Narrow(_, weights, scales)) => {
                self.dots(panels, sums, self.blocks(*narrow, inputs, weights, scales));
            }
            (Kernel::OwnDots(narrow, input, id), Panels::Narrow(_, weights, scales)) => {
                prepared::with_own(*id, self.isa, *narrow, input, |inputs| {
                    self.dots(panels, sums, self.blocks(*narrow, inputs, weights, scales));
                });
            }
            _ => unreachable!("kernel and weight are of one format"),
        });
    }

    fn dots(&self, panels: Range<usize>, sums: &mut Vec<Sums>, product: BlockProduct<'_>) {
        let tiles = ThreadTiles::new(self.isa);
        self.each(panels, sums, |rows, panel, sums| product.multiply(&tiles, rows, panel, sums));
    }

    /// Calls `multiply` with some rows, a panel and memory for their sums until all are through, and hands the sums on.
    fn each(
        &self,
        panels: Range<usize>,
        sums: &mut Vec<Sums>,
        multiply: impl Fn(Range<usize>, usize, &mut [Sums]),
    ) {
        let most = if self.isa < Isa::Avx2 { ROWS } else { FEW_ROWS };
        let room = self.rows.min(most).next_multiple_of(2 * BLOCK_ROWS);
        if sums.len() < room {
            sums.resize(room, Sums::ZERO);
        }
        for first in (0..self.rows).step_by(most) {
            let rows = first..self.rows.min(first + most);
            for panel in panels.clone() {
                multiply(rows.clone(), panel, &mut *sums);
                self.epilogue.finish(self.isa, panel, first, &sums[..rows.len()]);
            }
        }
    }

    fn blocks<'a>(
        &self,
        narrow: Narrow,
        inputs: &'a Prepared,
        weights: &'a [Block],
        scales: &'a Scales,
    ) -> BlockProduct<'a> {
        let depth = self.weight.inputs.div_ceil(narrow.block_inputs());
        BlockProduct { isa: self.isa, narrow, inputs, weights, scales, depth }
    }
}

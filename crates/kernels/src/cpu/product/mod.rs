//! Matrix products over packed weights.
//!
//! Threads share the panels of a weight; a part of the work is a few panels by all rows. For each chunk of inputs and
//! each panel, strips of rows are multiplied and their sums kept in the cache; when the inputs are through, an
//! [`Epilogue`] takes the sums. Each sum is added up in one order of the inputs whatever the rows, strips, chunks and
//! threads, so a row's result does not depend on the batch it is in.

mod chains;
mod dots;
mod epilogue;
pub(super) mod geometry;
mod input;
mod largest;
mod narrow;
mod packed;
mod prepared;
mod scales;
mod strips;
#[cfg(test)]
mod tests;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod tiles;

use std::cell::RefCell;
use std::ops::Range;

use dots::Narrow;
pub(super) use epilogue::{Epilogue, Gate, Store};
use geometry::{BLOCK_ROWS, Sums};
pub(super) use input::Input;
pub(super) use largest::Largest;
pub(super) use narrow::to_bf16;
use packed::{Layout, Panels};
pub(super) use packed::{Order, PackedMatrix};
pub(super) use prepared::Prepared;
use prepared::{OWN_VALUES, ProductId};
use strips::Task;

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
            Kernel::Dots(prepared)
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
    Dots(&'a Prepared),
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
        match &self.kernel {
            Kernel::Chains(input) => self.chains(panels, input),
            Kernel::Dots(inputs) => self.dots(panels, inputs),
            Kernel::OwnDots(narrow, input, id) => {
                prepared::with_own(*id, self.isa, *narrow, input, |inputs| self.dots(panels, inputs));
            }
        }
    }

    fn chains(&self, panels: Range<usize>, input: &Input<'_>) {
        let Panels::F32(steps) = &self.weight.panels else { unreachable!("weights are f32 as inputs are") };
        let depth = self.weight.inputs;
        self.each(panels, |rows, panel, sums| {
            let sums = &mut sums[..rows.len()];
            chains::multiply(self.isa, Task::new(input, rows, steps, (panel, depth)), sums);
        });
    }

    fn dots(&self, panels: Range<usize>, inputs: &Prepared) {
        let Panels::Narrow(narrow, layout, scales) = &self.weight.panels else {
            unreachable!("weights are narrow as inputs are");
        };
        let has_tiles = matches!(layout, Layout::Tiles(_));
        assert_eq!(has_tiles, self.isa.has_tiles(), "weights are packed for another instruction set");
        let scale = |rows: Range<usize>, panel: usize, sums: &mut [Sums]| {
            let sums = &mut sums[..rows.len()];
            scales.apply(self.isa, panel, &inputs.scales()[rows], sums);
        };
        match layout {
            Layout::Steps(steps) => {
                let depth = self.weight.inputs.div_ceil(narrow.group_inputs());
                self.each(panels, |rows, panel, sums| {
                    let task = Task::new(inputs, rows.clone(), steps, (panel, depth));
                    dots::multiply((self.isa, *narrow), task, &mut sums[..rows.len()]);
                    scale(rows, panel, sums);
                });
            }
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Layout::Tiles(weights) => {
                let depth = self.weight.inputs.div_ceil(narrow.block_inputs());
                let product = tiles::TileProduct { narrow: *narrow, inputs, weights, depth };
                let tiles = super::amx::Tiles::new();
                self.each(panels, |rows, panel, sums| {
                    product.multiply(&tiles, rows.clone(), panel, sums);
                    scale(rows, panel, sums);
                });
            }
            #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
            Layout::Tiles(_) => unreachable!("weights are packed for what the machine has"),
        }
    }

    /// Calls `multiply` with some rows, a panel and memory for their sums until all are through, and hands the sums on.
    fn each(&self, panels: Range<usize>, multiply: impl Fn(Range<usize>, usize, &mut [Sums])) {
        let most = if self.isa < Isa::Avx2 { ROWS } else { FEW_ROWS };
        // Tiles write whole blocks of rows, two at a time.
        let room = self.rows.min(most).next_multiple_of(2 * BLOCK_ROWS);
        SUMS.with_borrow_mut(|sums| {
            if sums.len() < room {
                sums.resize(room, Sums::ZERO);
            }
            for first in (0..self.rows).step_by(most) {
                let rows = first..self.rows.min(first + most);
                for panel in panels.clone() {
                    multiply(rows.clone(), panel, sums);
                    self.epilogue.finish(self.isa, panel, first, &sums[..rows.len()]);
                }
            }
        });
    }
}

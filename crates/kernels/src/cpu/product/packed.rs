//! Weights in the layout of their format.

use super::dots::{Narrow, biased};
use super::geometry::{Block, GROUPS, PANEL, Step};
use super::narrow::{Plain, Round, int8_scale, inverse, to_int8};
use super::scales::Scales;
use crate::cpu::disjoint::Disjoint;
use crate::cpu::format::WeightFormat;
use crate::cpu::isa::Isa;
use crate::cpu::pages::{FromZeros, Pages};
use crate::cpu::team::Team;
use crate::weight::Weight;

/// A weight `[outputs, inputs]` in panels, padded with zeros.
#[derive(Debug)]
pub struct PackedMatrix {
    pub(super) panels: Panels,
    pub(super) outputs: usize,
    pub(super) inputs: usize,
    pub(super) order: Order,
}

#[derive(Debug)]
pub(super) enum Panels {
    /// `[panels][inputs]`.
    F32(Pages<Step<f32>>),
    Narrow(Narrow, Layout, Scales),
}

/// How groups of a narrow format stand.
#[derive(Debug)]
pub(super) enum Layout {
    /// `[panels][groups of a row]`.
    Steps(Pages<Step<u32>>),
    /// For the matrix extension, `[panels][blocks of a row]`.
    Tiles(Pages<Block>),
}

/// Which output stands where in the panels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cpu) enum Order {
    /// As given.
    Given,
    /// The first half of the given outputs in the left halves of panels, the second in the right, so that output j
    /// of both is in the same panel.
    Paired,
}

impl Order {
    /// Panels of so many outputs.
    fn panels(self, outputs: usize) -> usize {
        match self {
            Self::Given => outputs.div_ceil(PANEL),
            Self::Paired => (outputs / 2).div_ceil(PANEL / 2),
        }
    }
}

/// What is packed, `[outputs, inputs]`.
#[derive(Clone, Copy)]
struct Source<'a> {
    weight: &'a Weight<'a>,
    order: Order,
}

impl Source<'_> {
    /// Reads the row of output `j` of `panel` into `row`; false in the padding.
    fn read(&self, panel: usize, j: usize, row: &mut [f32]) -> bool {
        let outputs = self.weight.rows();
        let output = match self.order {
            Order::Given => panel * PANEL + j,
            Order::Paired => {
                let (half, within) = (j / (PANEL / 2), j % (PANEL / 2));
                let of_half = panel * (PANEL / 2) + within;
                if of_half >= outputs / 2 {
                    return false;
                }
                half * (outputs / 2) + of_half
            }
        };
        let is_there = output < outputs;
        if is_there {
            self.weight.read(output, row);
        }
        is_there
    }

    fn inputs(&self) -> usize {
        self.weight.width()
    }

    fn panels(&self) -> usize {
        self.order.panels(self.weight.rows())
    }

    /// Calls `pack` with the number and the row of every output of `panel`.
    fn each_row(&self, panel: usize, mut pack: impl FnMut(usize, &[f32])) {
        let mut row = vec![0.0; self.inputs()];
        for j in 0..PANEL {
            if self.read(panel, j, &mut row) {
                pack(j, &row);
            }
        }
    }
}

impl PackedMatrix {
    /// Packs `[outputs, inputs]` for `isa`.
    pub(in crate::cpu) fn pack(
        (isa, team): (Isa, &Team),
        format: WeightFormat,
        weight: &Weight<'_>,
        order: Order,
    ) -> Self {
        let source = Source { weight, order };
        let panels = match format {
            WeightFormat::F32 => Panels::F32(pack_f32(team, source)),
            WeightFormat::Bf16 => pack_bf16(isa, team, source),
            WeightFormat::Int8 => pack_int8(isa, team, source),
        };
        Self { panels, outputs: weight.rows(), inputs: weight.width(), order }
    }

    /// Outputs a product has for each row: one of a pair.
    pub(in crate::cpu) fn outputs(&self) -> usize {
        match self.order {
            Order::Given => self.outputs,
            Order::Paired => self.outputs / 2,
        }
    }

    pub(in crate::cpu) fn inputs(&self) -> usize {
        self.inputs
    }

    pub(super) fn panel_count(&self) -> usize {
        self.order.panels(self.outputs)
    }

    /// Bytes of the panels.
    pub(super) fn bytes(&self) -> usize {
        match &self.panels {
            Panels::F32(steps) => size_of_val::<[_]>(steps),
            Panels::Narrow(_, Layout::Steps(steps), _) => size_of_val::<[_]>(steps),
            Panels::Narrow(_, Layout::Tiles(blocks), _) => size_of_val::<[_]>(blocks),
        }
    }
}

fn pack_f32(team: &Team, source: Source<'_>) -> Pages<Step<f32>> {
    let inputs = source.inputs();
    let mut steps = Pages::<Step<f32>>::new(source.panels() * inputs);
    let all = Disjoint::new(&mut steps);
    team.run(source.panels(), &|panel| {
        let steps = all.range(panel * inputs, inputs);
        source.each_row(panel, |j, row| {
            for (step, &value) in steps.iter_mut().zip(row) {
                step.0[j / 16][j % 16] = value;
            }
        });
    });
    steps
}

fn pack_bf16(isa: Isa, team: &Team, source: Source<'_>) -> Panels {
    let groups = pack_groups(isa, team, source, Narrow::Bf16, |_, values, groups| Plain.bf16(values, groups));
    Panels::Narrow(Narrow::Bf16, groups, Scales::default())
}

fn pack_int8(isa: Isa, team: &Team, source: Source<'_>) -> Panels {
    assert!(source.inputs() <= 1 << 16, "sums of more than 65536 int8 products may not fit");
    let outputs = source.panels() * PANEL;
    let mut scales = vec![int8_scale(0.0); outputs];
    let mut biases = vec![0; if biased(isa) { outputs } else { 0 }];
    let (all_scales, all_biases) = (Disjoint::new(&mut scales), Disjoint::new(&mut biases));
    team.run(source.panels(), &|panel| {
        let scales = all_scales.range(panel * PANEL, PANEL);
        source.each_row(panel, |j, row| {
            scales[j] = int8_scale(Plain.largest_magnitude(row));
            if biased(isa) {
                let rounded = |&value: &f32| i32::from(to_int8(value, inverse(scales[j])) as i8);
                all_biases.range(panel * PANEL + j, 1)[0] = 128 * row.iter().map(rounded).sum::<i32>();
            }
        });
    });
    let groups = pack_groups(isa, team, source, Narrow::Int8, |output, values, groups| {
        Plain.int8(values, inverse(scales[output]), groups);
    });
    Panels::Narrow(Narrow::Int8, groups, Scales { scales, biases })
}

/// `round(output, values, groups)` makes the groups of one block of one output.
fn pack_groups(
    isa: Isa,
    team: &Team,
    source: Source<'_>,
    narrow: Narrow,
    round: impl Fn(usize, &[f32], &mut [u32; GROUPS]) + Sync,
) -> Layout {
    if isa.has_tiles() {
        let depth = source.inputs().div_ceil(narrow.block_inputs());
        let put = |blocks: &mut [Block], j: usize, block: usize, groups: &[u32; GROUPS]| {
            for (outputs, &group) in blocks[block].0[j / 16].iter_mut().zip(groups) {
                outputs[j % 16] = group;
            }
        };
        return Layout::Tiles(pack_panels(team, source, narrow, depth, (round, put)));
    }
    let depth = source.inputs().div_ceil(narrow.group_inputs());
    let put = |steps: &mut [Step<u32>], j: usize, block: usize, groups: &[u32; GROUPS]| {
        for (step, &group) in steps[block * GROUPS..].iter_mut().zip(groups) {
            step.0[j / 16][j % 16] = group;
        }
    };
    Layout::Steps(pack_panels(team, source, narrow, depth, (round, put)))
}

/// Panels of `depth` each. `put(panel, output in it, block, groups)` stores what `round` has made of a block of an output's row.
fn pack_panels<T: FromZeros + Send>(
    team: &Team,
    source: Source<'_>,
    narrow: Narrow,
    depth: usize,
    (round, put): (
        impl Fn(usize, &[f32], &mut [u32; GROUPS]) + Sync,
        impl Fn(&mut [T], usize, usize, &[u32; GROUPS]) + Sync,
    ),
) -> Pages<T> {
    let mut packed = Pages::new(source.panels() * depth);
    let all = Disjoint::new(&mut packed);
    team.run(source.panels(), &|panel| {
        let own = all.range(panel * depth, depth);
        source.each_row(panel, |j, row| {
            for (block, values) in row.chunks(narrow.block_inputs()).enumerate() {
                let mut groups = [0; GROUPS];
                round(panel * PANEL + j, values, &mut groups);
                put(own, j, block, &groups);
            }
        });
    });
    packed
}

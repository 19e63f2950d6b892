//! Weights in the layout of their format.

use super::dots::Narrow;
use super::geometry::{Block, GROUPS, PANEL, Step};
use super::narrow::{Plain, Round, int8_scale, inverse};
use crate::cpu::disjoint::Disjoint;
use crate::cpu::format::WeightFormat;
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
    F32(Vec<Step>),
    /// `[panels][inputs / inputs of a block]`.
    Narrow(Narrow, Vec<Block>, Scales),
}

/// What turns sums of int8 products into f32; empty for bf16.
#[derive(Debug, Default)]
pub(super) struct Scales {
    /// By packed output.
    pub(super) scales: Vec<f32>,
    /// By packed output: what 128 on every input would add to the sum.
    pub(super) biases: Vec<i32>,
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
    /// Packs `[outputs, inputs]`.
    pub(in crate::cpu) fn pack(team: &Team, format: WeightFormat, weight: &Weight<'_>, order: Order) -> Self {
        let source = Source { weight, order };
        let panels = match format {
            WeightFormat::F32 => Panels::F32(pack_f32(team, source)),
            WeightFormat::Bf16 => Panels::Narrow(Narrow::Bf16, pack_bf16(team, source), Scales::default()),
            WeightFormat::Int8 => pack_int8(team, source),
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
            Panels::F32(steps) => size_of_val(steps.as_slice()),
            Panels::Narrow(_, blocks, _) => size_of_val(blocks.as_slice()),
        }
    }
}

fn pack_f32(team: &Team, source: Source<'_>) -> Vec<Step> {
    let inputs = source.inputs();
    let mut steps = vec![Step::ZERO; source.panels() * inputs];
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

fn pack_bf16(team: &Team, source: Source<'_>) -> Vec<Block> {
    pack_blocks(team, source, Narrow::Bf16, |_, values, groups| Plain.bf16(values, groups))
}

fn pack_int8(team: &Team, source: Source<'_>) -> Panels {
    assert!(source.inputs() <= 1 << 16, "sums of more than 65536 int8 products may not fit");
    let outputs = source.panels() * PANEL;
    let mut scales = vec![int8_scale(0.0); outputs];
    let all = Disjoint::new(&mut scales);
    team.run(source.panels(), &|panel| {
        let scales = all.range(panel * PANEL, PANEL);
        source.each_row(panel, |j, row| scales[j] = int8_scale(Plain.largest_magnitude(row)));
    });
    let blocks = pack_blocks(team, source, Narrow::Int8, |output, values, groups| {
        Plain.int8(values, inverse(scales[output]), groups);
    });
    let mut biases = vec![0; outputs];
    let depth = source.inputs().div_ceil(Narrow::Int8.block_inputs());
    for (panel, blocks) in blocks.chunks_exact(depth.max(1)).enumerate() {
        for vectors in blocks.iter().flat_map(|block| block.0.iter().enumerate()) {
            let (vector, groups) = vectors;
            for (j, group) in groups.iter().flat_map(|outputs| outputs.iter().enumerate()) {
                let sum: i32 = group.to_le_bytes().iter().map(|&byte| i32::from(byte as i8)).sum();
                biases[panel * PANEL + vector * 16 + j] += 128 * sum;
            }
        }
    }
    Panels::Narrow(Narrow::Int8, blocks, Scales { scales, biases })
}

/// `round(output, values, groups)` makes the groups of one block of one output.
fn pack_blocks(
    team: &Team,
    source: Source<'_>,
    narrow: Narrow,
    round: impl Fn(usize, &[f32], &mut [u32; GROUPS]) + Sync,
) -> Vec<Block> {
    let depth = source.inputs().div_ceil(narrow.block_inputs());
    let mut blocks = vec![Block::ZERO; source.panels() * depth];
    let all = Disjoint::new(&mut blocks);
    team.run(source.panels(), &|panel| {
        let blocks = all.range(panel * depth, depth);
        source.each_row(panel, |j, row| {
            for (block, values) in blocks.iter_mut().zip(row.chunks(narrow.block_inputs())) {
                let mut groups = [0; GROUPS];
                round(panel * PANEL + j, values, &mut groups);
                for (group, value) in groups.into_iter().enumerate() {
                    block.0[j / 16][group][j % 16] = value;
                }
            }
        });
    });
    blocks
}

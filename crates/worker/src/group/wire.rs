//! Orders and values as messages, and back. Ranks of a group run the same program, so a message that makes no sense is a fault.

use std::time::Duration;

use windlass_kernels::{Draw, KvRow, LargestOutput, LatentChange, LogitChange, Stop};
use windlass_model::ranks::{HeadPart, LoweredSlot, OpenedTable, Order, OrderRow, Outcome, Step};
use windlass_model::{Busy, Capacity};
use windlass_proto::v1::rank_order::Step as StepMessage;
use windlass_proto::v1::rank_stop::By;
use windlass_proto::v1::{
    RankBusy, RankCapacity, RankDraw, RankHeadPart, RankLogitChange, RankLoweredSlot, RankOrder, RankOutcome,
    RankRow, RankSlot, RankStop, RankTable, RankValues,
};

/// A message that ranks of the same program do not send.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a message between ranks makes no sense: {0}")]
pub(super) struct WireError(&'static str);

pub(super) fn values_message(values: &[f32]) -> RankValues {
    RankValues { values: values.iter().flat_map(|value| value.to_le_bytes()).collect() }
}

/// The values of a message.
pub(super) fn values(message: &RankValues) -> Result<impl ExactSizeIterator<Item = f32>, WireError> {
    let (values, rest) = message.values.as_chunks::<4>();
    if !rest.is_empty() {
        return Err(WireError("values are no f32"));
    }
    Ok(values.iter().map(|bytes| f32::from_le_bytes(*bytes)))
}

pub(super) fn order_message(order: &Order) -> RankOrder {
    let (step, capacity) = match order.step {
        Step::Allocate(capacity) => (StepMessage::Allocate, Some(capacity)),
        Step::Prelude => (StepMessage::Prelude, None),
        Step::Latents => (StepMessage::Latents, None),
        Step::Core => (StepMessage::Core, None),
        Step::Coda => (StepMessage::Coda, None),
    };
    RankOrder {
        step: step.into(),
        capacity: capacity.map(capacity_message),
        opened: order.opened.iter().map(table_message).collect(),
        lowered: order.lowered.iter().map(lowered_message).collect(),
        rows: order.rows.iter().map(row_message).collect(),
        tokens: order.tokens.clone(),
        values: Some(values_message(&order.values)),
        stops: order.stops.iter().map(stop_message).collect(),
        logits: order.logits.clone(),
        most_likely: order.most_likely.clone(),
        drawn: order.drawn.clone(),
        draws: order.draws.iter().map(draw_message).collect(),
        changes: order.changes.iter().map(change_message).collect(),
    }
}

pub(super) fn order(message: &RankOrder) -> Result<Order, WireError> {
    let step = match message.step() {
        StepMessage::Unspecified => return Err(WireError("an order has no step")),
        StepMessage::Prelude => Step::Prelude,
        StepMessage::Latents => Step::Latents,
        StepMessage::Core => Step::Core,
        StepMessage::Coda => Step::Coda,
        StepMessage::Allocate => {
            let asked_for = message.capacity.as_ref().ok_or(WireError("an allocation has no capacity"))?;
            Step::Allocate(capacity(asked_for))
        }
    };
    let rows_values = message.values.as_ref().ok_or(WireError("an order has no values"))?;
    Ok(Order {
        step,
        opened: message.opened.iter().map(table).collect(),
        lowered: message.lowered.iter().map(lowered).collect(),
        rows: message.rows.iter().map(row).collect(),
        tokens: message.tokens.clone(),
        values: values(rows_values)?.collect(),
        stops: message.stops.iter().map(stop).collect(),
        logits: message.logits.clone(),
        most_likely: message.most_likely.clone(),
        drawn: message.drawn.clone(),
        draws: message.draws.iter().map(draw).collect(),
        changes: message.changes.iter().map(change).collect(),
    })
}

pub(super) fn capacity_message(capacity: Capacity) -> RankCapacity {
    let [rows, latents, blocks] =
        [capacity.rows, capacity.latents, capacity.blocks].map(|count| count as u64);
    RankCapacity { rows, latents, blocks }
}

pub(super) fn capacity(message: &RankCapacity) -> Capacity {
    let [rows, latents, blocks] = [message.rows, message.latents, message.blocks].map(|count| count as usize);
    Capacity { rows, latents, blocks }
}

fn table_message(opened: &OpenedTable) -> RankTable {
    let slot = |blocks: &Vec<Option<u32>>| RankSlot {
        blocks: blocks.iter().map(|block| block.map_or(0, |block| block + 1)).collect(),
    };
    RankTable {
        table: opened.table,
        slots: opened.blocks.iter().map(slot).collect(),
        top_slots: opened.top_slots.clone(),
    }
}

fn table(message: &RankTable) -> OpenedTable {
    let slot = |slot: &RankSlot| slot.blocks.iter().map(|block| block.checked_sub(1)).collect();
    OpenedTable {
        table: message.table,
        blocks: message.slots.iter().map(slot).collect(),
        top_slots: message.top_slots.clone(),
    }
}

fn lowered_message(lowered: &LoweredSlot) -> RankLoweredSlot {
    let LoweredSlot { table, position, slot } = *lowered;
    RankLoweredSlot { table, position, slot }
}

fn lowered(message: &RankLoweredSlot) -> LoweredSlot {
    let RankLoweredSlot { table, position, slot } = *message;
    LoweredSlot { table, position, slot }
}

fn row_message(row: &OrderRow) -> RankRow {
    let OrderRow { latent, kv: KvRow { table, position, slot }, block, top_slot } = *row;
    RankRow { latent, table, position, slot, block, top_slot }
}

fn row(message: &RankRow) -> OrderRow {
    let RankRow { latent, table, position, slot, block, top_slot } = *message;
    OrderRow { latent, kv: KvRow { table, position, slot }, block, top_slot }
}

fn stop_message(stop: &Stop) -> RankStop {
    let by = match *stop {
        Stop::Never => None,
        Stop::RelativeDifference(limit) => Some(By::RelativeDifference(limit)),
        Stop::CosineDistance(limit) => Some(By::CosineDistance(limit)),
    };
    RankStop { by }
}

fn stop(message: &RankStop) -> Stop {
    match message.by {
        None => Stop::Never,
        Some(By::RelativeDifference(limit)) => Stop::RelativeDifference(limit),
        Some(By::CosineDistance(limit)) => Stop::CosineDistance(limit),
    }
}

fn draw_message(draw: &Draw) -> RankDraw {
    let Draw { at, temperature, top_k, top_p, min_p, first_change, changes } = *draw;
    RankDraw { at, temperature, top_k, top_p, min_p, first_change, changes }
}

fn draw(message: &RankDraw) -> Draw {
    let RankDraw { at, temperature, top_k, top_p, min_p, first_change, changes } = *message;
    Draw { at, temperature, top_k, top_p, min_p, first_change, changes }
}

fn change_message(change: &LogitChange) -> RankLogitChange {
    let LogitChange { output, bias, repetition, penalty } = *change;
    RankLogitChange { output, bias, repetition, penalty }
}

fn change(message: &RankLogitChange) -> LogitChange {
    let RankLogitChange { output, bias, repetition, penalty } = *message;
    LogitChange { output, bias, repetition, penalty }
}

pub(super) fn head_part_message(part: &HeadPart) -> RankHeadPart {
    let logits: Vec<f32> = part.most_likely.iter().map(|token| token.value).collect();
    RankHeadPart {
        logits: Some(values_message(&part.logits)),
        tokens: part.most_likely.iter().map(|token| token.output).collect(),
        token_logits: Some(values_message(&logits)),
        drawn: part.drawn.clone(),
    }
}

pub(super) fn head_part(message: &RankHeadPart) -> Result<HeadPart, WireError> {
    let missing = WireError("a part of the head's outputs has no logits");
    let logits = message.logits.as_ref().ok_or_else(|| missing.clone())?;
    let token_logits = values(message.token_logits.as_ref().ok_or(missing)?)?;
    if token_logits.len() != message.tokens.len() {
        return Err(WireError("tokens and their logits differ in number"));
    }
    let tokens = message.tokens.iter().zip(token_logits);
    Ok(HeadPart {
        logits: values(logits)?.collect(),
        most_likely: tokens.map(|(&output, value)| LargestOutput { output, value }).collect(),
        drawn: message.drawn.clone(),
    })
}

pub(super) fn outcome_message(outcome: &Outcome) -> RankOutcome {
    let change = |change: &LatentChange| {
        let LatentChange { difference_squared, current_squared, previous_squared, dot } = *change;
        [difference_squared, current_squared, previous_squared, dot]
    };
    let changes: Vec<f32> = outcome.changes.iter().flat_map(change).collect();
    RankOutcome {
        values: Some(values_message(&outcome.values)),
        changes: Some(values_message(&changes)),
        head: Some(head_part_message(&outcome.head)),
        busy: outcome.busy.map(|Busy { prelude, launch }| RankBusy {
            prelude_ns: prelude.as_nanos() as u64,
            launch_ns: launch.as_nanos() as u64,
        }),
    }
}

pub(super) fn outcome(message: &RankOutcome) -> Result<Outcome, WireError> {
    let RankOutcome { values: Some(rows), changes: Some(changes), head: Some(head), busy } = message else {
        return Err(WireError("an outcome is not complete"));
    };
    let changes: Vec<f32> = values(changes)?.collect();
    let (changes, rest) = changes.as_chunks::<4>();
    if !rest.is_empty() {
        return Err(WireError("changes are not four values each"));
    }
    let change = |&[difference_squared, current_squared, previous_squared, dot]: &[f32; 4]| LatentChange {
        difference_squared,
        current_squared,
        previous_squared,
        dot,
    };
    Ok(Outcome {
        values: values(rows)?.collect(),
        changes: changes.iter().map(change).collect(),
        head: head_part(head)?,
        busy: busy.map(|RankBusy { prelude_ns, launch_ns }| Busy {
            prelude: Duration::from_nanos(prelude_ns),
            launch: Duration::from_nanos(launch_ns),
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_arrives_as_it_was_sent() {
        let sent = Order {
            step: Step::Coda,
            opened: vec![OpenedTable {
                table: 3,
                blocks: vec![vec![Some(0), None], vec![], vec![Some(7)]],
                top_slots: vec![1, 0, 2],
            }],
            lowered: vec![LoweredSlot { table: 3, position: 2, slot: 1 }],
            rows: vec![OrderRow {
                latent: 1,
                kv: KvRow { table: 2, position: 3, slot: 4 },
                block: 0,
                top_slot: 5,
            }],
            tokens: vec![9],
            values: vec![0.5, f32::MIN_POSITIVE, -0.0],
            stops: vec![Stop::Never, Stop::RelativeDifference(0.03), Stop::CosineDistance(1e-3)],
            logits: vec![0],
            most_likely: vec![1, 2],
            drawn: vec![3],
            draws: vec![Draw {
                at: u64::MAX - 1,
                temperature: 0.7,
                top_k: 40,
                top_p: 0.9,
                min_p: 0.05,
                first_change: 1,
                changes: 2,
            }],
            changes: vec![LogitChange { output: 8, bias: -0.5, repetition: 1.1, penalty: 0.25 }],
        };
        assert_eq!(order(&order_message(&sent)), Ok(sent));
        let capacity = Capacity { rows: 1, latents: 2, blocks: 3 };
        let sent = Order { step: Step::Allocate(capacity), ..Order::default() };
        assert_eq!(order(&order_message(&sent)), Ok(sent));
    }

    #[test]
    fn a_part_of_the_head_arrives_to_the_bit() {
        let sent = HeadPart {
            logits: vec![1.0, f32::INFINITY],
            most_likely: vec![LargestOutput { output: 5, value: -1e-40 }],
            drawn: vec![0, 65_535],
        };
        assert_eq!(head_part(&head_part_message(&sent)), Ok(sent));
    }

    #[test]
    fn what_a_stage_made_arrives_to_the_bit() {
        let change = LatentChange {
            difference_squared: 0.1,
            current_squared: 2.0,
            previous_squared: f32::INFINITY,
            dot: -0.0,
        };
        let head = HeadPart { logits: vec![3.0], ..HeadPart::default() };
        let busy = Some(Busy { prelude: Duration::from_nanos(1), launch: Duration::from_secs(2) });
        let sent = Outcome { values: vec![0.25, 1e-40], changes: vec![change; 2], head, busy };
        assert_eq!(outcome(&outcome_message(&sent)), Ok(sent));
        let three =
            RankOutcome { changes: Some(values_message(&[1.0; 3])), ..outcome_message(&Outcome::default()) };
        assert_eq!(outcome(&three), Err(WireError("changes are not four values each")));
        assert_eq!(outcome(&RankOutcome::default()), Err(WireError("an outcome is not complete")));
    }

    #[test]
    fn messages_without_sense_are_refused() {
        let unspecified = RankOrder::default();
        assert_eq!(order(&unspecified), Err(WireError("an order has no step")));
        let odd = RankValues { values: vec![0; 5] };
        assert_eq!(values(&odd).err(), Some(WireError("values are no f32")));
    }
}

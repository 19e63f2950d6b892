//! Guesses of tokens that are not known yet, and the drafts that read them.

use windlass_model::{Depth, Runner};

use super::{Batch, Departure, Wants};
use crate::lane::Lane;
use crate::row::RowState;
use crate::shared::Shared;

impl Batch {
    /// Adds rows to the departures from whose latents the token behind them is guessed, and has not been at that depth: those
    /// that have completed `from` iterations, as far as a launch has room.
    pub(super) fn guess(&mut self, from: Depth) {
        let Self { lanes, departures, can_draw, rows, .. } = self;
        let mut room = rows.capacity() - departures.iter().map(|departure| departure.count).sum::<usize>();
        for (index, lane) in lanes.iter_mut().enumerate() {
            let wants = Wants::for_guess(&lane.sequence.request, *can_draw);
            let first = lane.sequence.settled();
            let last =
                (first..).take(lane.rows().len()).filter(|&position| lane.may_guess_behind(position)).count();
            for (position, row) in (first..).zip(&mut lane.rows_mut()[..last]) {
                let is_known = row.state == RowState::Departed || row.guessed_at == row.depth;
                if room > 0 && row.depth >= from && !is_known {
                    (row.is_guessing, row.guessed_at) = (true, row.depth);
                    departures.push(Departure {
                        lane: Some(index),
                        from: position,
                        count: 1,
                        wants,
                        is_guess: true,
                    });
                    room -= 1;
                }
            }
        }
    }

    /// Takes `token` for the one behind `position`. A draft that reads another is given up, with all behind it.
    pub(super) fn take_guess<R: Runner>(
        &mut self,
        index: usize,
        position: usize,
        token: u32,
        shared: &mut Shared<R>,
    ) {
        let lane = &mut self.lanes[index];
        // None where the row was given up while its guess was under way, or has left.
        let Some(row) = lane.row_mut(position).filter(|row| row.is_guessing) else { return };
        row.take_guess(token);
        let behind = position + 1;
        if let Some(draft) = lane.row_mut(behind) {
            if draft.token == token {
                return;
            }
            lane.give_up_drafts(behind, &mut shared.memory.latents);
            self.under_way.iter_mut().for_each(|launch| launch.forget(index, behind..));
        }
        let (grouping, drafts) = (shared.grouping(), self.lanes.iter().map(Lane::drafts).sum::<usize>());
        let lane = &mut self.lanes[index];
        let ends = lane.sequence.request.stops_at(token, &shared.runner.config().stop_tokens);
        if !ends
            && drafts < self.most_drafts
            && let Some(latent) = shared.memory.latents.take()
        {
            lane.draft(token, latent, grouping);
            shared.counters.drafts_total += 1;
        }
    }
}

//! Launches that were started and not collected.

use std::cmp::Ordering;
use std::ops::RangeBounds;
use std::time::Duration;

use windlass_model::{Depth, Part};

use super::Departure;

/// A launch that was started and not collected.
#[derive(Debug)]
pub(crate) struct UnderWay {
    pub(super) part: Part,
    pub(super) start: Duration,
    /// Whether all its rows decode.
    pub(super) decodes: bool,
    /// Rows that entered before it, if any did.
    pub(super) entered: Option<Entered>,
    /// Who takes part in a core.
    pub(super) flights: Vec<Flight>,
    /// Who takes part in a coda.
    pub(super) departures: Vec<Departure>,
}

/// Rows that went through the prelude before a core launch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entered {
    pub(super) rows: usize,
    pub(super) start: Duration,
    pub(super) end: Duration,
}

/// Rows of a lane in a core launch: of a prompt, or one that decodes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flight {
    /// Index of the lane; none where what becomes of its rows is of no interest any more.
    pub(super) lane: Option<usize>,
    /// The first of its positions.
    pub(super) position: usize,
    pub(super) rows: usize,
    /// Of a row that decodes, the depth that it completes.
    pub(super) depth: Option<Depth>,
}

impl UnderWay {
    /// One with nothing in it, and room for so many rows.
    pub(super) fn new(rows: usize) -> Self {
        Self {
            part: Part::Core,
            start: Duration::ZERO,
            decodes: false,
            entered: None,
            flights: Vec::with_capacity(rows),
            departures: Vec::with_capacity(rows),
        }
    }

    /// What becomes of a lane's `positions` in a core is of no interest any more.
    pub(super) fn forget(&mut self, lane: usize, positions: impl RangeBounds<usize>) {
        let is_meant =
            |flight: &&mut Flight| flight.lane == Some(lane) && positions.contains(&flight.position);
        self.flights.iter_mut().filter(is_meant).for_each(|flight| flight.lane = None);
    }

    /// A lane is gone; those behind it have moved up.
    pub(super) fn remove(&mut self, lane: usize) {
        let flights = self.flights.iter_mut().map(|flight| &mut flight.lane);
        let departures = self.departures.iter_mut().map(|departure| &mut departure.lane);
        flights.chain(departures).for_each(|place| move_up(place, lane));
    }
}

/// What becomes of the index of a lane where the one at `gone` is taken out.
pub(super) fn move_up(place: &mut Option<usize>, gone: usize) {
    *place = place.and_then(|index| match index.cmp(&gone) {
        Ordering::Less => Some(index),
        Ordering::Equal => None,
        Ordering::Greater => Some(index - 1),
    });
}

//! Requests that come and go while an engine runs.

use std::collections::BTreeMap;

use windlass_engine::{Engine, Request, RequestId};
use windlass_model::Runner;

use super::choices::Choices;
use super::{Answer, collect, tick};

/// A request with the tick it arrives at and, for some, the tick it is cancelled at.
pub struct Visit {
    pub request: Request,
    pub arrives: usize,
    pub cancelled: Option<usize>,
}

pub fn visits(choices: &mut Choices) -> Vec<Visit> {
    let count = choices.between(2, 9);
    let mut visit = || {
        let arrives = choices.below(30);
        let cancelled = choices.one_in(5).then(|| arrives + choices.between(1, 25));
        Visit { request: choices.request(), arrives, cancelled }
    };
    (0..count).map(|_| visit()).collect()
}

/// Runs a schedule; answers of cancelled requests may be cut short.
pub fn together<R: Runner>(engine: &mut Engine<R>, visits: &[Visit]) -> BTreeMap<RequestId, Answer> {
    let mut answers = BTreeMap::new();
    let mut ticks = 0;
    loop {
        for (id, visit) in (0..).map(RequestId).zip(visits) {
            if visit.arrives == ticks {
                engine.submit(id, visit.request.clone()).unwrap();
            }
            if visit.cancelled == Some(ticks) {
                engine.cancel(id);
            }
        }
        collect(&mut answers, tick(engine));
        ticks += 1;
        if engine.is_idle() && visits.iter().all(|visit| visit.arrives < ticks) {
            return answers;
        }
        assert!(ticks < 100_000, "the schedule does not end");
    }
}

//! Contestants take turns, round after round; what counts is the median.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::contestant::Contestant;
use crate::ffi::process_time;
use crate::problem::Problem;

/// Time one contestant calculates in one round, at least one product.
const ROUND: Duration = Duration::from_millis(6);
/// Time all rounds of one contestant may take together, unless that leaves less than [`FEWEST_ROUNDS`].
const BUDGET: Duration = Duration::from_millis(600);
const FEWEST_ROUNDS: usize = 3;

/// One line of results for each contestant.
pub fn compete(
    problem: &Problem,
    contestants: &mut [Box<dyn Contestant>],
    rows: usize,
    most_rounds: usize,
) -> Vec<Value> {
    let entries: Vec<_> = contestants.iter_mut().map(|contestant| enter(problem, contestant, rows)).collect();
    let mut seconds = vec![Vec::new(); contestants.len()];
    for round in 0..most_rounds {
        for (i, contestant) in contestants.iter_mut().enumerate() {
            let Ok((_, probe)) = &entries[i] else { continue };
            let rounds = (BUDGET.as_secs_f64() / probe.max(ROUND.as_secs_f64())) as usize;
            if round >= rounds.max(FEWEST_ROUNDS) {
                continue;
            }
            wait_until_quiet();
            let products = ((ROUND.as_secs_f64() / probe) as usize).max(1);
            // Before the clock starts, threads wake up, and every copy is read once: others have used the shared cache since.
            let first = round * products;
            let warm_up = problem.copies.max(products.div_ceil(4));
            (0..warm_up).for_each(|i| contestant.run((first + i) % problem.copies));
            let first = first + warm_up;
            let start = Instant::now();
            (0..products).for_each(|i| contestant.run((first + i) % problem.copies));
            seconds[i].push(start.elapsed().as_secs_f64() / products as f64);
        }
    }
    let operations = 2.0 * (rows * problem.outputs * problem.inputs) as f64;
    let bytes = (problem.outputs * problem.inputs * problem.kind.bytes()) as f64;
    let line = |(i, contestant): (usize, &Box<dyn Contestant>)| {
        let key = json!({
            "threads": problem.threads, "kind": problem.kind.name(), "outputs": problem.outputs,
            "inputs": problem.inputs, "copies": problem.copies, "rows": rows, "contestant": contestant.name(),
        });
        let mut line = key;
        match &entries[i] {
            Ok((detail, _)) => {
                let rounds = &mut seconds[i];
                rounds.sort_by(f64::total_cmp);
                let median = rounds[rounds.len() / 2];
                line["detail"] = json!(detail);
                line["rounds"] = json!(rounds.len());
                line["seconds"] = json!(median);
                line["seconds_best"] = json!(rounds[0]);
                line["gops"] = json!(operations / median / 1e9);
                line["weight_gb_per_second"] = json!(bytes / median / 1e9);
            }
            Err(why) => line["error"] = json!(why),
        }
        line
    };
    contestants.iter().enumerate().map(line).collect()
}

/// Checks all ways of a contestant, chooses the fastest, and prepares it. Returns what it is and its seconds.
fn enter(
    problem: &Problem,
    contestant: &mut Box<dyn Contestant>,
    rows: usize,
) -> Result<(String, f64), String> {
    let mut best = Err("has no way".to_owned());
    for way in 0..contestant.ways() {
        let detail = match contestant.prepare(rows, way) {
            Ok(detail) => detail,
            Err(why) => {
                best = best.or(Err(why));
                continue;
            }
        };
        wait_until_quiet();
        contestant.run(0);
        problem.check(contestant.name(), rows, &contestant.output(), contestant.tolerance());
        let mut fastest = f64::INFINITY;
        let begin = Instant::now();
        for i in 0..500 {
            let start = Instant::now();
            contestant.run((1 + i) % problem.copies);
            fastest = fastest.min(start.elapsed().as_secs_f64());
            if begin.elapsed() > 2 * ROUND {
                break;
            }
        }
        if best.as_ref().is_ok_and(|&(_, _, seconds)| seconds <= fastest) {
            continue;
        }
        best = Ok((way, detail, fastest));
    }
    let (way, detail, seconds) = best?;
    if contestant.ways() > 1 {
        contestant.prepare(rows, way)?;
    }
    Ok((detail, seconds))
}

/// Waits until no thread of this process spins for work any more, so that nobody pays for those who went before.
fn wait_until_quiet() {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(500) {
        let (wall, busy) = (Instant::now(), process_time());
        std::thread::sleep(Duration::from_millis(1));
        if (process_time() - busy) < wall.elapsed() / 10 {
            return;
        }
    }
}

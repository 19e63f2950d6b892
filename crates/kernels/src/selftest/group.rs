//! What devices do together against what a plain twin does alone.

use std::thread;

use super::{Check, download, filled, largest_error, values};
use crate::backend::{Backend, Rows};
use crate::group::add_up;
use crate::plain::Plain;

/// Rows that each of these devices hands to the next, and the last to the first.
pub fn run_ring<B: Backend>(devices: &[B]) -> Check {
    let twin = handed(&Plain, &Plain);
    let next = devices.iter().cycle().skip(1);
    let errors = devices.iter().zip(next).map(|(from, to)| largest_error(&twin, &handed(from, to)));
    Check { operation: "rows from each to the next", error: errors.fold(0.0, f32::max), tolerance: 0.0 }
}

/// The same by links, as between processes: each device is linked to the next, and the last to the first.
pub fn run_links<B: Backend>(devices: &[B]) -> Check {
    let twin = handed(&Plain, &Plain);
    let next = devices.iter().cycle().skip(1);
    let errors = devices.iter().zip(next).map(|(from, to)| largest_error(&twin, &sent(from, to)));
    Check { operation: "rows by links", error: errors.fold(0.0, f32::max), tolerance: 0.0 }
}

/// Sums over the ranks of a group, all of them by rank, against sums in their order; and outputs side by side, where the backend
/// joins them.
pub fn run_group<B: Backend>(ranks: Vec<B>) -> Vec<Check> {
    let mut checks = Vec::new();
    let ranks = summed(ranks, &mut checks);
    if ranks.iter().all(|backend| backend.ranks_joined() == Some(ranks.len())) {
        joined(ranks, &mut checks);
    }
    checks
}

fn summed<B: Backend>(ranks: Vec<B>, checks: &mut Vec<Check>) -> Vec<B> {
    // The last thrice, so that its work is recorded and replayed where a backend does that.
    let (width, counts) = (100, [1, 3, 20, 20, 20]);
    // Of magnitudes that make the order of a sum count.
    let summand = |rank: usize, rows: usize| {
        let scale = [1.0, 1e5, 1e-4][rank % 3];
        values(rows * width, rank as u64).into_iter().map(move |value| scale * value).collect::<Vec<_>>()
    };
    let twin = |rows: usize| {
        let mut sum = summand(0, rows);
        (1..ranks.len()).for_each(|rank| add_up(&mut sum, &summand(rank, rows)));
        let mut of_sums = sum.clone();
        (1..ranks.len()).for_each(|_| add_up(&mut of_sums, &sum));
        of_sums
    };
    let twin: Vec<f32> = counts.into_iter().flat_map(twin).collect();
    let of_rank = |(rank, backend): (usize, B)| {
        let mut buffer = backend.buffer(counts[2], width);
        let mut all = Vec::new();
        for rows in counts {
            backend.upload(&summand(rank, rows), &mut buffer, Rows::First(rows));
            backend.all_reduce(&mut buffer, rows);
            backend.all_reduce(&mut buffer, rows);
            all.extend(download(&backend, &buffer, rows));
        }
        (backend, all)
    };
    let (ranks, results): (Vec<B>, Vec<Vec<f32>>) = at_once(ranks, of_rank).into_iter().unzip();
    let errors = results.iter().map(|result| largest_error(&twin, result));
    let error = errors.fold(0.0, f32::max);
    checks.push(Check { operation: "sums over ranks", error, tolerance: 0.0 });
    ranks
}

/// Parts of unequal width: rank r has 30 + r of a row's outputs. Every other rank wants all of them.
fn joined<B: Backend>(ranks: Vec<B>, checks: &mut Vec<Check>) {
    let counts = [1, 3, 20];
    let starts: Vec<u32> =
        (0..=ranks.len() as u32).map(|rank| 30 * rank + rank * rank.saturating_sub(1) / 2).collect();
    let width = |rank: usize| (starts[rank + 1] - starts[rank]) as usize;
    let part = |rank: usize, rows: usize| values(rows * width(rank), 7 + rank as u64);
    let whole = |rows: usize| {
        let parts: Vec<_> = (0..ranks.len()).map(|rank| part(rank, rows)).collect();
        let row = |row| {
            parts.iter().enumerate().flat_map(move |(rank, part)| &part[row * width(rank)..][..width(rank)])
        };
        (0..rows).flat_map(row).copied().collect::<Vec<_>>()
    };
    let twin: Vec<f32> = counts.into_iter().flat_map(whole).collect();
    let outputs = starts[ranks.len()] as usize;
    let of_rank = |(rank, backend): (usize, B)| {
        let mut buffer = backend.buffer(counts[2], width(rank));
        let mut whole = (rank % 2 == 0).then(|| backend.buffer(counts[2], outputs));
        let mut all = Vec::new();
        for rows in counts {
            backend.upload(&part(rank, rows), &mut buffer, Rows::First(rows));
            backend.join_outputs(&buffer, rows, &starts, whole.as_mut());
            backend.flush();
            all.extend(whole.iter().flat_map(|whole| download(&backend, whole, rows)));
        }
        // Nobody leaves before all are done.
        (backend, whole.is_some().then_some(all))
    };
    let results = at_once(ranks, of_rank);
    let errors = results.iter().filter_map(|(_, result)| result.as_ref());
    let errors = errors.map(|result| largest_error(&twin, result));
    checks.push(Check {
        operation: "outputs side by side",
        error: errors.fold(0.0, f32::max),
        tolerance: 0.0,
    });
}

/// What `each` makes of the ranks, by rank, all at the same time.
fn at_once<B: Backend, T: Send>(ranks: Vec<B>, each: impl Fn((usize, B)) -> T + Sync) -> Vec<T> {
    let each = &each;
    thread::scope(|scope| {
        let ranks = ranks.into_iter().enumerate();
        let threads: Vec<_> = ranks.map(|rank| scope.spawn(move || each(rank))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a rank that ends")).collect()
    })
}

/// Rows of one device on another, by one parcel, which is filled again as soon as it was asked to be emptied.
pub(super) fn handed<B: Backend>(from: &B, to: &B) -> Vec<f32> {
    let mut parcel = from.new_parcel(ROWS, WIDTH);
    passed(from, to, |buffer, count, out, rows| {
        from.hand_over(buffer, count, &mut parcel);
        to.take_over(&mut parcel, out, rows);
    })
}

/// The same by a link, each with a parcel of its own.
fn sent<B: Backend>(from: &B, to: &B) -> Vec<f32> {
    let [mut outward, mut inward] = [from, to].map(|device| device.new_parcel(ROWS, WIDTH));
    passed(from, to, |buffer, count, out, rows| {
        from.hand_over(buffer, count, &mut outward);
        from.send_on(&mut outward);
        to.receive_rows(&mut inward, count);
        to.take_over(&mut inward, out, rows);
    })
}

/// Rows that pass at most, and their width.
const ROWS: usize = 6;
const WIDTH: usize = 100;

/// What `pass` puts on `to` of several numbers of rows of `from`, to the first rows and to others.
fn passed<B: Backend>(
    from: &B,
    to: &B,
    mut pass: impl FnMut(&B::Buffer, usize, &mut B::Buffer, Rows<'_>),
) -> Vec<f32> {
    let mut out = to.buffer(4 * ROWS, WIDTH);
    for (turn, count) in [ROWS, 2, 0, ROWS - 1].into_iter().enumerate() {
        let buffer = filled(from, ROWS, WIDTH, turn as u64);
        if turn == 0 {
            pass(&buffer, count, &mut out, Rows::First(count));
        } else {
            let at: Vec<u32> = (0..count).map(|row| ((turn + 1) * ROWS - 1 - row) as u32).collect();
            pass(&buffer, count, &mut out, Rows::At(&at));
        }
    }
    download(to, &out, 4 * ROWS)
}

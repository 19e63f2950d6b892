use super::affinity::rank;
use crate::random::Random;

/// Draws before all workers are looked at.
const DRAWS: usize = 32;

/// A ready worker.
pub(crate) trait Candidate {
    /// As from [`super::worker_hash`].
    fn hash(&self) -> u64;
    /// Core iterations it owes.
    fn owed(&self) -> u64;
}

/// What a request asks of a worker.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wish {
    /// As from [`super::affinity`].
    pub(crate) affinity: Option<u64>,
    /// Core iterations it is expected to take.
    pub(crate) cost: u64,
    /// How many times the mean the preferred worker may owe, this request on top.
    pub(crate) load_factor: f64,
}

/// The worker to take: the preferred one if its load allows, else of two drawn the one that owes less.
///
/// `is_usable`: neither tried already nor suspended. It is asked of few, and among many workers most are never looked at, but
/// for their hashes: what a choice takes is to depend on their number as little as can be.
pub(crate) fn choose<'a, C: Candidate>(
    candidates: &'a [C],
    is_usable: impl Fn(&C) -> bool,
    wish: Wish,
    random: &mut Random,
) -> Option<&'a C> {
    preferred(candidates, &is_usable, wish).or_else(|| less_of_two(candidates, &is_usable, random))
}

/// The worker whose cache knows how the prompt begins. The cap keeps a beginning that many share from crowding one worker.
fn preferred<C: Candidate>(candidates: &[C], is_usable: impl Fn(&C) -> bool, wish: Wish) -> Option<&C> {
    let key = wish.affinity?;
    let best = candidates.iter().max_by_key(|candidate| rank(key, candidate.hash()))?;
    let owed = best.owed();
    let is_under_cap = || {
        let total: f64 = candidates.iter().map(|candidate| candidate.owed() as f64).sum();
        owed as f64 <= wish.load_factor * total / candidates.len() as f64 + wish.cost as f64
    };
    // What owes no more than this request takes is under any cap.
    (is_usable(best) && (owed <= wish.cost || is_under_cap())).then_some(best)
}

fn less_of_two<'a, C: Candidate>(
    candidates: &'a [C],
    is_usable: impl Fn(&C) -> bool,
    random: &mut Random,
) -> Option<&'a C> {
    let drawn = two(candidates.len(), |index| is_usable(&candidates[index]), random);
    drawn.into_iter().flatten().map(|index| &candidates[index]).min_by_key(|candidate| candidate.owed())
}

/// Two different usable indices below `len`, each pair as likely as any other; fewer if there are no more.
fn two(len: usize, is_usable: impl Fn(usize) -> bool, random: &mut Random) -> [Option<usize>; 2] {
    let mut first = None;
    for _ in 0..DRAWS.min(len) {
        let index = random.below(len);
        if first != Some(index) && is_usable(index) {
            match first.replace(index) {
                None => {}
                before => return [before, first],
            }
        }
    }
    // There are few that are usable.
    let mut others: Vec<_> = (0..len).filter(|index| first != Some(*index) && is_usable(*index)).collect();
    let mut draw = || (!others.is_empty()).then(|| others.swap_remove(random.below(others.len())));
    let first = first.or_else(&mut draw);
    [first, draw()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::worker_hash;
    use std::cell::Cell;
    use std::collections::BTreeMap;

    struct Loaded {
        index: usize,
        owed: u64,
        usable: bool,
    }

    impl Candidate for Loaded {
        fn hash(&self) -> u64 {
            worker_hash(&format!("worker-{}", self.index))
        }

        fn owed(&self) -> u64 {
            self.owed
        }
    }

    fn candidates(owed: &[u64]) -> Vec<Loaded> {
        let loaded = |(index, owed): (usize, &u64)| Loaded { index, owed: *owed, usable: true };
        owed.iter().enumerate().map(loaded).collect()
    }

    fn choose(load: &[Loaded], wish: Wish, random: &mut Random) -> Option<usize> {
        super::choose(load, |candidate| candidate.usable, wish, random).map(|chosen| chosen.index)
    }

    fn wish(affinity: Option<u64>, cost: u64) -> Wish {
        Wish { affinity, cost, load_factor: 1.25 }
    }

    #[test]
    fn the_one_that_owes_most_is_never_taken_and_the_load_evens_out() {
        let mut random = Random::new(1);
        let mut load = candidates(&[0; 10]);
        for step in 0..1000 {
            // Of uneven sizes, as answers are.
            let cost = 1 + step % 37 * (step % 7);
            let chosen = choose(&load, wish(None, cost), &mut random).unwrap();
            load[chosen].owed += cost;
        }
        let owed: Vec<_> = load.iter().map(|candidate| candidate.owed).collect();
        let mean = owed.iter().sum::<u64>() / 10;
        assert!(owed.iter().all(|owed| owed.abs_diff(mean) < mean / 10), "{owed:?}");
        let unlike = candidates(&[3, 9, 1]);
        assert!((0..100).all(|_| choose(&unlike, wish(None, 1), &mut random) != Some(1)));
    }

    #[test]
    fn what_is_not_usable_is_not_taken() {
        let mut random = Random::new(2);
        let mut load = candidates(&[0, 5, 5]);
        load[0].usable = false;
        for key in 0..100 {
            assert_ne!(choose(&load, wish(Some(key), 1), &mut random), Some(0));
        }
        load[1].usable = false;
        assert_eq!(choose(&load, wish(None, 1), &mut random), Some(2));
        load[2].usable = false;
        assert_eq!(choose(&load, wish(None, 1), &mut random), None);
        assert_eq!(choose(&[], wish(Some(1), 1), &mut random), None);
    }

    #[test]
    fn a_beginning_stays_at_its_worker_until_that_owes_too_much() {
        let mut random = Random::new(3);
        let mut load = candidates(&[0, 0, 0, 0]);
        let home = choose(&load, wish(Some(42), 10), &mut random).unwrap();
        // The mean is 25: 1.25 × 25 + 10 is 41.25.
        load[home].owed = 41;
        load[(home + 1) % 4].owed = 59;
        assert_eq!(choose(&load, wish(Some(42), 10), &mut random), Some(home));
        load[home].owed = 60;
        load[(home + 1) % 4].owed = 40;
        let elsewhere = (0..50).map(|_| choose(&load, wish(Some(42), 10), &mut random).unwrap());
        assert!(elsewhere.into_iter().all(|index| index != home));
    }

    #[test]
    fn one_beginning_for_all_keeps_every_worker_under_the_cap() {
        let mut random = Random::new(4);
        let mut load = candidates(&[0; 8]);
        for _ in 0..800 {
            let chosen = choose(&load, wish(Some(7), 10), &mut random).unwrap();
            load[chosen].owed += 10;
        }
        assert!(load.iter().all(|candidate| candidate.owed <= 1250 + 20));
    }
    #[test]
    fn every_pair_of_usable_ones_is_as_likely_as_any_other() {
        let mut random = Random::new(5);
        for usable in [&[1_usize, 4, 6][..], &[0, 1, 2, 3, 4, 5, 6, 7]] {
            let pairs = usable.len() * (usable.len() - 1);
            let mut seen = BTreeMap::new();
            for _ in 0..1000 * pairs {
                let [first, second] = two(200, |index| usable.contains(&index), &mut random);
                assert!(
                    first != second && usable.contains(&first.unwrap()) && usable.contains(&second.unwrap())
                );
                *seen.entry((first, second)).or_insert(0) += 1;
            }
            assert_eq!(seen.len(), pairs);
            assert!(seen.values().all(|count| (800..1200).contains(count)), "{seen:?}");
        }
    }

    #[test]
    fn of_many_workers_few_are_asked() {
        let (mut random, load) = (Random::new(6), candidates(&[3; 1000]));
        let asked = Cell::new(0);
        let count = |_: &Loaded| {
            asked.set(asked.get() + 1);
            true
        };
        for _ in 0..1000 {
            assert!(super::choose(&load, count, wish(None, 1), &mut random).is_some());
        }
        assert_eq!(asked.get(), 2000);
    }
}

use super::affinity::rank;
use crate::random::Random;

/// A ready worker as a request sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidate {
    /// As from [`super::worker_hash`].
    pub(crate) hash: u64,
    /// Core iterations it owes.
    pub(crate) owed: u64,
    /// Neither tried already nor suspended.
    pub(crate) usable: bool,
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

/// The index of the worker to take: the preferred one if its load allows, else of two drawn the one that owes less.
pub(crate) fn choose(candidates: &[Candidate], wish: Wish, random: &mut Random) -> Option<usize> {
    preferred(candidates, wish).or_else(|| less_of_two(candidates, random))
}

/// The worker whose cache knows how the prompt begins. The cap keeps a beginning that many share from crowding one worker.
fn preferred(candidates: &[Candidate], wish: Wish) -> Option<usize> {
    let key = wish.affinity?;
    let (index, best) =
        candidates.iter().enumerate().max_by_key(|(_, candidate)| rank(key, candidate.hash))?;
    let total: f64 = candidates.iter().map(|candidate| candidate.owed as f64).sum();
    let cap = wish.load_factor * total / candidates.len() as f64 + wish.cost as f64;
    (best.usable && best.owed as f64 <= cap).then_some(index)
}

fn less_of_two(candidates: &[Candidate], random: &mut Random) -> Option<usize> {
    let usable: Vec<usize> = (0..candidates.len()).filter(|index| candidates[*index].usable).collect();
    if usable.len() < 2 {
        return usable.first().copied();
    }
    let first = random.below(usable.len());
    // Never the same one twice.
    let second = (first + 1 + random.below(usable.len() - 1)) % usable.len();
    [usable[first], usable[second]].into_iter().min_by_key(|index| candidates[*index].owed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::worker_hash;

    fn candidates(owed: &[u64]) -> Vec<Candidate> {
        let hash = |index: usize| worker_hash(&format!("worker-{index}"));
        let candidate =
            |(index, owed): (usize, &u64)| Candidate { hash: hash(index), owed: *owed, usable: true };
        owed.iter().enumerate().map(candidate).collect()
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
        assert!(load.iter().all(|candidate| candidate.owed <= 1250 + 20), "{load:?}");
    }
}

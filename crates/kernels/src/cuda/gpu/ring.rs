//! Where things lie in a stretch of memory that is filled in turns.

/// A stretch, by how much of it was taken and given back. Both only grow; what is left free at the end of a turn counts.
#[derive(Debug)]
pub(super) struct Ring {
    length: u64,
    taken: u64,
    given_back: u64,
}

impl Ring {
    pub(super) fn new(length: usize) -> Self {
        Self { length: length as u64, taken: 0, given_back: 0 }
    }

    /// How much was taken so far.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// Gives back all that had been taken when so much was.
    pub(super) fn give_back(&mut self, taken: u64) {
        self.given_back = self.given_back.max(taken);
    }

    /// Takes `bytes` in one piece, behind what was taken before; returns where they are, if there is room. Where everything was given
    /// back there is room for the whole length.
    pub(super) fn take(&mut self, bytes: usize) -> Option<usize> {
        let (bytes, at) = (bytes as u64, self.taken % self.length);
        let skipped = if at + bytes <= self.length { 0 } else { self.length - at };
        let begin = self.taken + skipped;
        // What is skipped is nobody's if nobody has anything.
        let given_back = if self.given_back == self.taken { begin } else { self.given_back };
        if begin + bytes - given_back > self.length {
            return None;
        }
        (self.taken, self.given_back) = (begin + bytes, given_back);
        Some((begin % self.length) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_follow_on_each_other_and_wait_for_room() {
        let mut ring = Ring::new(100);
        assert_eq!([ring.take(40), ring.take(50)], [Some(0), Some(40)]);
        let both = ring.taken();
        assert_eq!(ring.take(20), None, "the first is not given back");
        ring.give_back(40);
        assert_eq!(ring.take(20), Some(0), "behind the end it goes on at the start");
        assert_eq!(ring.take(21), None);
        assert_eq!(ring.take(20), Some(20));
        ring.give_back(both);
        ring.give_back(40);
        assert_eq!([ring.take(51), ring.take(50)], [None, Some(40)], "what was given back stays so");
    }

    #[test]
    fn where_all_is_given_back_there_is_room_for_everything() {
        for before in 0..=100 {
            let mut ring = Ring::new(100);
            ring.take(before).unwrap();
            ring.give_back(ring.taken());
            assert!(ring.take(100).is_some(), "behind {before}");
            assert_eq!(ring.take(1), None);
            ring.give_back(ring.taken());
            assert!(ring.take(73).is_some() && ring.take(28).is_none());
        }
    }

    #[test]
    fn pieces_that_are_not_given_back_never_overlap() {
        let mut ring = Ring::new(64);
        let mut held: Vec<(usize, usize, u64)> = Vec::new();
        let mut state = 1_u64;
        for _ in 0..10_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let bytes = (state >> 58) as usize + 1;
            match ring.take(bytes) {
                Some(at) => {
                    assert!(at + bytes <= 64);
                    let apart = |&(other, length, _): &(usize, usize, u64)| {
                        at + bytes <= other || other + length <= at
                    };
                    assert!(held.iter().all(apart), "{bytes} at {at} beside {held:?}");
                    held.push((at, bytes, ring.taken()));
                }
                None => {
                    let (.., taken) = held.remove(0);
                    ring.give_back(taken);
                }
            }
        }
    }
}

use std::sync::Arc;

/// A value that is filled anew while others may still read what it was the time before.
///
/// They are done with that by the time after, so that nothing is allocated; if not, they keep it, and this makes another.
#[derive(Debug, Default)]
pub struct Turns<T> {
    values: [Arc<T>; 2],
    next: usize,
}

impl<T: Clone> Turns<T> {
    /// Changes the values of both turns, as to make room in them.
    pub fn each(&mut self, change: impl FnMut(&mut T)) {
        self.values.iter_mut().map(Arc::make_mut).for_each(change);
    }

    /// Fills the value of this turn, which holds what it did the time before last.
    pub fn fill(&mut self, fill: impl FnOnce(&mut T)) -> &Arc<T> {
        let value = &mut self.values[self.next];
        self.next = 1 - self.next;
        fill(Arc::make_mut(value));
        value
    }
}

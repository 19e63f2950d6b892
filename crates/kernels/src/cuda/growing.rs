//! Memory that is kept between launches and grows with the largest of them.

use super::device::{Device, Memory};
use super::queue::{Kept, Queue};
use crate::bytes::{Number, bytes};

/// At least as much as was ever asked for.
#[derive(Debug)]
pub(super) struct Growing<D: Device> {
    memory: Option<Kept<D>>,
    /// What was too small, in a group or between linked stages: in all less than there is now. Freeing memory waits for all devices that
    /// reach it, of which one may wait for this one's part of a sum, and for all that this one has under way, of which rows may wait
    /// for the next stage.
    outgrown: Vec<Kept<D>>,
}

impl<D: Device> Default for Growing<D> {
    fn default() -> Self {
        Self { memory: None, outgrown: Vec::new() }
    }
}

impl<D: Device> Growing<D> {
    /// Memory of `bytes` at least, with whatever is in it.
    pub(super) fn reserve(&mut self, device: &Queue<D>, bytes: usize) -> &Kept<D> {
        let outgrown = self.memory.take_if(|memory| memory.bytes() < bytes);
        self.outgrown.extend(outgrown.filter(|_| device.ranks().is_some() || device.is_linked()));
        self.memory.get_or_insert_with(|| device.allocate(bytes.next_power_of_two()))
    }

    /// Memory that begins with `numbers`.
    pub(super) fn upload<T: Number>(&mut self, device: &Queue<D>, numbers: &[T]) -> &Kept<D> {
        let memory = self.reserve(device, size_of_val(numbers));
        device.upload(bytes(numbers), memory);
        memory
    }
}

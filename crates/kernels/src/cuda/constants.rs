//! Weights of norms and biases: the caller holds them on the host and hands them in with every call.

use std::collections::HashMap;

use super::device::Device;
use super::queue::{Kept, Queue};
use crate::bytes::bytes;

/// Copies on the device, by where the host has them and how many numbers they are. A host may put other numbers at the same place
/// later, so they are compared with what was copied: that costs a microsecond, an upload more.
#[derive(Debug)]
pub(super) struct Constants<D: Device> {
    copies: HashMap<(usize, usize), Copy<D>>,
}

#[derive(Debug)]
struct Copy<D: Device> {
    host: Vec<f32>,
    device: Kept<D>,
}

impl<D: Device> Default for Constants<D> {
    fn default() -> Self {
        Self { copies: HashMap::new() }
    }
}

impl<D: Device> Constants<D> {
    /// `values` on the device.
    pub(super) fn get(&mut self, device: &Queue<D>, values: &[f32]) -> &Kept<D> {
        let copy = self.copies.entry((values.as_ptr().addr(), values.len())).or_insert_with(|| {
            let device = device.allocate(size_of_val(values));
            Copy { host: Vec::new(), device }
        });
        if bytes(&copy.host) != bytes(values) {
            device.upload(bytes(values), &copy.device);
            copy.host = values.to_vec();
        }
        &copy.device
    }
}

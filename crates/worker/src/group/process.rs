//! What backends need to be ranks in processes of their own.

#[cfg(feature = "cuda")]
use windlass_kernels::cuda::{Cuda, Gpu, GroupId};
use windlass_kernels::group::{Exchange, Loss};
use windlass_kernels::{Backend, Cpu, CudaError};
#[cfg(feature = "cuda")]
use windlass_kernels::{GpuConfig, WeightFormat};

use super::place::Place;

/// A backend that can share products with ranks in other processes.
pub(super) trait ProcessRank: Backend + Sized {
    /// Whether rank 0 adds up what ranks send it, and hands on what stages do, since they cannot exchange among themselves.
    const BY_MESSAGES: bool;

    /// What those are told who are to find each other; nothing where they need not.
    fn new_id() -> Result<Vec<u8>, CudaError>;

    /// The same as the rank of its stage that `place` says. `messages` leads to rank 0; who exchanges by itself waits until the
    /// others have come, or fails once told of a loss.
    fn in_group(
        self,
        place: &Place,
        messages: impl Exchange + 'static,
        loss: &Loss,
    ) -> Result<Self, CudaError>;

    /// The same linked to the ranks of other stages that `place` says, where they hand rows on by themselves; then it waits until
    /// they have come, or fails once told of a loss.
    fn linked(self, place: &Place, loss: &Loss) -> Result<Self, CudaError> {
        let _ = (place, loss);
        Ok(self)
    }

    /// The same connected to all others of the worker as `place` says.
    fn connected(
        self,
        place: &Place,
        messages: impl Exchange + 'static,
        loss: &Loss,
    ) -> Result<Self, CudaError> {
        let in_group = if place.ranks > 1 { self.in_group(place, messages, loss)? } else { self };
        if place.is_linked() { in_group.linked(place, loss) } else { Ok(in_group) }
    }
}

impl ProcessRank for Cpu {
    const BY_MESSAGES: bool = true;

    fn new_id() -> Result<Vec<u8>, CudaError> {
        Ok(Vec::new())
    }

    fn in_group(self, _: &Place, messages: impl Exchange + 'static, _: &Loss) -> Result<Self, CudaError> {
        Ok(Self::in_group(self, messages))
    }
}

/// A process' only GPU, with its number and the bytes that are free there.
#[cfg(feature = "cuda")]
pub(super) fn open(gpus: &GpuConfig, weights: WeightFormat) -> Result<(Cuda<Gpu>, (usize, u64)), CudaError> {
    let gpu = Cuda::open(gpus, 1, weights)?.remove(0).remove(0);
    let free = gpu.device().free_bytes();
    Ok((gpu, (gpus.devices[0], free)))
}

#[cfg(feature = "cuda")]
impl ProcessRank for Cuda<Gpu> {
    const BY_MESSAGES: bool = false;

    fn new_id() -> Result<Vec<u8>, CudaError> {
        GroupId::new().map(GroupId::to_bytes)
    }

    fn in_group(self, place: &Place, _: impl Exchange + 'static, loss: &Loss) -> Result<Self, CudaError> {
        Self::in_group(self, &GroupId::from_bytes(&place.group_id)?, (place.ranks, place.shard), loss)
    }

    fn linked(self, place: &Place, loss: &Loss) -> Result<Self, CudaError> {
        let [before, next] = place.link_ids.each_ref().map(|id| GroupId::from_bytes(id));
        Self::linked(self, [&before?, &next?], loss)
    }
}

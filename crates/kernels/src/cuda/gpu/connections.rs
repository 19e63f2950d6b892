//! What connects a device to others by NCCL.

use super::link::Link;
use super::nccl::Communicator;

/// What a device waits for others by. All of it ends when one of them is lost.
#[derive(Default)]
pub(super) struct Connections {
    /// Its place in its group, if it is in one.
    pub(super) group: Option<Communicator>,
    /// If stages have processes of their own.
    pub(super) links: Option<Links>,
}

/// Links to devices of the same rank in other processes.
pub(super) struct Links {
    /// From the stage before.
    pub(super) before: Link,
    /// To the next stage.
    pub(super) next: Link,
}

impl Connections {
    /// Whether it waits for nobody.
    pub(super) fn is_alone(&self) -> bool {
        self.group.is_none() && self.links.is_none()
    }

    /// Whether others are lost, so that what they have will not come.
    pub(super) fn is_lost(&self) -> bool {
        let of_links = |links: &Links| links.before.is_lost() || links.next.is_lost();
        self.group.as_ref().is_some_and(Communicator::is_lost) || self.links.as_ref().is_some_and(of_links)
    }

    /// Leaves all of them, in the current context, whose device this is.
    pub(super) fn leave(&mut self) {
        self.group.take();
        self.links.take();
    }
}

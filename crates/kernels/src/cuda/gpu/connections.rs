//! What connects a device to others by NCCL.

use std::thread;

use super::link::Links;
use super::nccl::Communicator;

/// What a device waits for others by. All of it ends when one of them is lost.
#[derive(Default)]
pub(super) struct Connections {
    /// Its place in its group, if it is in one.
    pub(super) group: Option<Communicator>,
    /// If stages have processes of their own.
    pub(super) links: Option<Links>,
}

impl Connections {
    /// Whether it waits for nobody.
    pub(super) fn is_alone(&self) -> bool {
        self.group.is_none() && self.links.is_none()
    }

    /// Whether others are lost, so that what they have will not come.
    pub(super) fn is_lost(&self) -> bool {
        self.group.as_ref().is_some_and(Communicator::is_lost)
            || self.links.as_ref().is_some_and(Links::is_lost)
    }

    /// Ends all that is under way with others, in the current context, whose device this is, and tells those of its group in this process.
    pub(super) fn leave(&mut self) {
        let group = self.group.take().map(|mut group| {
            group.tell();
            group.forget_all();
            group
        });
        end(group, self.links.take());
    }

    /// The same if it is linked. Its links cannot end alone: what they have under way may wait for the group.
    pub(super) fn unlink(&mut self) {
        if self.links.is_some() {
            self.leave();
        }
    }
}

/// Ends connections all at once: what one has under way may wait for another, and its end waits for that.
pub(super) fn end(group: Option<Communicator>, links: Option<Links>) {
    let links = links.map(|Links { before, next }| [before, next]).into_iter().flatten();
    let (of_links, streams): (Vec<_>, Vec<_>) = links.map(|link| (link.communicator, link.stream)).unzip();
    thread::scope(|scope| {
        for communicator in of_links.into_iter().chain(group) {
            // Where the system refuses the thread it ends here and now.
            let _ = thread::Builder::new().spawn_scoped(scope, move || drop(communicator));
        }
    });
    drop(streams);
}

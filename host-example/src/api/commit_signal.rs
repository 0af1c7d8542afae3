//! Tells streams of the whole store that something was committed.

use std::sync::Arc;

use registry_actor::{
    domain::{SessionDeletion, Tombstone},
    port::{ChangeSource, CommitListener, CommittedBatch},
};
use tokio::sync::watch;

/// Hears of commits. Commits that nobody has looked at yet are one.
pub(crate) struct CommitSignal {
    receiver: watch::Receiver<u64>,
    /// The source holds it weakly.
    _ticker: Arc<dyn CommitListener>,
}

struct Ticker(watch::Sender<u64>);

impl CommitSignal {
    /// Hears of the commits of a source.
    pub(crate) fn attached_to(source: &ChangeSource) -> Self {
        let (sender, receiver) = watch::channel(0);
        let ticker = Arc::new(Ticker(sender)) as Arc<dyn CommitListener>;
        source.attach(&ticker);
        Self { receiver, _ticker: ticker }
    }

    /// A subscription that has seen all commits so far: subscribe first, then read.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        let mut receiver = self.receiver.clone();
        receiver.mark_unchanged();
        receiver
    }
}

impl CommitListener for Ticker {
    fn committed(&self, _: &[CommittedBatch]) {
        self.resync();
    }

    fn pruned(&self, _: &[Tombstone]) {
        self.resync();
    }

    fn sessions_deleted(&self, _: &[SessionDeletion]) {
        self.resync();
    }

    fn resync(&self) {
        self.0.send_modify(|ticks| *ticks = ticks.wrapping_add(1));
    }

    fn closed(&self) {
        self.resync();
    }
}

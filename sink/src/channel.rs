//! The channel sink: the same hand-over, with its far end in the host's hands.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use registry_actor::domain::{ProcessEvent, Tombstone};
use registry_actor::port::{ChangeSource, CommitListener, MissedEvents, ProcessEventSink};

use crate::hand_over::{Delivery, Take};
use crate::line::Line;
use crate::listener::{SinkEvents, SinkListener};
use crate::report::SinkReport;

/// How many gaps may wait to be told; with one more they become one of all processes.
const GAPS: usize = 65_536;

/// A channel that events are told into, for at most `capacity` of them. It carries [`SinkEvents::Appended`].
#[must_use]
pub fn channel(capacity: usize) -> (ChannelSink, SinkReceiver) {
    channel_of(capacity, SinkEvents::Appended)
}

/// The same for other events.
#[must_use]
pub fn channel_of(capacity: usize, events: SinkEvents) -> (ChannelSink, SinkReceiver) {
    let line = Line::new(capacity, GAPS);
    let listener = SinkListener::new(Arc::clone(&line), events);
    let near = ChannelSink { near: Arc::new(NearEnd { line: Arc::clone(&line), listener: Arc::clone(&listener) }) };
    (near, SinkReceiver { line, listener })
}

/// The near end of a channel: handing over never waits. What does not fit is told to the receiver as missed. Clones are one
/// end; it has to be kept for as long as events are to come.
#[derive(Clone)]
pub struct ChannelSink {
    near: Arc<NearEnd>,
}

struct NearEnd {
    line: Arc<Line>,
    listener: Arc<SinkListener>,
}

/// The far end of a channel. When it is dropped, what is handed over is counted as dropped and not kept.
pub struct SinkReceiver {
    line: Arc<Line>,
    listener: Arc<SinkListener>,
}

/// What a receiver is told.
#[derive(Debug, Clone, PartialEq)]
pub enum SinkItem {
    /// An event.
    Event(Arc<ProcessEvent>),
    /// Events that were left out, told before the next event of their process.
    Missed(MissedEvents),
    /// A process was pruned. If its id lives again, its events are numbered from 1 again.
    Pruned(Tombstone),
}

impl ChannelSink {
    /// Hears the commits of a source from now on, for as long as the near end lives.
    pub fn attach(&self, source: &ChangeSource) {
        source.attach(&self.listener());
    }

    /// What became of the events so far. One that was received counts as delivered.
    #[must_use]
    pub fn report(&self) -> SinkReport {
        self.near.line.report()
    }

    fn listener(&self) -> Arc<dyn CommitListener> {
        Arc::clone(&self.near.listener) as Arc<dyn CommitListener>
    }
}

impl SinkReceiver {
    /// What comes next; `None` when all of the near end is gone, or the attached source has ended, and everything was
    /// received. A source that is attached later goes on.
    ///
    /// Cancellation: dropping the future loses nothing.
    pub async fn recv(&mut self) -> Option<SinkItem> {
        loop {
            // First whether it has ended, then the look: what came before the end is found.
            let source_has_ended = self.listener.source_has_ended();
            match self.take() {
                Take::Deliver(delivery) => return item(delivery),
                Take::Ended => return None,
                Take::Nothing if source_has_ended => return None,
                Take::Nothing => self.line.rung().await,
            }
        }
    }

    /// What comes next, if something waits.
    pub fn try_recv(&mut self) -> Option<SinkItem> {
        match self.take() {
            Take::Deliver(delivery) => item(delivery),
            Take::Nothing | Take::Ended => None,
        }
    }

    /// What became of the events so far. One that was received counts as delivered.
    #[must_use]
    pub fn report(&self) -> SinkReport {
        self.line.report()
    }

    fn take(&self) -> Take {
        let taken = self.line.take(1);
        if matches!(taken, Take::Deliver(_)) {
            self.line.delivered();
        }
        taken
    }
}

/// A delivery of at most one event.
fn item(delivery: Delivery) -> Option<SinkItem> {
    match delivery {
        Delivery::Events(events) => events.into_iter().next().map(SinkItem::Event),
        Delivery::Missed(missed) => Some(SinkItem::Missed(missed)),
        Delivery::Pruned(tombstone) => Some(SinkItem::Pruned(tombstone)),
    }
}

/// Every call returns at once.
#[async_trait]
impl ProcessEventSink for ChannelSink {
    async fn emit(&self, event: &Arc<ProcessEvent>) {
        self.near.line.offer([event]);
    }

    async fn emit_batch(&self, events: &[Arc<ProcessEvent>]) {
        self.near.line.offer(events);
    }

    fn batch_limit(&self) -> usize {
        usize::MAX
    }

    async fn missed(&self, missed: &MissedEvents) {
        self.near.line.miss(missed);
    }

    async fn pruned(&self, tombstone: &Tombstone) {
        self.near.line.prune(std::slice::from_ref(tombstone));
    }

    fn commit_listener(&self) -> Option<Arc<dyn CommitListener>> {
        Some(self.listener())
    }
}

impl Drop for NearEnd {
    fn drop(&mut self) {
        self.line.close();
    }
}

impl Drop for SinkReceiver {
    fn drop(&mut self) {
        self.line.give_up();
    }
}

impl fmt::Debug for ChannelSink {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ChannelSink").field("report", &self.report()).finish_non_exhaustive()
    }
}

impl fmt::Debug for SinkReceiver {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SinkReceiver").field("report", &self.report()).finish_non_exhaustive()
    }
}

//! Watching a registry: a hub that ticks when something changed, and a sink that is told of events.
//!
//! A registry that tells of its commits is listened to. One that does not is wrapped, and what goes through the wrapper
//! is told by it; it does not know what is written beside it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use registry_actor::domain::{
    Command, CommandEvents, ProcessEvent, ProcessId, Receipt, ReceiptEvent, RegistryCommand, RegistryReceipt, Sequence,
};
use registry_actor::port::{
    Answer, ChangeSource, CommitListener, DurabilityTier, MissedEvents, ProcessEventSink, ProcessRegistry, Query,
    RegistryError, is_emitted,
};

use crate::hub::ProcessChangeHub;

/// [`watch_process_registry_with_sink`] without a sink.
#[must_use]
pub fn watch_process_registry(inner: Arc<dyn ProcessRegistry>) -> (Arc<dyn ProcessRegistry>, ProcessChangeHub) {
    watch_process_registry_with_sink(inner, None)
}

/// A registry with a hub that ticks when something of a process changed, and a sink that is told of appended events.
///
/// If the registry has a [source of changes](ProcessRegistry::change_source), the hub and the sink's
/// [listener](ProcessEventSink::commit_listener) are attached to it: they hear every commit, whichever handle made it.
/// The returned registry keeps sink and listener: the sink is told for as long as that registry lives. A sink without a
/// listener is emitted to inline, as below, and that is logged as a warning: put it into a mailbox.
///
/// If the registry has none, it is wrapped, and only what goes through the returned registry is told:
/// - The hub ticks after the commit, and only if an event was inserted. Wakes of inserted events tick their targets. A
///   call that may have been carried out ticks too: one whose future was dropped, or that was answered with an unknown
///   outcome. Such a call may be carried out after its tick, so whoever reads at ticks alone has to read by the clock too,
///   as an awaiter does. Leases, grants, the deletion of a session and a prune never tick.
/// - The sink is told after the tick, on the caller's way: a slow one makes slow appends, and one that panics takes the
///   caller with it. What it may not have been told of because a call ended early is [`MissedEvents::Unknown`] to it,
///   before the next event; if such a call is carried out only after that, nothing tells of it. It is not told of prunes. Of appends to one process at the same time it may be told in
///   another order than that of their sequences, because the registry beneath answers them in any order.
///
/// Watch a registry once and share what is returned. If a wrapped registry is watched again, the inner hub ticks for both
/// handles and the outer one for its own alone, and a sink that is given to both is told twice.
#[must_use]
pub fn watch_process_registry_with_sink(
    inner: Arc<dyn ProcessRegistry>,
    sink: Option<Arc<dyn ProcessEventSink>>,
) -> (Arc<dyn ProcessRegistry>, ProcessChangeHub) {
    match inner.change_source() {
        Some(source) => {
            let hub = ProcessChangeHub::attached_to(&source);
            let Some(sink) = sink else { return (inner, hub) };
            let sink = SinkLine::to_source(&source, sink);
            (
                Arc::new(WatchedRegistry {
                    inner,
                    hub: None,
                    sink: Some(sink),
                    may_have_missed: AtomicBool::new(false),
                }),
                hub,
            )
        }
        None => {
            let hub = ProcessChangeHub::new();
            let (ticked, sink) = (Some(hub.clone()), sink.map(SinkLine::Inline));
            (Arc::new(WatchedRegistry { inner, hub: ticked, sink, may_have_missed: AtomicBool::new(false) }), hub)
        }
    }
}

struct WatchedRegistry {
    inner: Arc<dyn ProcessRegistry>,
    /// Ticked here; `None` where the source of the registry beneath ticks.
    hub: Option<ProcessChangeHub>,
    sink: Option<SinkLine>,
    /// Whether events may have been stored that the inline sink was neither told of nor told to have missed.
    may_have_missed: AtomicBool,
}

/// How a sink hears of events.
enum SinkLine {
    /// From here, on the caller's way.
    Inline(Arc<dyn ProcessEventSink>),
    /// From the source of the registry beneath, which knows listeners weakly: they are kept here.
    AtSource { _sink: Arc<dyn ProcessEventSink>, _listener: Arc<dyn CommitListener> },
}

impl SinkLine {
    fn to_source(source: &ChangeSource, sink: Arc<dyn ProcessEventSink>) -> Self {
        let Some(listener) = sink.commit_listener() else {
            tracing::warn!(
                "the registry tells of its commits, and the sink cannot hear of them: it is told by the callers of this \
                 handle, each of whom waits for it; put it into a mailbox"
            );
            return Self::Inline(sink);
        };
        source.attach(&listener);
        Self::AtSource { _sink: sink, _listener: listener }
    }
}

#[async_trait]
impl ProcessRegistry for WatchedRegistry {
    async fn execute(&self, process_id: &ProcessId, command: Command) -> Result<Receipt, RegistryError> {
        let mut untold = self.before(process_id, &command);
        let result = self.inner.execute(process_id, command).await;
        match &result {
            Ok(receipt) => {
                untold.tick(receipt);
                untold.emit(receipt).await;
            }
            Err(error) if error.changed_nothing() => untold.forget(),
            Err(_) => {}
        }
        result
    }

    async fn execute_across(&self, command: RegistryCommand) -> Result<RegistryReceipt, RegistryError> {
        self.inner.execute_across(command).await
    }

    async fn query(&self, query: Query) -> Result<Answer, RegistryError> {
        self.inner.query(query).await
    }

    fn durability_tier(&self) -> DurabilityTier {
        self.inner.durability_tier()
    }

    fn change_source(&self) -> Option<ChangeSource> {
        self.inner.change_source()
    }
}

impl WatchedRegistry {
    fn before<'call>(&'call self, process_id: &'call ProcessId, command: &Command) -> Untold<'call> {
        let Telling { ticks, emits } = Telling::of(command.stores());
        let sink = match &self.sink {
            Some(SinkLine::Inline(sink)) if emits => Some(sink),
            Some(SinkLine::Inline(_) | SinkLine::AtSource { .. }) | None => None,
        };
        Untold {
            process_id,
            hub: self.hub.as_ref().filter(|_| ticks),
            sink,
            may_wake: command.stores() == CommandEvents::Appended,
            may_have_missed: &self.may_have_missed,
        }
    }
}

/// Who is told of a command that changed something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Telling {
    ticks: bool,
    emits: bool,
}

impl Telling {
    const fn of(stores: CommandEvents) -> Self {
        match stores {
            CommandEvents::None => Self { ticks: false, emits: false },
            CommandEvents::Facts => Self { ticks: true, emits: false },
            CommandEvents::Appended => Self { ticks: true, emits: true },
        }
    }
}

/// What nobody has been told of yet. A call that ends before its answer, or with one that does not say what became of it,
/// is taken for one that changed something: a tick too many costs a read, and one too few a waiter.
struct Untold<'call> {
    process_id: &'call ProcessId,
    hub: Option<&'call ProcessChangeHub>,
    sink: Option<&'call Arc<dyn ProcessEventSink>>,
    may_wake: bool,
    may_have_missed: &'call AtomicBool,
}

impl Untold<'_> {
    fn tick(&mut self, receipt: &Receipt) {
        let Some(hub) = self.hub.take() else { return };
        let inserted: BTreeSet<Sequence> = inserted(receipt).map(|event| event.sequence).collect();
        if inserted.is_empty() {
            return;
        }
        hub.notify(self.process_id);
        let new_wakes = receipt.deliveries.iter().filter(|delivery| inserted.contains(&delivery.sequence));
        new_wakes.for_each(|delivery| hub.notify_wakes(&delivery.target));
    }

    async fn emit(&mut self, receipt: &Receipt) {
        let Some(sink) = self.sink else { return };
        let events: Vec<Arc<ProcessEvent>> = inserted(receipt).filter(|event| is_emitted(event)).cloned().collect();
        if !events.is_empty() && self.may_have_missed.swap(false, Ordering::AcqRel) {
            sink.missed(&MissedEvents::Unknown).await;
        }
        for batch in events.chunks(sink.batch_limit().max(1)) {
            sink.emit_batch(batch).await;
        }
        self.sink = None;
    }

    const fn forget(&mut self) {
        self.hub = None;
        self.sink = None;
    }
}

impl Drop for Untold<'_> {
    fn drop(&mut self) {
        if let Some(hub) = self.hub {
            hub.notify(self.process_id);
            if self.may_wake {
                hub.notify_all_wakes();
            }
        }
        if self.sink.is_some() {
            self.may_have_missed.store(true, Ordering::Release);
        }
    }
}

fn inserted(receipt: &Receipt) -> impl Iterator<Item = &Arc<ProcessEvent>> {
    receipt.events.iter().filter(|event| event.is_inserted()).map(ReceiptEvent::event)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_told_follows_from_what_a_command_stores() {
        let told = |stores| {
            let Telling { ticks, emits } = Telling::of(stores);
            (ticks, emits)
        };
        assert_eq!(told(CommandEvents::None), (false, false));
        assert_eq!(told(CommandEvents::Facts), (true, false));
        assert_eq!(told(CommandEvents::Appended), (true, true));
    }
}

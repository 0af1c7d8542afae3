//! Catching up: live delivery and pages of the log, put together so that a consumer sees every event once and in order.
//!
//! It does not know where events are taken to, nor how many lives the sink before it had.

mod place;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use registry_actor::domain::{
    ProcessEvent, ProcessId, ProcessListFilter, ProcessRecord, ProcessStatusFilter, Refusal, Sequence, Tombstone,
};
use registry_actor::port::{
    EventPage, LogError, MissedEvents, ProcessEventSink, ProcessPage, ProcessRegistry, ProcessRegistryExt,
    RegistryError,
};
use tokio::sync::Mutex;
use tokio::time::Instant;

use self::place::{FIRST_LIFE, Place, by_process};
use crate::listener::SinkEvents;
use crate::mailbox::{MailboxError, MailboxOptions, SinkMailbox};
use crate::restart::SinkRestart;

/// How often a read is tried before the process is put off.
const READ_ATTEMPTS: u32 = 8;
/// How long to wait between two attempts, and, the longest delay, before what was put off is tried again.
const READ_DELAYS: SinkRestart =
    SinkRestart { first_delay: Duration::from_millis(10), longest_delay: Duration::from_secs(1) };

/// Takes the events of all processes, each once and in the order of its process.
///
/// A *life* of a process id is named by its generation, see [`ProcessRecord::generation`]: each life is numbered from 1 anew.
#[async_trait]
pub trait ProcessConsumer: Send + Sync {
    /// The last event of this life of a process that the consumer has: 0 if none. It is asked at the first event of a process,
    /// after a call of [`consume`](Self::consume) that did not return, and after a prune. A consumer that
    /// stores what it consumes, together with this number, sees every event once over crashes too. A store that was restored from a
    /// backup may have other events under the same numbers: whoever restores it has the consumer forget what it has.
    async fn resume_after(&self, process_id: &ProcessId, generation: u32) -> Sequence;

    /// The next events of one life of one process: at least one, dense, ascending, and going on from the last ones.
    ///
    /// If it panics, or is dropped halfway, [`resume_after`](Self::resume_after) is asked what came of it.
    async fn consume(&self, generation: u32, events: &[Arc<ProcessEvent>]);

    /// A process was pruned. Best effort: after a loss of continuity it may not be told.
    async fn pruned(&self, tombstone: &Tombstone) {
        let _ = tombstone;
    }
}

/// A sink that fills what live delivery leaves out from pages of the log.
///
/// The consumer sees every event that pages return, the registration not, of every process: in spite of gaps, of
/// repetitions, of [`MissedEvents::Unknown`] (it then walks over all processes), and of an id that was pruned and lives again.
/// It belongs into a mailbox with [`SinkEvents::All`], and [`in_mailbox`](Self::in_mailbox) puts it there. Made by
/// [`new`](Self::new) it is right with fewer events too, but takes live events for word that there is something to read: it
/// reads at every delivery, and an event that it is not told of, such as the end of a process, waits for the next
/// delivery of that process or the next walk.
///
/// # Limits
/// - What was pruned before it was read is gone.
/// - It does not notice that a store was restored from a backup, see [`resume_after`](ProcessConsumer::resume_after); the change feed
///   does.
/// - A read that fails is tried again for about two seconds, and then put off until the next delivery after another second; live
///   events of that process wait with it. Nothing is delivered meanwhile, and what does not fit into the mailbox is
///   read from the log later. A process whose record or stored events are damaged stays put off, and keeps no other from going on.
/// - A consumer that panics while a gap is filled is given the rest of it at the next delivery; if it panics again, at the
///   first delivery after another second, and so on. The delivery at whose end it panics counts as failed, though its own
///   events were consumed. Processes over which it panics take turns, and keep no other from going on.
/// - Only a delivery, of whatever process, tries again what was put off: when the registry falls silent, nothing does until
///   the next commit, or a [`SinkMailbox::resync`] when the second is over. [`SinkMailbox::flush`] and
///   [`SinkMailbox::close`] do not wait for it.
/// - A process that is appended to faster than its events are consumed, while it is read from the log, holds up the others.
/// - It holds a cursor for each process it has seen an event of, until the process is pruned.
/// - Of an id that lives again every delivery is read from the log: live events do not say of which life they are.
/// - A walk reads at least one page of each process.
pub struct CatchUp<C> {
    consumer: Arc<C>,
    registry: Arc<dyn ProcessRegistry>,
    /// Whether what is delivered are all events, or word of those that are left out, in order.
    hears_all: bool,
    place: Mutex<Place>,
}

/// Why a consumer could not be attached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CatchUpError {
    /// The registry does not tell of its commits.
    #[error("the registry has no source of changes")]
    NoSource,
    /// The mailbox could not be started.
    #[error(transparent)]
    Mailbox(#[from] MailboxError),
}

impl<C: ProcessConsumer + 'static> CatchUp<C> {
    /// A sink for this consumer, which reads from this registry. As it does not know which events it will hear of, it reads all
    /// of them, and a walk comes when it is told [`MissedEvents::Unknown`].
    #[must_use]
    pub fn new(consumer: Arc<C>, registry: Arc<dyn ProcessRegistry>) -> Self {
        Self { consumer, registry, hears_all: false, place: Mutex::default() }
    }

    /// Starts a mailbox with a consumer of all events of a registry: of those that are in its log already, and of those to
    /// come. The options' [`events`](MailboxOptions::events) are set to [`SinkEvents::All`].
    ///
    /// # Errors
    /// [`CatchUpError`].
    pub fn in_mailbox(
        consumer: Arc<C>,
        registry: Arc<dyn ProcessRegistry>,
        options: MailboxOptions,
    ) -> Result<SinkMailbox, CatchUpError> {
        let source = registry.change_source().ok_or(CatchUpError::NoSource)?;
        let sink: Arc<dyn ProcessEventSink> = Arc::new(Self { hears_all: true, ..Self::new(consumer, registry) });
        let options = MailboxOptions { events: SinkEvents::All, ..options };
        let mailbox = SinkMailbox::start(options, move || Arc::clone(&sink))?;
        // First attached, then told to read: what is committed between the two is heard.
        mailbox.attach(&source);
        mailbox.resync();
        Ok(mailbox)
    }
}

impl<C: ProcessConsumer> CatchUp<C> {
    /// Live events of one process.
    async fn follow(&self, place: &mut Place, process_id: &ProcessId, events: &[Arc<ProcessEvent>]) {
        if place.is_behind(process_id) {
            return;
        }
        let next = if self.hears_all { place.count_next(process_id, events) } else { 0 };
        let (next, others) = events.split_at(next);
        if !next.is_empty() {
            self.consume(place, FIRST_LIFE, next).await;
        }
        if !others.is_empty() {
            // A gap, a repetition, another life, or a process that is not known yet. The log has these events, or, if their
            // life is over, nobody can tell them from another life's: reading on to its end leaves nothing in hand.
            self.catch_up(place, process_id).await;
        }
    }

    /// Reads a process on to its end, trying again for a while; then it is put off.
    async fn catch_up(&self, place: &mut Place, process_id: &ProcessId) {
        place.falls_behind(process_id);
        let mut failures = 0;
        while let Err(error) = self.read(place, process_id).await {
            failures += 1;
            if failures == READ_ATTEMPTS || is_over(&error) {
                tracing::warn!(%process_id, %error, "the events of a process cannot be read: it is put off");
                place.put_off(Instant::now() + READ_DELAYS.longest_delay);
                return;
            }
            tokio::time::sleep(READ_DELAYS.delay_after(failures)).await;
        }
        place.is_read(process_id);
    }

    async fn read(&self, place: &mut Place, process_id: &ProcessId) -> Result<(), RegistryError> {
        match self.registry.get_process(process_id).await? {
            Some(record) => self.read_life(place, record).await,
            None => {
                place.forget(process_id);
                Ok(())
            }
        }
    }

    /// Reads the life of a process that lives now on to its end.
    async fn read_life(&self, place: &mut Place, record: Arc<ProcessRecord>) -> Result<(), RegistryError> {
        let process_id = record.id();
        let mut generation = record.generation;
        let mut through = self.resume_after(place, process_id, generation).await;
        loop {
            let page = match self.registry.events_page(process_id, through, EventPage::MAX_LIMIT).await {
                Ok(page) => page,
                Err(RegistryError::Refused(Refusal::Unknown { .. })) => {
                    place.forget(process_id);
                    return Ok(());
                }
                Err(error) => return Err(error),
            };
            let Some(last) = page.events.last() else { return Ok(()) };
            // Generations only grow: if it is still, or was last, the same one after the page was read, the page is of it.
            match self.last_generation(process_id).await? {
                Some(now) if now != generation => {
                    generation = now;
                    through = self.resume_after(place, process_id, generation).await;
                    continue;
                }
                Some(_) | None => {}
            }
            through = last.sequence;
            self.consume(place, generation, &page.events).await;
            if !page.has_more {
                return Ok(());
            }
        }
    }

    async fn resume_after(&self, place: &mut Place, process_id: &ProcessId, generation: u32) -> Sequence {
        if let Some(through) = place.through(process_id, generation) {
            return through;
        }
        // A cursor of another life goes even if the consumer has nothing of this one, or late events of a life between the two
        // would seem to go on from it.
        place.forget(process_id);
        let through = self.consumer.resume_after(process_id, generation).await;
        place.advance(process_id, generation, through);
        through
    }

    /// While the consumer is at it there is no cursor: if it does not return, it has to be asked.
    async fn consume(&self, place: &mut Place, generation: u32, events: &[Arc<ProcessEvent>]) {
        if let Some(last) = events.last() {
            place.forget(&last.process_id);
            self.consumer.consume(generation, events).await;
            place.advance(&last.process_id, generation, last.sequence);
        }
    }

    /// The generation that lives, or the last one that did.
    async fn last_generation(&self, process_id: &ProcessId) -> Result<Option<u32>, RegistryError> {
        if let Some(record) = self.registry.get_process(process_id).await? {
            return Ok(Some(record.generation));
        }
        Ok(self.registry.get_tombstone(process_id).await?.map(|tombstone| tombstone.generation))
    }

    /// Walks over all processes, from where an earlier walk came to. A page that cannot be read is tried again for a while; then
    /// the walk is put off.
    async fn walk(&self, place: &mut Place) {
        let mut failures = 0;
        while let Some(walk) = place.walk.clone() {
            let filter = ProcessListFilter { status: ProcessStatusFilter::Any, ..ProcessListFilter::default() };
            match self.registry.list_page(filter, walk.after.clone(), ProcessPage::MAX_LIMIT).await {
                Ok(page) => {
                    failures = 0;
                    for record in &page.records {
                        place.mark(record.id(), &walk);
                        if place.is_behind(record.id()) {
                            continue;
                        }
                        // Remembered first, so that the walk gets past a process over which the consumer panics.
                        place.falls_behind(record.id());
                        match self.read_life(place, Arc::clone(record)).await {
                            Ok(()) => place.is_read(record.id()),
                            Err(_) => self.catch_up(place, record.id()).await,
                        }
                    }
                    for process_id in &page.damaged {
                        tracing::warn!(%process_id, "a process is damaged: its events are put off");
                        place.mark(process_id, &walk);
                        place.falls_behind(process_id);
                        place.put_off(Instant::now() + READ_DELAYS.longest_delay);
                    }
                    match page.records.last() {
                        Some(last) if page.has_more => place.walk = Some(walk.on_after(last.id().clone())),
                        Some(_) | None => place.end_walk(&walk),
                    }
                }
                Err(error) => {
                    failures += 1;
                    if failures == READ_ATTEMPTS || is_over(&error) {
                        tracing::warn!(%error, "the processes cannot be listed: the walk over them is put off");
                        place.put_off(Instant::now() + READ_DELAYS.longest_delay);
                        return;
                    }
                    tokio::time::sleep(READ_DELAYS.delay_after(failures)).await;
                }
            }
        }
    }

    /// Tries again what was put off, once its time has come. The next time is set first: if the consumer panics, the delivery at
    /// whose end this is fails, and the ones after it must not fail too.
    async fn retry(&self, place: &mut Place) {
        if !place.is_due(Instant::now()) {
            return;
        }
        place.put_off(Instant::now() + READ_DELAYS.longest_delay);
        self.walk(place).await;
        for _ in 0..place.count_behind() {
            let Some(process_id) = place.take_turn() else { break };
            if self.read(place, &process_id).await.is_ok() {
                place.is_read(&process_id);
            }
        }
        place.put_off_no_longer();
    }
}

/// Whether the registry has ended: no read will ever be answered.
const fn is_over(error: &RegistryError) -> bool {
    matches!(error, RegistryError::Closed | RegistryError::Store(LogError::Closed))
}

#[async_trait]
impl<C: ProcessConsumer> ProcessEventSink for CatchUp<C> {
    async fn emit(&self, event: &Arc<ProcessEvent>) {
        self.emit_batch(std::slice::from_ref(event)).await;
    }

    async fn emit_batch(&self, events: &[Arc<ProcessEvent>]) {
        let mut place = self.place.lock().await;
        for (process_id, events) in by_process(events) {
            self.follow(&mut place, &process_id, &events).await;
        }
        self.retry(&mut place).await;
    }

    fn batch_limit(&self) -> usize {
        1_024
    }

    async fn missed(&self, missed: &MissedEvents) {
        let mut place = self.place.lock().await;
        match missed {
            MissedEvents::Of { process_id, .. } if place.is_behind(process_id) => {}
            MissedEvents::Of { process_id, .. } => self.catch_up(&mut place, process_id).await,
            MissedEvents::Unknown => {
                place.begin_walk();
                self.walk(&mut place).await;
            }
        }
        self.retry(&mut place).await;
    }

    async fn pruned(&self, tombstone: &Tombstone) {
        let mut place = self.place.lock().await;
        place.forget_life(&tombstone.process_id, tombstone.generation);
        self.consumer.pruned(tombstone).await;
        self.retry(&mut place).await;
    }
}

impl<C> fmt::Debug for CatchUp<C> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("CatchUp").finish_non_exhaustive()
    }
}

//! Waiting for what a log will say: what is awaited, how a wait ends, and the reads that decide it.
//!
//! Whoever waits parks first and reads then: whatever is committed after the read is told. It does not know timers; how
//! to sleep is passed in.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use super::backoff::Backoff;
use super::change::ChangeSource;
use super::log::LogError;
use super::registry::{ProcessRegistry, ProcessRegistryExt, RegistryError};
use super::wait_table::{ParkedWait, WaitNotice};
use crate::domain::{ProcessAwaitOutput, ProcessEvent, ProcessId, ProcessRecord, Refusal, Sequence, Tombstone};

/// What somebody waits for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ProcessWait {
    /// The process.
    pub process_id: ProcessId,
    /// What it has to do.
    pub awaited: Awaited,
}

/// What a process has to do for a wait to end.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Awaited {
    /// It ends, in whatever terminal state.
    Outcome,
    /// It gains an event.
    Event {
        /// Of this type; `None` means any.
        event_type: Option<Arc<str>>,
        /// Exclusive lower bound of its sequence.
        after: Sequence,
    },
}

/// How a wait ended.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum WaitAnswer {
    /// The process has ended, which was awaited.
    Completed {
        /// The process, with its outcome.
        record: Arc<ProcessRecord>,
    },
    /// The event is there.
    Happened {
        /// The event.
        event: Arc<ProcessEvent>,
    },
    /// The process has ended without the event that was awaited. Events may still come, as late ones.
    Ended {
        /// The process, with its outcome.
        record: Arc<ProcessRecord>,
    },
    /// The process was pruned: it has ended, and its outcome and events are gone.
    NoLongerRetained {
        /// What is left of it; of a later life of its id, if that one was pruned too.
        tombstone: Box<Tombstone>,
    },
    /// The deadline came first: the log did not have it then, or could not be read.
    Deadline,
}

/// Why a wait could not go on.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum WaitError {
    /// The registry refused the read; an unknown process among other things.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The registry was shut down before it happened.
    #[error("the registry was shut down while process `{process_id}` was awaited")]
    SourceClosed {
        /// The process.
        process_id: ProcessId,
    },
}

/// Reads for one wait. It knows which life of the id is awaited: the one that its first read finds.
#[derive(Debug)]
pub struct WaitReader<'wait> {
    wait: &'wait ProcessWait,
    generation: Option<u32>,
}

/// What a read says about a wait.
#[derive(Debug, Clone, PartialEq)]
pub enum Look {
    /// The wait is over.
    Answer(WaitAnswer),
    /// It is not, and whatever ends it is still to be committed.
    NotYet,
    /// The store could not be read: whether it is over is not known.
    Unreadable {
        /// Why.
        reason: String,
    },
}

impl ProcessWait {
    /// Waits for the outcome.
    #[must_use]
    pub const fn outcome(process_id: ProcessId) -> Self {
        Self { process_id, awaited: Awaited::Outcome }
    }

    /// Waits for the first event of a type after a cursor, which is exclusive.
    #[must_use]
    pub fn event(process_id: ProcessId, event_type: impl Into<Arc<str>>, after: Sequence) -> Self {
        Self { process_id, awaited: Awaited::Event { event_type: Some(event_type.into()), after } }
    }

    /// Waits for the first event of any type after a cursor, which is exclusive. What the registry itself notes of a
    /// process is an event too.
    #[must_use]
    pub const fn any_event(process_id: ProcessId, after: Sequence) -> Self {
        Self { process_id, awaited: Awaited::Event { event_type: None, after } }
    }
}

impl Awaited {
    /// The answer that one commit gives, if it gives one. In one commit an event comes before the end of its process.
    pub(super) fn answered_by(&self, record: &Arc<ProcessRecord>, events: &[Arc<ProcessEvent>]) -> Option<WaitNotice> {
        match self {
            Self::Outcome => record.status.is_terminal().then(|| WaitNotice::Ended(Arc::clone(record))),
            Self::Event { event_type, after } => {
                let is_awaited = |event: &&Arc<ProcessEvent>| {
                    event.sequence > *after && event_type.as_deref().is_none_or(|name| *event.event_type == *name)
                };
                if let Some(event) = events.iter().find(is_awaited) {
                    return Some(WaitNotice::Happened { event: Arc::clone(event), generation: record.generation });
                }
                // By its event and not by its record: where commits are told out of the feed, the record may be ahead
                // of events that are still to be told.
                let has_ended = events.iter().any(|event| event.semantics.terminal.is_some());
                has_ended.then(|| WaitNotice::Ended(Arc::clone(record)))
            }
        }
    }
}

impl WaitAnswer {
    /// The outcome, where the process has ended and is retained.
    #[must_use]
    pub fn output(&self) -> Option<&ProcessAwaitOutput> {
        match self {
            Self::Completed { record } | Self::Ended { record } => record.status.await_output(),
            Self::Happened { .. } | Self::NoLongerRetained { .. } | Self::Deadline => None,
        }
    }
}

impl<'wait> WaitReader<'wait> {
    /// A reader that has not read.
    #[must_use]
    pub const fn new(wait: &'wait ProcessWait) -> Self {
        Self { wait, generation: None }
    }

    /// What is waited for.
    #[must_use]
    pub const fn wait(&self) -> &'wait ProcessWait {
        self.wait
    }

    /// Reads whether the wait is over. A store that cannot be read for a while is not an error, nor is a registry that has too much
    /// to do.
    ///
    /// # Errors
    /// [`RegistryError`]; an unknown process among other things.
    pub async fn look<R: ProcessRegistry + ?Sized>(&mut self, registry: &R) -> Result<Look, RegistryError> {
        match self.read(registry).await {
            Err(error) if error.may_pass() => Ok(Look::Unreadable { reason: error.to_string() }),
            read => read,
        }
    }

    /// What a parked waiter was told, if it ends this wait. `None`: it has to be read.
    #[must_use]
    pub fn accept(&self, told: WaitNotice) -> Option<WaitAnswer> {
        let is_awaited = |generation: u32| self.generation == Some(generation);
        match told {
            WaitNotice::Ended(record) if is_awaited(record.generation) => Some(self.ended(record)),
            WaitNotice::Happened { event, generation } if is_awaited(generation) => {
                Some(WaitAnswer::Happened { event })
            }
            WaitNotice::Pruned(tombstone) if self.generation.is_some_and(|awaited| tombstone.generation >= awaited) => {
                Some(WaitAnswer::NoLongerRetained { tombstone })
            }
            WaitNotice::Ended(_)
            | WaitNotice::Happened { .. }
            | WaitNotice::Pruned(_)
            | WaitNotice::Resync
            | WaitNotice::Closed => None,
        }
    }

    fn ended(&self, record: Arc<ProcessRecord>) -> WaitAnswer {
        match self.wait.awaited {
            Awaited::Outcome => WaitAnswer::Completed { record },
            Awaited::Event { .. } => WaitAnswer::Ended { record },
        }
    }

    async fn read<R: ProcessRegistry + ?Sized>(&mut self, registry: &R) -> Result<Look, RegistryError> {
        // The record before the events: if it had ended by then, an event that is not there now was not before its end.
        let Some(record) = self.awaited_life(registry).await? else {
            return self.gone(registry).await;
        };
        let found = match &self.wait.awaited {
            Awaited::Outcome => None,
            Awaited::Event { event_type, after } => {
                let found = self.event(registry, event_type.as_deref(), *after).await?;
                // If this life was pruned between the two reads, an event may be of a later one, and one that is not
                // there may have been.
                if (found.is_some() || record.status.is_terminal()) && self.awaited_life(registry).await?.is_none() {
                    return self.gone(registry).await;
                }
                found
            }
        };
        Ok(match found {
            Some(event) => Look::Answer(WaitAnswer::Happened { event }),
            None if record.status.is_terminal() => Look::Answer(self.ended(record)),
            None => Look::NotYet,
        })
    }

    /// The record of the life that is awaited; `None` if that life is not there (any more).
    async fn awaited_life<R: ProcessRegistry + ?Sized>(
        &mut self,
        registry: &R,
    ) -> Result<Option<Arc<ProcessRecord>>, RegistryError> {
        let record = registry.get_process(&self.wait.process_id).await?;
        Ok(record.filter(|record| *self.generation.get_or_insert(record.generation) == record.generation))
    }

    async fn event<R: ProcessRegistry + ?Sized>(
        &self,
        registry: &R,
        event_type: Option<&str>,
        after: Sequence,
    ) -> Result<Option<Arc<ProcessEvent>>, RegistryError> {
        let process_id = &self.wait.process_id;
        let found = match event_type {
            Some(event_type) => registry.first_event_of_type(process_id, event_type, after).await,
            None => registry.events_page(process_id, after, 1).await.map(|page| page.events.into_iter().next()),
        };
        match found {
            // Pruned since its record was read.
            Err(RegistryError::Refused(Refusal::Unknown { .. })) => Ok(None),
            found => found,
        }
    }

    /// An unknown process may be one that was pruned.
    async fn gone<R: ProcessRegistry + ?Sized>(&self, registry: &R) -> Result<Look, RegistryError> {
        let process_id = &self.wait.process_id;
        match registry.get_tombstone(process_id).await? {
            Some(tombstone) if self.generation.is_none_or(|awaited| tombstone.generation >= awaited) => {
                Ok(Look::Answer(WaitAnswer::NoLongerRetained { tombstone: Box::new(tombstone) }))
            }
            Some(_) | None => Err(Refusal::Unknown { process_id: process_id.clone() }.into()),
        }
    }
}

impl ChangeSource {
    /// Waits on a registry whose source of changes this is, without a deadline. Idle waiting reads nothing, and keeps no
    /// actor alive. `sleep` is used only between reads of a store that cannot be read. May be dropped at any time, and
    /// leaves nothing behind.
    ///
    /// # Errors
    /// [`WaitError`].
    pub async fn wait<R, S, F>(
        &self,
        registry: &R,
        reader: &mut WaitReader<'_>,
        sleep: S,
    ) -> Result<WaitAnswer, WaitError>
    where
        R: ProcessRegistry + ?Sized,
        S: Fn(Duration) -> F,
        F: Future<Output = ()>,
    {
        let mut backoff = Backoff::default();
        let mut has_closed = false;
        loop {
            // Parked before the read: whatever is committed after the read is told.
            let parked = self.park(reader.wait);
            let look = match reader.look(registry).await {
                // It is being shut down, and its log may close before this source ends: what was committed was told.
                Err(RegistryError::Closed | RegistryError::Store(LogError::Closed)) => {
                    return Err(WaitError::SourceClosed { process_id: reader.wait.process_id.clone() });
                }
                look => look?,
            };
            let told = match look {
                Look::Answer(answer) => return Ok(answer),
                Look::NotYet => Some(parked.told().await),
                Look::Unreadable { .. } => told_within(parked, sleep(backoff.delay())).await,
            };
            match told {
                // What was committed last may have been told to nobody: one more read.
                Some(WaitNotice::Closed) if has_closed => {
                    return Err(WaitError::SourceClosed { process_id: reader.wait.process_id.clone() });
                }
                Some(WaitNotice::Closed) => has_closed = true,
                Some(told) => {
                    if let Some(answer) = reader.accept(told) {
                        return Ok(answer);
                    }
                }
                None => {}
            }
        }
    }
}

/// What is told before the sleep ends.
async fn told_within(parked: ParkedWait, sleep: impl Future<Output = ()>) -> Option<WaitNotice> {
    let (mut told, mut sleep) = (pin!(parked.told()), pin!(sleep));
    poll_fn(|context| match told.as_mut().poll(context) {
        Poll::Ready(told) => Poll::Ready(Some(told)),
        Poll::Pending => sleep.as_mut().poll(context).map(|()| None),
    })
    .await
}

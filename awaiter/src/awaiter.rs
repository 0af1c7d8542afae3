//! Waiting for outcomes and events of processes.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use registry_actor::domain::{ProcessAwaitOutput, ProcessEvent, ProcessId, ProcessRecord, Sequence, Tombstone};
use registry_actor::port::{
    Backoff, ChangeSource, Look, ProcessRegistry, ProcessWait, RegistryError, WaitAnswer, WaitError, WaitReader,
};
use tokio::time::{Instant, sleep, timeout_at};

use crate::hub::ProcessChangeHub;
use crate::tick_map::HubSubscription;

/// Waits on a registry.
#[derive(Clone)]
pub struct ProcessAwaiter {
    registry: Arc<dyn ProcessRegistry>,
    told: Told,
}

/// How the awaiter learns that it has to read.
#[derive(Debug, Clone)]
enum Told {
    /// By the registry's own source of changes, which tells of every commit.
    Source(ChangeSource),
    /// By a hub, which may miss commits that others make: its ticks hurry the polling along.
    Hub(ProcessChangeHub),
    /// By nobody.
    Nothing,
}

/// Why a wait ended without what it waited for.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AwaitError {
    /// The registry refused the read; an unknown process among other things.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The process has ended without the event that was awaited.
    #[error("process `{}` ended before the event that was awaited: it is {}", .record.id(), .record.status.label())]
    Ended {
        /// The process, with its outcome.
        record: Arc<ProcessRecord>,
    },
    /// The process was pruned: it has ended, and its outcome and events are gone.
    #[error("process `{}` is no longer retained: it ended as {}", .tombstone.process_id, .tombstone.terminal_state)]
    NoLongerRetained {
        /// What is left of it.
        tombstone: Box<Tombstone>,
    },
    /// The registry was shut down before it happened.
    #[error("the registry was shut down while process `{process_id}` was awaited")]
    SourceClosed {
        /// The process.
        process_id: ProcessId,
    },
}

impl From<WaitError> for AwaitError {
    fn from(error: WaitError) -> Self {
        match error {
            WaitError::Registry(error) => error.into(),
            WaitError::SourceClosed { process_id } => Self::SourceClosed { process_id },
            // Waits fail in the ways above; a later one would still be an error of the registry.
            error => RegistryError::WrongAnswer { query: error.to_string() }.into(),
        }
    }
}

impl ProcessAwaiter {
    /// Waits for ticks of the hub. If the hub hears the registry's own source of changes, nothing is polled; otherwise
    /// ticks hurry the polling along.
    #[must_use]
    pub fn new(registry: Arc<dyn ProcessRegistry>, hub: ProcessChangeHub) -> Self {
        let own_source = registry.change_source().filter(|source| hub.is_attached_to(source));
        Self { registry, told: own_source.map_or(Told::Hub(hub), Told::Source) }
    }

    /// Waits on the registry's own source of changes where it has one, and polls otherwise.
    #[must_use]
    pub fn attached(registry: Arc<dyn ProcessRegistry>) -> Self {
        let told = registry.change_source().map_or(Told::Nothing, Told::Source);
        Self { registry, told }
    }

    /// Polls: 25 ms, doubling to 1 s.
    #[must_use]
    pub const fn polling(registry: Arc<dyn ProcessRegistry>) -> Self {
        Self { registry, told: Told::Nothing }
    }

    /// Waits for the outcome. There is no timeout: wrap it. May be dropped at any time.
    ///
    /// # Errors
    /// [`AwaitError`]; a store that cannot be read for a while is not an error, it is read again.
    pub async fn await_terminal(&self, process_id: &ProcessId) -> Result<ProcessAwaitOutput, AwaitError> {
        match self.wait(&ProcessWait::outcome(process_id.clone()), None).await? {
            WaitAnswer::NoLongerRetained { tombstone } => Err(AwaitError::NoLongerRetained { tombstone }),
            answer => answer.output().cloned().ok_or_else(|| wrong_answer(process_id)),
        }
    }

    /// Waits for the first event of a type after a cursor, which is exclusive. There is no timeout: wrap it. May be
    /// dropped at any time.
    ///
    /// # Errors
    /// [`AwaitError`]; [`AwaitError::Ended`] if the process ends first. What comes after its end is found, but not
    /// waited for.
    pub async fn await_event(
        &self,
        process_id: &ProcessId,
        event_type: &str,
        after: Sequence,
    ) -> Result<Arc<ProcessEvent>, AwaitError> {
        match self.wait(&ProcessWait::event(process_id.clone(), event_type, after), None).await? {
            WaitAnswer::Happened { event } => Ok(event),
            WaitAnswer::Ended { record } => Err(AwaitError::Ended { record }),
            WaitAnswer::NoLongerRetained { tombstone } => Err(AwaitError::NoLongerRetained { tombstone }),
            _ => Err(wrong_answer(process_id)),
        }
    }

    /// Waits, at most for so long and one last read; `None` waits as long as it takes. A deadline is an ordinary answer:
    /// [`WaitAnswer::Deadline`] says that the log did not have it then, or could not be read. A registry that is elsewhere may take
    /// its patience to say so. May be dropped at any time.
    ///
    /// # Errors
    /// [`AwaitError::Registry`] and [`AwaitError::SourceClosed`]; all else is an answer.
    pub async fn wait(&self, wait: &ProcessWait, within: Option<Duration>) -> Result<WaitAnswer, AwaitError> {
        let mut reader = WaitReader::new(wait);
        let Some(within) = within else {
            return self.answer(&mut reader).await;
        };
        match timeout_at(deadline(within), self.answer(&mut reader)).await {
            Ok(answer) => answer,
            Err(_) => self.at_the_deadline(&mut reader).await,
        }
    }

    /// Waits without a deadline.
    pub(crate) async fn answer(&self, reader: &mut WaitReader<'_>) -> Result<WaitAnswer, AwaitError> {
        match &self.told {
            Told::Source(source) => Ok(source.wait(&*self.registry, reader, sleep).await?),
            Told::Hub(hub) => self.poll(reader, Some(hub.subscribe(&reader.wait().process_id))).await,
            Told::Nothing => self.poll(reader, None).await,
        }
    }

    /// What the log says when the time is up: a commit may be durable of which nobody was told yet.
    pub(crate) async fn at_the_deadline(&self, reader: &mut WaitReader<'_>) -> Result<WaitAnswer, AwaitError> {
        match reader.look(&*self.registry).await? {
            Look::Answer(answer) => Ok(answer),
            Look::NotYet | Look::Unreadable { .. } => Ok(WaitAnswer::Deadline),
        }
    }

    /// Reads until it has happened: at every tick, and by the clock between them. The subscription is older than the
    /// first read, so that whatever is ticked after it is heard.
    async fn poll(
        &self,
        reader: &mut WaitReader<'_>,
        mut ticks: Option<HubSubscription<ProcessId>>,
    ) -> Result<WaitAnswer, AwaitError> {
        let mut backoff = Backoff::default();
        loop {
            match reader.look(&*self.registry).await? {
                Look::Answer(answer) => return Ok(answer),
                Look::NotYet => {}
                Look::Unreadable { reason } => {
                    let process_id = &reader.wait().process_id;
                    tracing::debug!(%process_id, reason, "the store could not be read: the wait goes on");
                }
            }
            let delay = sleep(backoff.delay());
            let Some(subscription) = &mut ticks else {
                delay.await;
                continue;
            };
            tokio::select! {
                biased;
                ticked = subscription.ticked() => {
                    // A hub that has ended ticks no more; the clock goes on.
                    if ticked.is_err() {
                        ticks = None;
                    } else {
                        backoff.reset();
                    }
                }
                () = delay => {}
            }
        }
    }
}

/// A deadline that cannot be represented is none.
pub(crate) fn deadline(within: Duration) -> Instant {
    const FAR_AWAY: Duration = Duration::from_secs(60 * 60 * 24 * 365 * 30);
    Instant::now() + within.min(FAR_AWAY)
}

fn wrong_answer(process_id: &ProcessId) -> AwaitError {
    RegistryError::WrongAnswer { query: format!("the wait on process `{process_id}`") }.into()
}

impl fmt::Debug for ProcessAwaiter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ProcessAwaiter").field("told", &self.told).finish_non_exhaustive()
    }
}

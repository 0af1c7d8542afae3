//! Waiting for a process, however often its host goes and comes.
//!
//! It owns when a host is asked, which answers with the commit, and when the store is read by the clock: where there is no host, nobody
//! tells. It does not know what is done with the answer.

use std::{future::pending, sync::Arc, time::Duration};

use awaiter::{AwaitError, ProcessAwaiter};
use registry_actor::{
    domain::{ProcessId, Sequence},
    port::{Backoff, ProcessRegistry, ProcessWait, WaitAnswer},
};
use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    api::process_view::ProcessView,
    client::HostError,
    event_view::EventView,
    failure::{Failure, FailureKind},
    notice::say,
    process_source::ProcessSource,
    store::StoreReader,
};

/// How long a store is read by the clock before its host is looked for again.
const HOST_LOOK_PAUSE: Duration = Duration::from_secs(1);

/// What is awaited.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Awaited {
    /// The outcome.
    Outcome,
    /// An event.
    Event {
        /// Its type; `*` is any.
        event_type: String,
        /// The place behind which it counts.
        after: u64,
    },
}

/// How a wait ended.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum WaitEnd {
    /// The process has ended, which was awaited.
    Completed(Box<ProcessView>),
    /// The event happened.
    Happened(Box<EventView>),
    /// The process ended without it.
    Ended(Box<ProcessView>),
    /// The time is up.
    Deadline,
}

/// Waits until then at most.
///
/// # Errors
/// When it will never be known.
pub(crate) async fn wait_for(
    source: &ProcessSource,
    id: &ProcessId,
    awaited: &Awaited,
    until: Option<Instant>,
) -> Result<WaitEnd, Failure> {
    let mut absence = HostAbsence::default();
    loop {
        let left = until.map_or(Duration::MAX, |until| until.saturating_duration_since(Instant::now()));
        let asked = match source.reading_host() {
            Some(host) => host.wait(id.as_str(), awaited, left).await,
            None => Err(HostError::Unreachable(String::new())),
        };
        match asked {
            Ok(WaitEnd::Deadline) if !left.is_zero() => absence = HostAbsence::default(),
            Ok(end) => return Ok(end),
            Err(error) if !error.is_passing() => return Err(error.into()),
            Err(error) => match source {
                ProcessSource::Store { reader, .. } => {
                    match stored(reader, id, awaited, left.min(HOST_LOOK_PAUSE)).await? {
                        WaitEnd::Deadline if !left.is_zero() => {}
                        end => return Ok(end),
                    }
                }
                ProcessSource::Host(_) if left.is_zero() => return Ok(WaitEnd::Deadline),
                ProcessSource::Host(_) => absence.pass(&error, until).await,
            },
        }
    }
}

/// Reads the store by the clock for a while.
async fn stored(
    reader: &Arc<StoreReader>,
    id: &ProcessId,
    awaited: &Awaited,
    within: Duration,
) -> Result<WaitEnd, Failure> {
    let wait = match awaited {
        Awaited::Outcome => ProcessWait::outcome(id.clone()),
        Awaited::Event { event_type, after } if event_type == "*" => {
            ProcessWait::any_event(id.clone(), Sequence(*after))
        }
        Awaited::Event { event_type, after } => ProcessWait::event(id.clone(), event_type.as_str(), Sequence(*after)),
    };
    let registry = Arc::clone(reader) as Arc<dyn ProcessRegistry>;
    let answer = ProcessAwaiter::polling(registry).wait(&wait, Some(within)).await.map_err(failure_of)?;
    let shown = |record| Box::new(ProcessView::new(record));
    match answer {
        WaitAnswer::Completed { record } => Ok(WaitEnd::Completed(shown(&record))),
        WaitAnswer::Happened { event } => Ok(WaitEnd::Happened(Box::new(EventView::new(&event)))),
        WaitAnswer::Ended { record } => Ok(WaitEnd::Ended(shown(&record))),
        WaitAnswer::Deadline => Ok(WaitEnd::Deadline),
        WaitAnswer::NoLongerRetained { tombstone } => Err(failure_of(AwaitError::NoLongerRetained { tombstone })),
        answer => Err(Failure::new(FailureKind::Software, format!("a wait ended with {answer:?}"))),
    }
}

fn failure_of(error: AwaitError) -> Failure {
    match error {
        AwaitError::Registry(error) => error.into(),
        AwaitError::NoLongerRetained { .. } => Failure::new(FailureKind::NoInput, error.to_string()),
        error => Failure::new(FailureKind::Unavailable, error.to_string()),
    }
}

/// A host that was there and is not: told once, and tried again.
#[derive(Default)]
pub(crate) struct HostAbsence {
    backoff: Backoff,
    was_told: bool,
}

impl HostAbsence {
    /// Lets some time pass before the next try.
    pub(crate) async fn pass(&mut self, error: &HostError, until: Option<Instant>) {
        if !self.was_told {
            self.was_told = true;
            say(format_args!("{error}; waiting for it to come back"));
        }
        let until = async {
            match until {
                Some(until) => sleep_until(until).await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = sleep(self.backoff.delay()) => {}
            () = until => {}
        }
    }
}

//! One attempt at a command: from the record of its marker to the outcome of the process.
//!
//! It owns the order of what becomes durable and what runs:
//! `marker <= first start <= guard launched <= guard recorded <= command started <= output <= outcome`.
//! Whatever dies between two of these, the next host finds in the log all that it needs to find and end what runs.
//!
//! It does not know how the lease was acquired, nor whether there were attempts before.

mod display;
mod journal;
mod outcome;
mod pump;

pub(crate) use display::Display;
pub(crate) use journal::Journal;
pub(crate) use outcome::{CancelCause, Ending, summary};
pub(crate) use pump::Audience;

use std::{ffi::OsString, path::PathBuf, sync::Arc, time::Duration};

use registry_actor::domain::{ProcessAwaitOutput, ProcessEventAppendRequest, ProcessId};
use serde_json::json;
use tokio::{task::JoinHandle, time::timeout};

use host_example::{
    cancel::{self, DEFAULT_GRACE},
    guard::{
        CommandEnd, CommandSpec, Guard, GuardError, GuardedCommand, OutputPipes, Remainder, SpawnError, SpawnStage,
    },
    marker::Marker,
    orphan::{OrphanReport, OrphanSearch},
    output::{DEFAULT_HELD_OPEN, OutputBudget, OutputEnd, OutputReader, Stream},
    process_identity::{ProcessIdentity, process_identity},
};

use self::pump::pump;
use crate::{
    command_process::{ATTEMPT_STARTED, CommandProcess, GUARDED, OUTPUT_DROPPED, OUTPUT_HELD_OPEN},
    failure::{Failure, FailureKind},
    host::Host,
    interrupt::{InterruptSignal, Interrupts},
    lease_keeper::LeaseKeeper,
};

/// The lines that wait to be recorded before the command is made to wait.
const CAPACITY_LINES: usize = 256;

/// How long a command that is to be cancelled runs on because the store does not take the request.
const CANCEL_RECORD_PATIENCE: Duration = Duration::from_secs(2);

/// One attempt that is about to be made, under a lease.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    /// Where.
    pub(crate) host: Host,
    /// At which process.
    pub(crate) process_id: ProcessId,
    /// What to run.
    pub(crate) command: CommandProcess,
    /// The command's additions to the environment, with their values.
    pub(crate) environment: Vec<(OsString, OsString)>,
    /// The count of this attempt, from 1.
    pub(crate) number: u32,
    /// The lease.
    pub(crate) keeper: Arc<LeaseKeeper>,
    /// What an interrupt does to it.
    pub(crate) on_interrupt: OnInterrupt,
}

/// What an interrupt of the host does to an attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum OnInterrupt {
    /// The process is cancelled.
    Cancel,
    /// The attempt ends without an outcome: another host makes the next one.
    Stop,
}

/// How an attempt ended.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum AttemptEnd {
    /// The process has its outcome.
    Ended {
        /// The outcome.
        outcome: ProcessAwaitOutput,
        /// What the caller's shell is to see.
        exit_code: u8,
        /// The count of events.
        events: u64,
    },
    /// The process has no outcome, and its lease is free.
    Stopped,
}

/// Why nothing more is waited for.
enum Turn {
    Ended(Result<CommandEnd, GuardError>),
    Interrupted(InterruptSignal),
    LeaseLost,
    /// The output has ended, or cannot be recorded.
    Pumped(Result<OutputEnd, Failure>),
}

/// What can be told of an attempt before its outcome is written.
enum Course {
    Ending(Ending),
    Stopped,
}

impl Attempt {
    /// Makes the attempt.
    ///
    /// # Errors
    /// When it could not be recorded, or the lease was lost. Nothing runs any more then, and there is no outcome.
    pub(crate) async fn run(&self, interrupts: &Interrupts, audience: Audience) -> Result<AttemptEnd, Failure> {
        let journal = self.journal();
        let ending = match self.execute(&journal, interrupts, audience).await? {
            Course::Ending(ending) => ending,
            Course::Stopped => {
                journal.release().await?;
                return Ok(AttemptEnd::Stopped);
            }
        };
        let outcome = ending.to_await_output(self.number);
        let events = journal
            .complete(outcome.clone())
            .await
            .map_err(|error| Failure::from(error).while_doing("the outcome cannot be recorded"))?;
        Ok(AttemptEnd::Ended { outcome, exit_code: ending.exit_code(), events })
    }

    fn journal(&self) -> Journal {
        Journal::new(self.host.registry.clone(), self.process_id.clone(), Arc::clone(&self.keeper))
    }

    async fn execute(&self, journal: &Journal, interrupts: &Interrupts, audience: Audience) -> Result<Course, Failure> {
        if journal.is_cancel_requested().await? {
            return Ok(Course::Ending(Ending::Cancelled { cause: CancelCause::EarlierRequest, end: None }));
        }
        if let Some(signal) = interrupts.asked() {
            self.record_cancel(journal, signal).await;
            return Ok(self.interrupted(signal, None));
        }
        let marker = Marker::random()
            .map_err(|error| Failure::new(FailureKind::System, format!("no randomness for a marker: {error}")))?;
        self.record_start(journal, &marker).await?;
        let guard = match Guard::launch(&self.spec(&marker)) {
            Ok(guard) => guard,
            Err(error) => return Ok(Course::Ending(Ending::NoGuard { reason: error.to_string() })),
        };
        let identity = guard.identity().clone();
        // Nothing runs in the group yet. Should this fail, the guard is dropped and goes.
        journal
            .append(vec![event(GUARDED, json!({"attempt": self.number, "guard": identity}))])
            .await
            .map_err(|error| Failure::from(error).while_doing("the guard cannot be recorded"))?;
        match guard.start().await {
            Ok((command, pipes)) => {
                self.supervise(Supervised { command, marker, identity }, pipes, journal, interrupts, audience).await
            }
            Err(SpawnError::Command(failure)) => {
                let subject = match failure.stage {
                    SpawnStage::Program => self.command.argv.first().cloned().unwrap_or_default(),
                    SpawnStage::Directory => self.command.cwd.clone(),
                };
                Ok(Course::Ending(Ending::NotExecuted { subject, failure }))
            }
            Err(SpawnError::Launch(error)) => Ok(Course::Ending(Ending::NoGuard { reason: error.to_string() })),
            Err(SpawnError::Guard(error)) => guard_lost(&error, &marker, &identity).await.map(Course::Ending),
        }
    }

    /// Makes durable that something may run from now on, and by what it is found.
    async fn record_start(&self, journal: &Journal, marker: &Marker) -> Result<(), Failure> {
        let here = process_identity(std::process::id());
        let payload = json!({
            "attempt": self.number,
            "marker": marker,
            "boot_id": here.as_ref().map(|here| &here.boot_id),
            "pid_namespace": here.as_ref().map(|here| here.pid_namespace),
        });
        let unrecorded = |error| Failure::from(error).while_doing("the start cannot be recorded");
        journal.append(vec![event(ATTEMPT_STARTED, payload)]).await.map_err(unrecorded)?;
        journal.record_first_started(now_epoch_ms()).await.map_err(unrecorded)
    }

    fn spec(&self, marker: &Marker) -> CommandSpec {
        let (program, args) = self.command.argv.split_first().map_or(("", &[][..]), |(first, rest)| (first, rest));
        let mut spec = CommandSpec::new(program, args, self.process_id.as_str(), marker.clone());
        spec.directory = Some(PathBuf::from(&self.command.cwd));
        spec.env.clone_from(&self.environment);
        spec.attempt = self.number;
        spec
    }

    async fn supervise(
        &self,
        mut supervised: Supervised,
        pipes: OutputPipes,
        journal: &Journal,
        interrupts: &Interrupts,
        audience: Audience,
    ) -> Result<Course, Failure> {
        let budget = OutputBudget::new(self.command.max_output_bytes);
        let reader = OutputReader::start(pipes.stdout, pipes.stderr, budget, CAPACITY_LINES)
            .map_err(|error| Failure::new(FailureKind::System, format!("cannot read the output: {error}")))?;
        let closer = reader.closer();
        let mut pump = Pumping(tokio::spawn(pump(reader, journal.clone(), audience.clone())));
        let mut pumped = None;
        let course = loop {
            let turn = tokio::select! {
                end = supervised.command.wait_end() => Turn::Ended(end),
                signal = interrupts.first() => Turn::Interrupted(signal),
                () = self.keeper.lost() => Turn::LeaseLost,
                result = pump.end(), if pumped.is_none() => Turn::Pumped(result),
            };
            match turn {
                Turn::Ended(Ok(end)) => break Course::Ending(Ending::Command(end)),
                Turn::Ended(Err(error)) => {
                    break Course::Ending(guard_lost(&error, &supervised.marker, &supervised.identity).await?);
                }
                Turn::Interrupted(signal) => {
                    self.record_cancel(journal, signal).await;
                    break match supervised.cancel(interrupts).await {
                        Ok(end) => self.interrupted(signal, Some(end)),
                        Err(error) => {
                            Course::Ending(guard_lost(&error, &supervised.marker, &supervised.identity).await?)
                        }
                    };
                }
                Turn::LeaseLost => {
                    supervised.end_at_once().await?;
                    let lost = format!("the lease of process `{}` was lost: its command was killed", self.process_id);
                    return Err(Failure::new(FailureKind::Temporary, lost));
                }
                Turn::Pumped(Ok(end)) => pumped = Some(end),
                Turn::Pumped(Err(failure)) => {
                    supervised.end_at_once().await?;
                    return Err(failure);
                }
            }
        };
        closer.close_within(DEFAULT_HELD_OPEN);
        let output_end = match pumped {
            Some(end) => end,
            None => tokio::select! {
                result = pump.end() => result?,
                () = interrupts.second() => {
                    // Somebody in a hurry does not wait for a reader that does not read. What is recorded stays whole.
                    audience.mute();
                    pump.end().await?
                }
            },
        };
        supervised.finish(&course).await?;
        self.record_output_end(journal, &output_end).await?;
        Ok(course)
    }

    /// Records the wish before anything is done about it. The wish is carried out whether it can be recorded or not.
    async fn record_cancel(&self, journal: &Journal, signal: InterruptSignal) {
        if self.on_interrupt == OnInterrupt::Stop {
            // The process is not to end, only this attempt at it.
            return;
        }
        match timeout(CANCEL_RECORD_PATIENCE, journal.request_cancel(signal.name())).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(process_id = %self.process_id, %error, "the cancel request is not recorded")
            }
            Err(_) => tracing::warn!(process_id = %self.process_id, "the cancel request is not recorded in time"),
        }
    }

    /// What an interrupt makes of an attempt whose command has ended of it, or was never started.
    fn interrupted(&self, signal: InterruptSignal, end: Option<CommandEnd>) -> Course {
        match self.on_interrupt {
            OnInterrupt::Stop => Course::Stopped,
            OnInterrupt::Cancel => Course::Ending(Ending::Cancelled { cause: CancelCause::Signal(signal), end }),
        }
    }

    async fn record_output_end(&self, journal: &Journal, end: &OutputEnd) -> Result<(), Failure> {
        let mut events = Vec::new();
        if let Some(dropped) = &end.dropped {
            events.push(event(OUTPUT_DROPPED, dropped.to_payload()));
        }
        if !end.held_open.is_empty() {
            let streams: Vec<_> = end.held_open.iter().copied().map(Stream::name).collect();
            let waited_ms = u64::try_from(DEFAULT_HELD_OPEN.as_millis()).unwrap_or(u64::MAX);
            events.push(event(OUTPUT_HELD_OPEN, json!({"streams": streams, "waited_ms": waited_ms})));
        }
        if events.is_empty() {
            return Ok(());
        }
        journal
            .append(events)
            .await
            .map_err(|error| Failure::from(error).while_doing("the end of the output cannot be recorded"))
    }
}

/// A command that runs, and by what its descendants are found.
struct Supervised {
    command: GuardedCommand,
    marker: Marker,
    identity: ProcessIdentity,
}

impl Supervised {
    /// Asks, waits and kills; a second interrupt does not wait.
    async fn cancel(&mut self, interrupts: &Interrupts) -> Result<CommandEnd, GuardError> {
        tokio::select! {
            cancelled = cancel::cancel(&mut self.command, DEFAULT_GRACE) => return cancelled.map(cancel::Cancelled::end),
            () = interrupts.second() => {}
        }
        self.command.kill()?;
        self.command.wait_end().await
    }

    /// Kills all there is, for a run that has lost its right to go on.
    async fn end_at_once(mut self) -> Result<(), Failure> {
        // The search below finds what a failed signal has missed.
        drop(self.command.kill());
        drop(self.command.finish(Remainder::Kill).await);
        kill_remains(&self.marker, &self.identity).await.map(drop)
    }

    /// Ends what the command has left in its group. What was cancelled leaves nothing elsewhere either; a command that
    /// ended by itself may have put a daemon into a session of its own, which is none of ours.
    async fn finish(self, course: &Course) -> Result<(), Failure> {
        if let Err(error) = self.command.finish(Remainder::Kill).await {
            tracing::debug!(%error, "the guard was gone already");
        }
        match course {
            Course::Ending(Ending::Cancelled { .. }) | Course::Stopped => {
                kill_remains(&self.marker, &self.identity).await.map(drop)
            }
            Course::Ending(_) => Ok(()),
        }
    }
}

/// The task that pumps. To drop it ends the task.
struct Pumping(JoinHandle<Result<OutputEnd, Failure>>);

impl Pumping {
    /// Its result. To drop the future loses nothing.
    async fn end(&mut self) -> Result<OutputEnd, Failure> {
        (&mut self.0).await.unwrap_or_else(|error| {
            Err(Failure::new(FailureKind::Software, format!("the recording of the output failed: {error}")))
        })
    }
}

impl Drop for Pumping {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Audience {
    fn mute(&self) {
        match self {
            Self::Caller(display) => display.mute(),
            Self::Nobody => {}
        }
    }
}

/// The ending of an attempt whose guard is gone: what may still run of it is ended first.
async fn guard_lost(error: &GuardError, marker: &Marker, identity: &ProcessIdentity) -> Result<Ending, Failure> {
    let report = kill_remains(marker, identity).await?;
    Ok(Ending::GuardLost { reason: error.to_string(), remains: json!(report) })
}

async fn kill_remains(marker: &Marker, identity: &ProcessIdentity) -> Result<OrphanReport, Failure> {
    let search = OrphanSearch::new(marker.clone()).with_group_of(identity);
    tokio::task::spawn_blocking(move || search.kill_all())
        .await
        .map_err(|error| Failure::new(FailureKind::Software, error.to_string()))?
        .map_err(|error| Failure::new(FailureKind::Unavailable, error.to_string()))
}

fn event(event_type: &str, payload: serde_json::Value) -> ProcessEventAppendRequest {
    ProcessEventAppendRequest::new(event_type, payload)
}

fn now_epoch_ms() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or_default()
}

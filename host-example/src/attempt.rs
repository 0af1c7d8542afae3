//! One attempt at a command: from the record of its marker to what it came to.
//!
//! It owns the order of what becomes durable and what runs:
//! `attempt begun <= marker <= guard launched <= guard recorded <= command started <= output <= outcome`.
//! The first is the worker's, before it calls us, and so is the last. Whatever dies between two of these, the next host
//! finds in the log all that it needs to find and end what runs: before the marker nothing does.
//!
//! It does not know how the lease was acquired, nor whether there were attempts before.

mod display;
mod outcome;
mod pump;
mod remains;

pub(crate) use display::Display;
pub(crate) use outcome::{
    CancelCause, DEADLINE_EXIT_CODE, DEADLINE_PASSED, Ending, FAILED_EXIT_CODE, Repetition, exit_code_of, printable,
    summary,
};
pub(crate) use pump::Audience;
pub(crate) use remains::PastAttempts;

use std::{ffi::OsString, path::PathBuf, sync::Arc, time::Duration};

use registry_actor::{
    domain::{CoreEventType, ProcessEventAppendRequest, RecoveryDisposition, Sequence},
    port::{ProcessRegistryExt, ProcessRun, RegistryError, StopCause},
};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};

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
    interrupt::{InterruptSignal, Interrupts},
};

/// The lines that wait to be recorded before the command is made to wait.
const CAPACITY_LINES: usize = 256;

/// How long a command that is to be cancelled runs on because the store does not take the request.
pub(crate) const CANCEL_RECORD_PATIENCE: Duration = Duration::from_secs(2);

/// One attempt that has begun.
pub(crate) struct Attempt {
    /// The worker's end of it.
    pub(crate) run: Arc<dyn ProcessRun>,
    /// What to run.
    pub(crate) command: CommandProcess,
    /// The command's additions to the environment, with their values.
    pub(crate) environment: Vec<(OsString, OsString)>,
    /// Who watches.
    pub(crate) audience: Audience,
    /// The wish of people that it end: the second one hurries. The first reaches the attempt as a request in the store.
    pub(crate) interrupts: Interrupts,
}

/// What an attempt came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Course {
    /// An end of the process, or of a try.
    Ending(Ending),
    /// Nothing: another host makes the next one.
    Stopped,
}

/// Why an attempt is to end.
enum Stop {
    Cancel(CancelCause),
    Deadline,
    TimeLimit,
    HostStops,
    LeaseLost,
}

/// Why nothing more is waited for.
enum Turn {
    Ended(Result<CommandEnd, GuardError>),
    Stop(Stop),
    /// The output has ended, or cannot be recorded.
    Pumped(Result<OutputEnd, Failure>),
}

impl Attempt {
    /// Makes the attempt. Nothing of it runs any more when it is over.
    ///
    /// # Errors
    /// When it could not be recorded, or the lease was lost.
    pub(crate) async fn make(&self) -> Result<Course, Failure> {
        if let Some(course) = self.stopped_before_start().await? {
            return Ok(course);
        }
        let marker = Marker::random()
            .map_err(|error| Failure::new(FailureKind::System, format!("no randomness for a marker: {error}")))?;
        self.record_marker(&marker).await?;
        let guard = match Guard::launch(&self.spec(&marker)) {
            Ok(guard) => guard,
            Err(error) => return Ok(Course::Ending(Ending::NoGuard { reason: error.to_string() })),
        };
        let identity = guard.identity().clone();
        // Nothing runs in the group yet. Should this fail, the guard is dropped and goes.
        let guarded = json!({"attempt": self.run.attempt(), "guard": identity});
        self.append(vec![event(GUARDED, guarded)], "the guard cannot be recorded").await?;
        let started = match self.start(guard).await {
            Ok(started) => started,
            Err(stop) => {
                self.record_stop(&stop).await;
                // With its future the guard was let go. What it may have started all the same is found by the marker.
                kill_remains(&marker, &identity).await?;
                return match stop {
                    Stop::LeaseLost => Err(self.lease_lost()),
                    stop => Ok(self.course_of(stop, None)),
                };
            }
        };
        match started {
            Ok((command, pipes)) => self.supervise(Supervised { command, marker, identity }, pipes).await,
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

    /// Has the guard start its command. The error is why it was given up: a directory of a dead server keeps the guard from
    /// starting anything, and nobody could end the attempt.
    async fn start(&self, guard: Guard) -> Result<Result<(GuardedCommand, OutputPipes), SpawnError>, Stop> {
        let mut starting = std::pin::pin!(guard.start());
        tokio::select! {
            biased;
            started = &mut starting => Ok(started),
            stop = self.stop() => timeout(START_PATIENCE, &mut starting).await.map_err(|_| stop),
        }
    }

    /// What is asked of the attempt before it has started anything.
    async fn stopped_before_start(&self) -> Result<Option<Course>, Failure> {
        if let Some(reason) = self.earlier_request().await? {
            let cause = self.signal_of(reason.as_deref()).map_or(CancelCause::EarlierRequest, CancelCause::Signal);
            return Ok(Some(Course::Ending(Ending::Cancelled { cause, end: None })));
        }
        match self.run.stop_cause() {
            None => Ok(None),
            Some(cause) => match self.meaning_of(cause) {
                Stop::LeaseLost => Err(self.lease_lost()),
                stop => {
                    self.record_stop(&stop).await;
                    Ok(Some(self.course_of(stop, None)))
                }
            },
        }
    }

    /// The reason that was given by whoever has asked before this attempt that the process stop.
    async fn earlier_request(&self) -> Result<Option<Option<String>>, RegistryError> {
        let event_type = CoreEventType::CancelRequested.name();
        let process_id = self.run.record().id();
        let request = self.run.registry().first_event_of_type(process_id, event_type, Sequence::REGISTRATION).await?;
        Ok(request.map(|request| request.payload.get("reason").and_then(Value::as_str).map(str::to_owned)))
    }

    /// Makes durable that something may run from now on, and by what it is found.
    async fn record_marker(&self, marker: &Marker) -> Result<(), Failure> {
        let here = process_identity(std::process::id());
        let payload = json!({
            "attempt": self.run.attempt(),
            "marker": marker,
            "host": here,
            "boot_id": here.as_ref().map(|here| &here.boot_id),
            "pid_namespace": here.as_ref().map(|here| here.pid_namespace),
        });
        self.append(vec![event(ATTEMPT_STARTED, payload)], "the start cannot be recorded").await
    }

    fn spec(&self, marker: &Marker) -> CommandSpec {
        let (program, args) = self.command.argv.split_first().map_or(("", &[][..]), |(first, rest)| (first, rest));
        let mut spec = CommandSpec::new(program, args, self.run.record().id().as_str(), marker.clone());
        spec.directory = Some(PathBuf::from(&self.command.cwd));
        spec.env.clone_from(&self.environment);
        spec.attempt = self.run.attempt();
        spec
    }

    async fn supervise(&self, mut supervised: Supervised, pipes: OutputPipes) -> Result<Course, Failure> {
        let budget = OutputBudget::new(self.command.max_output_bytes);
        let reader = OutputReader::start(pipes.stdout, pipes.stderr, budget, CAPACITY_LINES)
            .map_err(|error| Failure::new(FailureKind::System, format!("cannot read the output: {error}")))?;
        let closer = reader.closer();
        let mut pump = Pumping(tokio::spawn(pump(reader, Arc::clone(&self.run), self.audience.clone())));
        let mut pumped = None;
        let mut time_limit = std::pin::pin!(time_limit(self.command.time_limit_ms));
        let course = loop {
            let turn = tokio::select! {
                end = supervised.command.wait_end() => Turn::Ended(end),
                stop = self.stop() => Turn::Stop(stop),
                () = &mut time_limit => Turn::Stop(Stop::TimeLimit),
                result = pump.end(), if pumped.is_none() => Turn::Pumped(result),
            };
            match turn {
                Turn::Ended(Ok(end)) if is_of_a_stop(end) => match timeout(STOP_OF_ALL, self.stop()).await {
                    Ok(Stop::LeaseLost) | Err(_) => break Course::Ending(Ending::Command(end)),
                    // Whoever stops the host has told the command as well, which was faster.
                    Ok(stop) => {
                        self.record_stop(&stop).await;
                        break self.course_of(stop, Some(end));
                    }
                },
                Turn::Ended(Ok(end)) => break Course::Ending(Ending::Command(end)),
                Turn::Ended(Err(error)) => {
                    break Course::Ending(guard_lost(&error, &supervised.marker, &supervised.identity).await?);
                }
                Turn::Stop(Stop::LeaseLost) => {
                    supervised.end_at_once().await?;
                    closer.close_within(DEFAULT_HELD_OPEN);
                    // A store that takes nothing loses the lease too, and says more about it.
                    return match pumped {
                        None => pump.end().await.and_then(|_| Err(self.lease_lost())),
                        Some(_) => Err(self.lease_lost()),
                    };
                }
                Turn::Stop(stop) => {
                    self.record_stop(&stop).await;
                    break match supervised.cancel(&self.interrupts).await {
                        Ok(end) => self.course_of(stop, Some(end)),
                        Err(error) => {
                            Course::Ending(guard_lost(&error, &supervised.marker, &supervised.identity).await?)
                        }
                    };
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
                () = self.interrupts.second() => {
                    // Somebody in a hurry does not wait for a reader that does not read. What is recorded stays whole.
                    self.audience.mute();
                    pump.end().await?
                }
            },
        };
        supervised.finish(&course).await?;
        self.record_output_end(&output_end).await?;
        Ok(course)
    }

    /// Waits for a reason to end. A signal is recorded as a request, by which it reaches us; where the store does not take
    /// the request, the wish is carried out all the same.
    async fn stop(&self) -> Stop {
        let unrecorded = async {
            let signal = self.interrupts.first().await;
            sleep(CANCEL_RECORD_PATIENCE).await;
            signal
        };
        tokio::select! {
            biased;
            cause = self.run.stopped() => self.meaning_of(cause),
            signal = unrecorded, if self.audience.is_caller() => Stop::Cancel(CancelCause::Signal(signal)),
        }
    }

    fn meaning_of(&self, cause: StopCause) -> Stop {
        match cause {
            StopCause::CancelRequested { reason } => Stop::Cancel(match self.signal_of(reason.as_deref()) {
                Some(signal) => CancelCause::Signal(signal),
                None => CancelCause::Request { reason },
            }),
            StopCause::DeadlinePassed => Stop::Deadline,
            StopCause::LeaseLost => Stop::LeaseLost,
            // Whatever else there will be: the attempt has to end, and nothing is wrong with the process.
            _ => Stop::HostStops,
        }
    }

    /// The signal of this host that a request with this reason was made for.
    fn signal_of(&self, reason: Option<&str>) -> Option<InterruptSignal> {
        self.interrupts.asked().filter(|signal| reason == Some(signal.name()))
    }

    /// What becomes of a command that its host leaves. One that may run again goes on in the next host; any other ends here.
    fn is_left_to_the_next_host(&self) -> bool {
        self.run.record().registration.disposition == RecoveryDisposition::Rerunnable
    }

    /// What a reason to end makes of an attempt whose command has ended of it, or was never started.
    fn course_of(&self, stop: Stop, end: Option<CommandEnd>) -> Course {
        let cause = match stop {
            Stop::Cancel(cause) => cause,
            Stop::Deadline => return Course::Ending(Ending::DeadlinePassed { end }),
            Stop::TimeLimit => return Course::Ending(Ending::TimeLimitPassed { end }),
            Stop::HostStops | Stop::LeaseLost if self.is_left_to_the_next_host() => return Course::Stopped,
            Stop::HostStops | Stop::LeaseLost => match self.interrupts.asked() {
                Some(signal) => CancelCause::Signal(signal),
                None => CancelCause::Request { reason: Some(HOST_STOPS.to_owned()) },
            },
        };
        Course::Ending(Ending::Cancelled { cause, end })
    }

    /// Records that the process is cancelled because its host stops, before anything is done about it: nobody else has
    /// asked for that. It is carried out whether it can be recorded or not.
    async fn record_stop(&self, stop: &Stop) {
        if !matches!(stop, Stop::HostStops) || self.is_left_to_the_next_host() {
            return;
        }
        let reason = self.interrupts.asked().map_or(HOST_STOPS, InterruptSignal::name);
        let process_id = self.run.record().id();
        let request = self.run.registry().request_process_cancel(process_id, Some(reason.to_owned()));
        match timeout(CANCEL_RECORD_PATIENCE, request).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(%process_id, %error, "the cancel request is not recorded"),
            Err(_) => tracing::warn!(%process_id, "the cancel request is not recorded in time"),
        }
    }

    async fn record_output_end(&self, end: &OutputEnd) -> Result<(), Failure> {
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
        self.append(events, "the end of the output cannot be recorded").await
    }

    async fn append(&self, events: Vec<ProcessEventAppendRequest>, hindered: &str) -> Result<(), Failure> {
        let appended = self.run.append(events).await;
        appended.map(drop).map_err(|error| Failure::from(error).while_doing(hindered))
    }

    fn lease_lost(&self) -> Failure {
        let lost = format!("the lease of process `{}` was lost: its command was killed", self.run.record().id());
        Failure::new(FailureKind::Temporary, lost)
    }
}

/// Whether a signal ended the command by which a whole session, or a whole machine, is stopped.
fn is_of_a_stop(end: CommandEnd) -> bool {
    [Signal::TERM, Signal::HUP, Signal::INT].iter().any(|stop| end == CommandEnd::Signaled { signal: stop.as_raw() })
}

/// The time that one attempt may take; without a limit it is never over.
async fn time_limit(ms: Option<u64>) {
    match ms {
        Some(ms) => sleep(Duration::from_millis(ms)).await,
        None => std::future::pending().await,
    }
}

/// How long the guard may take to start its command when the attempt is to end.
const START_PATIENCE: Duration = Duration::from_secs(2);

/// How much later than its command a host may hear of a stop that is meant for both.
const STOP_OF_ALL: Duration = Duration::from_millis(500);

/// The reason of a cancellation that nobody but the end of the host stands for.
const HOST_STOPS: &str = "its host stops";

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
            Course::Ending(
                Ending::Cancelled { .. } | Ending::DeadlinePassed { .. } | Ending::TimeLimitPassed { .. },
            )
            | Course::Stopped => kill_remains(&self.marker, &self.identity).await.map(drop),
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
    const fn is_caller(&self) -> bool {
        matches!(self, Self::Caller(_))
    }

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

fn event(event_type: &str, payload: Value) -> ProcessEventAppendRequest {
    ProcessEventAppendRequest::new(event_type, payload)
}

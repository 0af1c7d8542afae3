//! The executor of commands: what the worker calls for each attempt at one.
//!
//! It owns what an attempt at a command means to the worker, and whose attempts are shown to whom. It does not know when an
//! attempt is made, nor how.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use registry_actor::{
    domain::{AttemptFailure, ProcessFailureClass, ProcessId, ProcessRecord},
    port::{ProcessExecutor, ProcessRun, RemainsError, RemainsOf, RunEnd, StopCause},
};
use serde_json::Value;

use crate::{
    attempt::{Attempt, Audience, Course, Display, PastAttempts, Repetition},
    command_policy::CommandPolicy,
    command_process::{CommandProcess, NotRunnable},
    failure::{Failure, FailureKind},
    interrupt::Interrupts,
    notice::say,
};

/// Runs processes of the kind `command`.
#[derive(Clone, Debug)]
pub(crate) struct CommandExecutor {
    interrupts: Interrupts,
    role: Role,
    hindrances: Hindrances,
}

/// Whose commands it runs.
#[derive(Clone, Debug)]
enum Role {
    /// The one that the caller of `proctor run` waits for.
    Own(OwnAttempts),
    /// Those that earlier hosts have left.
    Recovered,
    /// Those of the host that stays, as far as it may start them.
    Served(CommandPolicy),
}

/// What the attempts at our own command came to. Clones are one.
#[derive(Clone, Debug)]
pub(crate) struct OwnAttempts(Arc<Mutex<Own>>);

#[derive(Debug)]
struct Own {
    display: Option<Display>,
    latest: Option<Result<u8, Failure>>,
}

/// Why processes could not be run. Clones are one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hindrances(Arc<Mutex<BTreeMap<ProcessId, String>>>);

impl CommandExecutor {
    /// Runs our own command, and shows its output.
    pub(crate) fn of_own(interrupts: Interrupts, attempts: OwnAttempts) -> Self {
        Self { interrupts, role: Role::Own(attempts), hindrances: Hindrances::default() }
    }

    /// Runs what earlier hosts have left; its output goes to the store.
    pub(crate) fn of_recovered(interrupts: Interrupts) -> Self {
        Self { interrupts, role: Role::Recovered, hindrances: Hindrances::default() }
    }

    /// Runs what is started at a host that stays; its output goes to the store.
    pub(crate) fn of_served(interrupts: Interrupts, policy: CommandPolicy) -> Self {
        Self { interrupts, role: Role::Served(policy), hindrances: Hindrances::default() }
    }

    /// What stood in the way of processes.
    pub(crate) fn hindrances(&self) -> Hindrances {
        self.hindrances.clone()
    }

    /// A command that can be run here, with the values that are not stored. One that came with the store is looked at like any other.
    fn runnable(&self, record: &ProcessRecord) -> Result<(CommandProcess, Vec<(OsString, OsString)>), NotRunnable> {
        let command = CommandProcess::from_registration(&record.registration)?;
        if let Role::Served(policy) = &self.role
            && let Some(reason) = policy.refusal(&command)
        {
            return Err(NotRunnable::NotAllowed { reason });
        }
        let environment = command.environment()?;
        Ok((command, environment))
    }

    fn audience(&self) -> Audience {
        match &self.role {
            Role::Own(attempts) => attempts.own().display.clone().map_or(Audience::Nobody, Audience::Caller),
            Role::Recovered | Role::Served(_) => Audience::Nobody,
        }
    }

    async fn attempt(&self, run: Arc<dyn ProcessRun>) -> Result<Course, Failure> {
        let (command, environment) = self
            .runnable(run.record())
            .map_err(|reason| Failure::new(FailureKind::Unavailable, format!("it cannot be run: {reason}")))?;
        let (audience, interrupts) = (self.audience(), self.interrupts.clone());
        Attempt { run, command, environment, audience, interrupts }.make().await
    }

    fn note_stop(&self, run: &dyn ProcessRun) {
        let id = run.record().id();
        match &self.role {
            Role::Own(attempts) => {
                let line = format!("process `{id}` was stopped");
                attempts.note(Err(Failure::new(FailureKind::Temporary, line)));
            }
            Role::Recovered => say(format_args!("recovery: `{id}` is stopped, the next host runs it again")),
            Role::Served(_) => tracing::info!(process_id = %id, "stopped, the next host runs it again"),
        }
    }

    fn note_failure(&self, run: &dyn ProcessRun, failure: Failure) {
        match &self.role {
            Role::Own(attempts) => attempts.note(Err(failure)),
            // Any other failure is written, and told with the outcome.
            Role::Recovered if run.stop_cause() == Some(StopCause::LeaseLost) => {
                say(format_args!("recovery: `{}` has no outcome: {failure}", run.record().id()));
            }
            Role::Recovered => {}
            Role::Served(_) => {
                tracing::warn!(process_id = %run.record().id(), %failure, "an attempt could not be made")
            }
        }
    }
}

#[async_trait]
impl ProcessExecutor for CommandExecutor {
    async fn execute(&self, run: Arc<dyn ProcessRun>) -> RunEnd {
        let attempt = run.attempt();
        if let Role::Recovered = &self.role {
            let id = run.record().id();
            say(format_args!("recovery: `{id}` runs again as attempt {attempt}, its output goes to the store"));
        }
        match self.attempt(Arc::clone(&run)).await {
            Ok(Course::Ending(ending)) => {
                if let Role::Own(attempts) = &self.role {
                    attempts.note(Ok(ending.exit_code()));
                }
                ending.to_run_end(attempt, repetition_after(attempt, run.record()))
            }
            Ok(Course::Stopped) => {
                self.note_stop(&*run);
                RunEnd::Stopped
            }
            Err(failure) => {
                let message = failure.to_string();
                self.note_failure(&*run, failure);
                let class = ProcessFailureClass::Internal;
                RunEnd::Failed(AttemptFailure { class, code: "host_failure".to_owned(), message })
            }
        }
    }

    fn cannot_run(&self, record: &ProcessRecord) -> Option<String> {
        self.runnable(record).err().map(|reason| reason.to_string())
    }

    async fn end_remains(&self, process: RemainsOf<'_>) -> Result<Option<Value>, RemainsError> {
        let id = process.record.id();
        let ended = match PastAttempts::read(process.registry, id).await {
            Ok(attempts) => attempts.end_all().await,
            Err(error) => Err(error),
        };
        match ended {
            Ok(remains) => {
                self.hindrances.forget(id);
                Ok(Some(remains.to_evidence()))
            }
            Err(error) => {
                let reason = error.to_string();
                self.hindrances.note(id, &reason);
                Err(RemainsError { reason })
            }
        }
    }
}

impl OwnAttempts {
    /// None yet; what they will say is shown.
    pub(crate) fn shown_on(display: Display) -> Self {
        Self(Arc::new(Mutex::new(Own { display: Some(display), latest: None })))
    }

    /// Shows nothing of further attempts. Waits until all is shown of those that were made.
    pub(crate) async fn finish_display(&self) {
        let display = self.own().display.take();
        if let Some(display) = display {
            display.finish().await;
        }
    }

    /// What the latest one came to: the exit code of its command, or what kept it from one. Asked once.
    pub(crate) fn take_latest(&self) -> Option<Result<u8, Failure>> {
        self.own().latest.take()
    }

    fn note(&self, latest: Result<u8, Failure>) {
        self.own().latest = Some(latest);
    }

    fn own(&self) -> MutexGuard<'_, Own> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hindrances {
    /// Why the remains of the process could not be ended, the last time that it was tried.
    pub(crate) fn of(&self, process_id: &ProcessId) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(process_id).cloned()
    }

    fn note(&self, process_id: &ProcessId, reason: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(process_id.clone(), reason.to_owned());
    }

    fn forget(&self, process_id: &ProcessId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(process_id);
    }
}

fn repetition_after(attempt: u32, record: &ProcessRecord) -> Repetition {
    match record.registration.retry {
        Some(retry) if retry.allows_after(attempt) => Repetition::Allowed,
        Some(_) | None => Repetition::UsedUp,
    }
}

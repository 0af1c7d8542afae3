//! How an attempt came to its end, as the outcome of a process and as an exit code.
//!
//! It owns both mappings. It is pure: it does not know how an end comes about, nor where an outcome goes.

use registry_actor::{
    domain::{AttemptFailure, ProcessAwaitOutput, ProcessFailureClass},
    port::RunEnd,
};
use rustix::io::Errno;
use serde_json::{Value, json};

use host_example::{
    exit_status::ExitStatus,
    guard::{CommandEnd, SpawnFailure, SpawnStage},
};

use crate::{failure::FailureKind, interrupt::InterruptSignal};

/// The exit code of who was ended by a deadline, as `timeout(1)` has it.
pub(crate) const DEADLINE_EXIT_CODE: u8 = 124;

/// The exit code of a process that failed, and of which nothing more exact is known.
pub(crate) const FAILED_EXIT_CODE: u8 = 1;

/// The exit codes of what was not run, as shells have them.
const CANNOT_EXECUTE_EXIT_CODE: u8 = 126;
const NOT_FOUND_EXIT_CODE: u8 = 127;

/// The code of the failure of a process that was ended by its deadline, whoever ended it.
pub(crate) const DEADLINE_PASSED: &str = "deadline_passed";

/// The code of the failure of an attempt that took longer than it may.
pub(crate) const TIME_LIMIT_PASSED: &str = "time_limit_passed";

/// How an attempt came to its end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Ending {
    /// The command ended by itself, or somebody else killed it.
    Command(CommandEnd),
    /// It was cancelled.
    Cancelled {
        /// On whose word.
        cause: CancelCause,
        /// How the command ended of it; absent when it was never started.
        end: Option<CommandEnd>,
    },
    /// Its time was over.
    DeadlinePassed {
        /// How the command ended of it; absent when it was never started.
        end: Option<CommandEnd>,
    },
    /// The attempt took longer than one may; the next one has as much time again.
    TimeLimitPassed {
        /// How the command ended of it.
        end: Option<CommandEnd>,
    },
    /// The kernel would not run the command.
    NotExecuted {
        /// The program, or the directory to run it in, whichever it was about.
        subject: String,
        /// Why.
        failure: SpawnFailure,
    },
    /// There was no guard to run it under.
    NoGuard {
        /// Why.
        reason: String,
    },
    /// The guard was gone before its command; what it left was found and killed.
    GuardLost {
        /// What was noticed.
        reason: String,
        /// What was found and killed.
        remains: Value,
    },
}

/// On whose word a command was cancelled.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum CancelCause {
    /// This host was sent a signal.
    Signal(InterruptSignal),
    /// Somebody asks for it.
    Request {
        /// Why.
        reason: Option<String>,
    },
    /// Somebody had asked for it before this attempt.
    EarlierRequest,
}

/// Whether another attempt may follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Repetition {
    /// What is declared leaves room for one.
    Allowed,
    /// There was the last one, or none was declared.
    UsedUp,
}

impl Ending {
    /// The outcome of the process.
    pub(crate) fn to_await_output(&self, attempt: u32) -> ProcessAwaitOutput {
        match self {
            Self::Command(CommandEnd::Exited { code: 0 }) => {
                ProcessAwaitOutput::success(json!({"exit_code": 0, "attempt": attempt}))
            }
            Self::Command(CommandEnd::Exited { code }) => failure(
                ProcessFailureClass::Execution,
                "exit_status",
                format!("the command exited with status {code}"),
                json!({"exit_code": code, "attempt": attempt}),
            ),
            Self::Command(CommandEnd::Signaled { signal }) => failure(
                ProcessFailureClass::Execution,
                "signal",
                format!("the command was ended by signal {signal}"),
                json!({"signal": signal, "attempt": attempt}),
            ),
            Self::Cancelled { cause, end } => ProcessAwaitOutput::Cancelled {
                message: match cause {
                    CancelCause::Signal(signal) => format!("cancelled by {}", signal.name()),
                    CancelCause::Request { reason: None } => "cancelled on request".to_owned(),
                    CancelCause::Request { reason: Some(reason) } => format!("cancelled: {reason}"),
                    CancelCause::EarlierRequest => "cancelled by an earlier request".to_owned(),
                },
                raw: Some(ended(*end, attempt)),
                control: None,
            },
            Self::DeadlinePassed { end } => failure(
                ProcessFailureClass::Timeout,
                DEADLINE_PASSED,
                "the command did not end by its deadline".to_owned(),
                ended(*end, attempt),
            ),
            Self::TimeLimitPassed { end } => failure(
                ProcessFailureClass::Timeout,
                TIME_LIMIT_PASSED,
                "the command did not end within its time limit".to_owned(),
                ended(*end, attempt),
            ),
            Self::NotExecuted { subject, failure: spawn_failure } => failure(
                ProcessFailureClass::InvalidRequest,
                code_of(spawn_failure),
                format!("`{subject}`: {spawn_failure}"),
                json!({
                    "stage": spawn_failure.stage,
                    "errno": spawn_failure.errno,
                    "message": spawn_failure.message,
                    "attempt": attempt,
                }),
            ),
            Self::NoGuard { reason } => {
                failure(ProcessFailureClass::Unavailable, "no_guard", reason.clone(), json!({"attempt": attempt}))
            }
            Self::GuardLost { reason, remains } => failure(
                ProcessFailureClass::Internal,
                "guard_lost",
                reason.clone(),
                json!({"attempt": attempt, "remains": remains}),
            ),
        }
    }

    /// What it means for the process: its outcome, or a failure that may be followed by another attempt. What cannot be
    /// executed cannot be executed the next time either.
    pub(crate) fn to_run_end(&self, attempt: u32, repetition: Repetition) -> RunEnd {
        let outcome = self.to_await_output(attempt);
        let is_repeatable = matches!(
            self,
            Self::Command(_) | Self::TimeLimitPassed { .. } | Self::NoGuard { .. } | Self::GuardLost { .. }
        );
        match outcome {
            ProcessAwaitOutput::Failure { class, code, message, .. }
                if is_repeatable && repetition == Repetition::Allowed =>
            {
                RunEnd::Failed(AttemptFailure { class, code, message })
            }
            outcome => RunEnd::Ended(outcome),
        }
    }

    /// What the shell that called `proctor run` sees.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Command(end) => ExitStatus::from(*end).code(),
            Self::Cancelled { cause: CancelCause::Signal(signal), .. } => signal.exit_code(),
            Self::Cancelled { cause: CancelCause::EarlierRequest | CancelCause::Request { .. }, .. } => {
                InterruptSignal::Terminate.exit_code()
            }
            Self::DeadlinePassed { .. } | Self::TimeLimitPassed { .. } => DEADLINE_EXIT_CODE,
            Self::NotExecuted { failure, .. } => ExitStatus::from(failure).code(),
            Self::NoGuard { .. } => FailureKind::System.code(),
            Self::GuardLost { .. } => FailureKind::Software.code(),
        }
    }
}

/// The outcome in a few words, for people.
pub(crate) fn summary(outcome: &ProcessAwaitOutput) -> String {
    let state = outcome.terminal_state();
    match outcome {
        ProcessAwaitOutput::Success { .. } => state.to_string(),
        ProcessAwaitOutput::Failure { message, .. } | ProcessAwaitOutput::Cancelled { message, .. } => {
            format!("{state} ({message})")
        }
        ProcessAwaitOutput::Abandoned { evidence, .. } => match &evidence.owner {
            Some(owner) => format!("{state} (its host {} is dead)", owner.owner_id),
            None => state.to_string(),
        },
    }
}

/// What a shell is to see of a process that has ended, by its outcome alone, wherever it ran: as `proctor run` would have
/// ended with it, but that whoever cancelled it is one.
pub(crate) fn exit_code_of(outcome: &ProcessAwaitOutput) -> u8 {
    match outcome {
        ProcessAwaitOutput::Success { .. } => 0,
        ProcessAwaitOutput::Cancelled { .. } => InterruptSignal::Terminate.exit_code(),
        ProcessAwaitOutput::Abandoned { .. } => FailureKind::Unavailable.code(),
        ProcessAwaitOutput::Failure { code, raw, .. } => {
            let number = |name: &str| {
                raw.as_ref().and_then(|raw| raw.get(name)?.as_i64()).and_then(|number| i32::try_from(number).ok())
            };
            match (code.as_str(), number("exit_code"), number("signal")) {
                (DEADLINE_PASSED | TIME_LIMIT_PASSED, ..) => DEADLINE_EXIT_CODE,
                ("exit_status", Some(code), _) => ExitStatus::from(CommandEnd::Exited { code }).code(),
                ("signal", _, Some(signal)) => ExitStatus::from(CommandEnd::Signaled { signal }).code(),
                ("not_found", ..) => NOT_FOUND_EXIT_CODE,
                ("cannot_execute" | "directory", ..) => CANNOT_EXECUTE_EXIT_CODE,
                ("no_guard", ..) => FailureKind::System.code(),
                ("guard_lost", ..) => FailureKind::Software.code(),
                _ => FAILED_EXIT_CODE,
            }
        }
    }
}

/// How a command ended that was made to.
fn ended(end: Option<CommandEnd>, attempt: u32) -> Value {
    match end {
        None => json!({"attempt": attempt, "started": false}),
        Some(CommandEnd::Exited { code }) => json!({"attempt": attempt, "exit_code": code}),
        Some(CommandEnd::Signaled { signal }) => json!({"attempt": attempt, "signal": signal}),
    }
}

fn code_of(failure: &SpawnFailure) -> &'static str {
    match failure.stage {
        SpawnStage::Directory => "directory",
        SpawnStage::Program if failure.errno == Errno::NOENT.raw_os_error() => "not_found",
        SpawnStage::Program => "cannot_execute",
    }
}

fn failure(class: ProcessFailureClass, code: &str, message: String, raw: Value) -> ProcessAwaitOutput {
    ProcessAwaitOutput::Failure { class, code: code.to_owned(), message, raw: Some(raw), control: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(ending: &Ending) -> (ProcessFailureClass, String, Value) {
        match ending.to_await_output(2) {
            ProcessAwaitOutput::Failure { class, code, raw: Some(raw), .. } => (class, code, raw),
            other => panic!("{other:?} is no failure"),
        }
    }

    #[test]
    fn an_exit_of_zero_is_success_and_any_other_is_a_failure() {
        let success = Ending::Command(CommandEnd::Exited { code: 0 });
        assert_eq!(success.to_await_output(1), ProcessAwaitOutput::success(json!({"exit_code": 0, "attempt": 1})));
        let ending = Ending::Command(CommandEnd::Exited { code: 3 });
        let expected =
            (ProcessFailureClass::Execution, "exit_status".to_owned(), json!({"exit_code": 3, "attempt": 2}));
        assert_eq!(parts(&ending), expected);
        assert_eq!(ending.exit_code(), 3);
    }

    #[test]
    fn an_outcome_has_the_exit_code_of_its_ending() {
        let spawn = |stage, errno| SpawnFailure { stage, errno, message: String::new() };
        let not_executed = |stage, errno| Ending::NotExecuted { subject: "x".to_owned(), failure: spawn(stage, errno) };
        for ending in [
            Ending::Command(CommandEnd::Exited { code: 0 }),
            Ending::Command(CommandEnd::Exited { code: 3 }),
            Ending::Command(CommandEnd::Signaled { signal: 9 }),
            Ending::Cancelled { cause: CancelCause::EarlierRequest, end: Some(CommandEnd::Exited { code: 0 }) },
            Ending::DeadlinePassed { end: Some(CommandEnd::Exited { code: 0 }) },
            Ending::TimeLimitPassed { end: Some(CommandEnd::Signaled { signal: 15 }) },
            not_executed(SpawnStage::Program, Errno::NOENT.raw_os_error()),
            not_executed(SpawnStage::Program, Errno::ACCESS.raw_os_error()),
            not_executed(SpawnStage::Directory, Errno::NOENT.raw_os_error()),
            Ending::NoGuard { reason: "x".to_owned() },
            Ending::GuardLost { reason: "x".to_owned(), remains: Value::Null },
        ] {
            assert_eq!(exit_code_of(&ending.to_await_output(1)), ending.exit_code(), "{ending:?}");
        }
        let other = failure(ProcessFailureClass::Execution, "exit_status", String::new(), Value::Null);
        assert_eq!(exit_code_of(&other), FAILED_EXIT_CODE);
    }

    #[test]
    fn a_signal_is_a_failure_of_its_own() {
        let ending = Ending::Command(CommandEnd::Signaled { signal: 9 });
        let expected = (ProcessFailureClass::Execution, "signal".to_owned(), json!({"signal": 9, "attempt": 2}));
        assert_eq!(parts(&ending), expected);
        assert_eq!(ending.exit_code(), 137);
    }

    #[test]
    fn a_cancelled_command_is_cancelled_however_it_ended() {
        for end in [None, Some(CommandEnd::Exited { code: 0 }), Some(CommandEnd::Signaled { signal: 15 })] {
            let ending = Ending::Cancelled { cause: CancelCause::Signal(InterruptSignal::Interrupt), end };
            assert!(matches!(ending.to_await_output(1), ProcessAwaitOutput::Cancelled { .. }));
            assert_eq!(ending.exit_code(), 130);
        }
    }

    #[test]
    fn a_command_past_its_deadline_timed_out_however_it_ended() {
        let ending = Ending::DeadlinePassed { end: Some(CommandEnd::Exited { code: 0 }) };
        let expected =
            (ProcessFailureClass::Timeout, "deadline_passed".to_owned(), json!({"exit_code": 0, "attempt": 2}));
        assert_eq!(parts(&ending), expected);
        assert_eq!(ending.exit_code(), 124);
        assert!(matches!(ending.to_run_end(1, Repetition::Allowed), RunEnd::Ended(_)));
    }

    #[test]
    fn an_attempt_past_its_time_limit_timed_out_and_may_be_followed_by_another() {
        let ending = Ending::TimeLimitPassed { end: Some(CommandEnd::Signaled { signal: 15 }) };
        let expected =
            (ProcessFailureClass::Timeout, "time_limit_passed".to_owned(), json!({"signal": 15, "attempt": 2}));
        assert_eq!(parts(&ending), expected);
        assert_eq!(ending.exit_code(), 124);
        assert!(matches!(ending.to_run_end(1, Repetition::Allowed), RunEnd::Failed(_)));
        assert!(matches!(ending.to_run_end(1, Repetition::UsedUp), RunEnd::Ended(_)));
    }

    #[test]
    fn only_what_may_go_well_the_next_time_is_repeated() {
        let failed = Ending::Command(CommandEnd::Exited { code: 3 });
        let again = RunEnd::Failed(AttemptFailure::execution("exit_status", "the command exited with status 3"));
        assert_eq!(failed.to_run_end(1, Repetition::Allowed), again);
        assert_eq!(failed.to_run_end(1, Repetition::UsedUp), RunEnd::Ended(failed.to_await_output(1)));
        let succeeded = Ending::Command(CommandEnd::Exited { code: 0 });
        assert_eq!(succeeded.to_run_end(1, Repetition::Allowed), RunEnd::Ended(succeeded.to_await_output(1)));
        let failure = SpawnFailure { stage: SpawnStage::Program, errno: 2, message: "no such file".to_owned() };
        let absent = Ending::NotExecuted { subject: "nosuch".to_owned(), failure };
        assert_eq!(absent.to_run_end(1, Repetition::Allowed), RunEnd::Ended(absent.to_await_output(1)));
    }

    #[test]
    fn a_program_that_is_not_there_is_an_invalid_request() {
        let failure = SpawnFailure { stage: SpawnStage::Program, errno: 2, message: "no such file".to_owned() };
        let ending = Ending::NotExecuted { subject: "nosuch".to_owned(), failure };
        let (class, code, _) = parts(&ending);
        assert_eq!((class, code.as_str()), (ProcessFailureClass::InvalidRequest, "not_found"));
        assert_eq!(ending.exit_code(), 127);
    }
}

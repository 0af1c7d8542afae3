//! Why `proctor` itself failed: one line for people and a number for scripts.
//!
//! It owns the exit codes that are not those of a command, and their documentation. It does not know what failed.

use std::{fmt, io, path::Path, process::ExitCode};

use registry_actor::{
    domain::Refusal,
    port::{LogError, RegistryError},
};

/// What kind of failure it was. The numbers are those of `sysexits.h`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FailureKind {
    /// The command line makes no sense.
    Usage,
    /// What is stored is not what it should be.
    Data,
    /// What was named is not there.
    NoInput,
    /// Something that is needed is not to be had.
    Unavailable,
    /// A part of `proctor` itself failed.
    Software,
    /// The operating system refused a process, a pipe or a thread.
    System,
    /// Something cannot be created.
    CannotCreate,
    /// Reading or writing failed.
    Io,
    /// It may work later.
    Temporary,
    /// What answers is no host, or one of another version.
    Protocol,
    /// Somebody else may, and we may not.
    NoPermission,
}

impl FailureKind {
    /// All of them, by number.
    pub(crate) const ALL: [Self; 11] = [
        Self::Usage,
        Self::Data,
        Self::NoInput,
        Self::Unavailable,
        Self::Software,
        Self::System,
        Self::CannotCreate,
        Self::Io,
        Self::Temporary,
        Self::Protocol,
        Self::NoPermission,
    ];

    /// The number that the shell sees.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Usage => 64,
            Self::Data => 65,
            Self::NoInput => 66,
            Self::Unavailable => 69,
            Self::Software => 70,
            Self::System => 71,
            Self::CannotCreate => 73,
            Self::Io => 74,
            Self::Temporary => 75,
            Self::Protocol => 76,
            Self::NoPermission => 77,
        }
    }

    /// When it is met, for `--help`.
    pub(crate) const fn meaning(self) -> &'static str {
        match self {
            Self::Usage => "the command line makes no sense, or an `--env KEY` is not set",
            Self::Data => "a file is no store, is of a newer or an older version, or what it holds is damaged",
            Self::NoInput => "no such process, or one that was pruned, or no such store",
            Self::Unavailable => {
                "no host is running there; or the process cannot be run, or not again: of a dead host, out of attempts, or its remains live on"
            }
            Self::Software => "the guard of the command was killed, or proctor itself is at fault",
            Self::System => "the system gave no process, pipe or thread",
            Self::CannotCreate => "the id is taken, the process has ended already, or the store cannot be created",
            Self::Io => {
                "the store could not be read or written: a full disk, for instance; or the connection to the host broke off: read first what became of a change"
            }
            Self::Temporary => {
                "the store is owned by another host, the host is busy or going down, or the lease was lost: try again"
            }
            Self::Protocol => "what answers at the address is no host, or one of another version",
            Self::NoPermission => {
                "the token is wrong or allows less, or the store or the socket is that of another user"
            }
        }
    }
}

/// The codes and their meanings, for `--help`.
pub(crate) fn exit_code_help() -> String {
    let mut help =
        "Exit codes:\n  `run`, `wait`, `submit --wait` and `submit --follow` exit with the command's own code; with 128 + N when signal N ended it, 126 when it \
                    cannot be executed, 127 when it is not found, 130 when Ctrl-C cancelled it, 143 when SIGTERM or a request did, \
                    124 when it did not end by its deadline, or not in the time of `wait`. \
                    Otherwise:\n"
            .to_owned();
    for kind in FailureKind::ALL {
        help.push_str(&format!("  {}  {}\n", kind.code(), kind.meaning()));
    }
    help
}

/// A failure of `proctor` as opposed to one of the command.
#[derive(Debug)]
pub(crate) struct Failure {
    kind: FailureKind,
    message: String,
}

impl Failure {
    /// A failure with its line: lower case, one line, values included.
    pub(crate) fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        let message = message.into();
        // What a system or a library says may take several lines; ours is always one.
        let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
        Self { kind, message }
    }

    /// A failure to write to our own stdout. A reader that has seen enough is none.
    pub(crate) fn of_stdout(error: &io::Error) -> Self {
        Self::new(FailureKind::Io, format!("cannot write to stdout: {error}"))
    }

    /// What kind it is.
    pub(crate) const fn kind(&self) -> FailureKind {
        self.kind
    }

    /// The same, said of a store.
    pub(crate) fn in_store(self, path: &Path) -> Self {
        Self { message: format!("store {}: {}", path.display(), self.message), ..self }
    }

    /// The same with what to do about it.
    pub(crate) fn with_advice(self, advice: &str) -> Self {
        Self { message: format!("{}; {advice}", self.message), ..self }
    }

    /// The same with what it stood in the way of.
    pub(crate) fn while_doing(self, what: &str) -> Self {
        Self { message: format!("{what}: {}", self.message), ..self }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
        let kind = match &error {
            RegistryError::Refused(refusal) => kind_of_refusal(refusal),
            RegistryError::Busy { .. } => FailureKind::Temporary,
            RegistryError::Unavailable { .. } | RegistryError::Closed => FailureKind::Unavailable,
            RegistryError::OutcomeUnknown { .. }
            | RegistryError::AcrossOutcomeUnknown { .. }
            | RegistryError::NotStored { .. } => FailureKind::Io,
            RegistryError::Store(error) => kind_of_log_error(error),
            _ => FailureKind::Software,
        };
        match &error {
            // Which operation it was helps nobody who reads one line.
            RegistryError::OutcomeUnknown { process_id, reason, .. } => {
                let line =
                    format!("whether what was asked of process `{process_id}` was carried out is unknown: {reason}");
                Self::new(kind, line)
            }
            RegistryError::AcrossOutcomeUnknown { command, reason, .. } => {
                Self::new(kind, format!("whether {command} was carried out is unknown: {reason}"))
            }
            _ => Self::new(kind, error.to_string()),
        }
    }
}

impl From<LogError> for Failure {
    fn from(error: LogError) -> Self {
        Self::new(kind_of_log_error(&error), error.to_string())
    }
}

impl From<Failure> for ExitCode {
    fn from(failure: Failure) -> Self {
        Self::from(failure.kind.code())
    }
}

fn kind_of_refusal(refusal: &Refusal) -> FailureKind {
    match refusal {
        Refusal::Unknown { .. } => FailureKind::NoInput,
        // The conflicts are those that a host answers with 409.
        Refusal::RegistrationConflict { .. }
        | Refusal::AlreadyTerminal { .. }
        | Refusal::AbandonOfTerminal { .. }
        | Refusal::WaitOfTerminal { .. }
        | Refusal::ReplayConflict { .. } => FailureKind::CannotCreate,
        Refusal::LeaseLost { .. } | Refusal::LeaseHeld { .. } => FailureKind::Temporary,
        Refusal::DecisionPanicked { .. } => FailureKind::Software,
        _ => FailureKind::Usage,
    }
}

fn kind_of_log_error(error: &LogError) -> FailureKind {
    match error {
        LogError::Unknown { .. } => FailureKind::NoInput,
        LogError::Damaged { .. } => FailureKind::Data,
        LogError::Closed => FailureKind::Unavailable,
        _ => FailureKind::Io,
    }
}

#[cfg(test)]
mod tests {
    use registry_actor::domain::{OperationId, ProcessId};

    use super::*;

    #[test]
    fn the_codes_are_ascending_and_all_are_in_the_help() {
        assert!(FailureKind::ALL.is_sorted_by_key(|kind| kind.code()));
        let help = exit_code_help();
        for kind in FailureKind::ALL {
            assert!(help.contains(&format!("\n  {}  ", kind.code())), "{kind:?}");
        }
    }

    #[test]
    fn what_is_not_known_is_called_so() {
        let (operation, reason) = (OperationId { issuer: 1, number: 1 }, "the writer is gone".to_owned());
        let process_id = ProcessId::new("p").expect("an id");
        let of_one = RegistryError::OutcomeUnknown { process_id, operation, reason: reason.clone() };
        let across = RegistryError::AcrossOutcomeUnknown { command: "prune".to_owned(), operation, reason };
        for failure in [Failure::from(of_one), Failure::from(across)] {
            assert_eq!(failure.kind(), FailureKind::Io);
            assert!(failure.to_string().contains("was carried out is unknown: the writer is gone"), "{failure}");
        }
    }

    #[test]
    fn a_message_of_many_lines_becomes_one() {
        assert_eq!(Failure::new(FailureKind::Io, "one\n  two\n").to_string(), "one two");
    }
}

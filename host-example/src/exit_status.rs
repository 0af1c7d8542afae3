//! The exit status of `proctor run`, by the conventions of shells.
//!
//! It owns the mapping from the end of a command to a number and nothing else.

use std::process::ExitCode;

use rustix::io::Errno;

use crate::guard::{CommandEnd, SpawnFailure, SpawnStage};

const CANNOT_EXECUTE: u8 = 126;
const NOT_FOUND: u8 = 127;
const SIGNAL_BASE: i32 = 128;

/// What the shell that called `proctor run` sees.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExitStatus(u8);

impl ExitStatus {
    /// The number.
    #[must_use]
    pub fn code(self) -> u8 {
        self.0
    }

    /// The low eight bits, which are all that the kernel passes on.
    fn truncated(code: i32) -> Self {
        Self(code.to_le_bytes()[0])
    }
}

impl From<CommandEnd> for ExitStatus {
    fn from(end: CommandEnd) -> Self {
        match end {
            CommandEnd::Exited { code } => Self::truncated(code),
            CommandEnd::Signaled { signal } => Self::truncated(SIGNAL_BASE + signal),
        }
    }
}

impl From<&SpawnFailure> for ExitStatus {
    fn from(failure: &SpawnFailure) -> Self {
        let absent = failure.errno == Errno::NOENT.raw_os_error();
        // That the directory is absent does not make the program so.
        if absent && failure.stage == SpawnStage::Program { Self(NOT_FOUND) } else { Self(CANNOT_EXECUTE) }
    }
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        Self::from(status.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(stage: SpawnStage, errno: Errno) -> SpawnFailure {
        SpawnFailure { stage, errno: errno.raw_os_error(), message: String::new() }
    }

    #[test]
    fn an_exit_code_passes_through() {
        for code in [0, 1, 42, 255] {
            assert_eq!(i32::from(ExitStatus::from(CommandEnd::Exited { code }).code()), code);
        }
    }

    #[test]
    fn a_signal_is_added_to_128() {
        assert_eq!(ExitStatus::from(CommandEnd::Signaled { signal: 9 }).code(), 137);
        assert_eq!(ExitStatus::from(CommandEnd::Signaled { signal: 15 }).code(), 143);
        assert_eq!(ExitStatus::from(CommandEnd::Signaled { signal: 64 }).code(), 192);
    }

    #[test]
    fn only_an_absent_program_is_not_found() {
        assert_eq!(ExitStatus::from(&failure(SpawnStage::Program, Errno::NOENT)).code(), 127);
        assert_eq!(ExitStatus::from(&failure(SpawnStage::Program, Errno::ACCESS)).code(), 126);
        assert_eq!(ExitStatus::from(&failure(SpawnStage::Program, Errno::NOEXEC)).code(), 126);
        assert_eq!(ExitStatus::from(&failure(SpawnStage::Directory, Errno::NOENT)).code(), 126);
    }
}

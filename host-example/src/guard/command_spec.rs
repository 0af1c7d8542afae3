//! What to run under a guard, as the host states it.
//!
//! It owns the values alone; it does not know how they reach the command.

use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
};

use crate::marker::{MARKER_VARIABLE, Marker};

/// The variable that tells the command which process it is.
pub const PROCESS_ID_VARIABLE: &str = "PROCTOR_PROCESS_ID";

/// The variable that tells the command which attempt it is, counted from 1.
pub const ATTEMPT_VARIABLE: &str = "PROCTOR_ATTEMPT";

/// Whether the variable names the attempt, which no addition to the environment may change.
pub(super) fn is_attempt_variable(name: &OsStr) -> bool {
    [PROCESS_ID_VARIABLE, ATTEMPT_VARIABLE, MARKER_VARIABLE].iter().any(|reserved| name == *reserved)
}

/// One attempt at one command.
#[derive(Clone, Debug)]
pub struct CommandSpec {
    /// The program: a path, or a name that is looked up in the `PATH` of the command's own environment.
    pub program: OsString,
    /// The arguments after the program's name.
    pub args: Vec<OsString>,
    /// The directory to run in; `None` is the host's own.
    pub directory: Option<PathBuf>,
    /// Variables on top of the host's environment. They may be secret and never show in anybody's argv.
    pub env: Vec<(OsString, OsString)>,
    /// The process that the command is, for the command itself to know.
    pub process_id: String,
    /// The count of this attempt, from 1.
    pub attempt: u32,
    /// The marker by which guard, command and descendants are found again.
    pub marker: Marker,
    /// The binary that can be the guard.
    pub guard_program: PathBuf,
}

impl CommandSpec {
    /// The first attempt at `program` with `args`, in the host's directory and environment, guarded by the running
    /// binary itself.
    pub fn new<A>(program: impl AsRef<OsStr>, args: A, process_id: impl Into<String>, marker: Marker) -> Self
    where
        A: IntoIterator<Item: AsRef<OsStr>>,
    {
        Self {
            program: program.as_ref().to_owned(),
            args: args.into_iter().map(|arg| arg.as_ref().to_owned()).collect(),
            directory: None,
            env: Vec::new(),
            process_id: process_id.into(),
            attempt: 1,
            marker,
            // The link leads to the running binary even when its file has been replaced or removed meanwhile.
            guard_program: PathBuf::from("/proc/self/exe"),
        }
    }
}

//! A shell command under a guard, so that it never outlives the host unnoticed.
//!
//! The guard is this same binary, re-executed as the leader of a new process group in which the command runs as well.
//! Its stdin is one end of a socket pair. That socket is the *lifeline*: when the host dies, however it dies, the
//! kernel closes the other end, and the guard kills the whole group. It is the *status channel* as well: the guard
//! says on it how the command starts and ends.
//!
//! The order of things: [`Guard::launch`] starts a guard that waits; its identity can now be made durable.
//! [`Guard::start`] hands it the [`CommandSpec`]'s environment and has it start the command. [`GuardedCommand::wait_end`]
//! tells how the command ended. [`GuardedCommand::finish`] lets the guard go.
//!
//! This module owns the two ends and the protocol between them. It does not read the command's output, does not decide
//! on cancelling, and does not find processes that left the group; `output`, `cancel` and `orphan` do.

mod command_spec;
mod guarded_command;
mod message;
mod warden;

pub use command_spec::{ATTEMPT_VARIABLE, CommandSpec, PROCESS_ID_VARIABLE};
pub use guarded_command::{CommandProcess, Guard, GuardError, GuardedCommand, OutputPipes, Remainder, SpawnError};
pub use message::{CommandEnd, SpawnFailure, SpawnStage};
pub use warden::keep_watch;

/// The hidden subcommand under which the binary is its own guard.
pub const GUARD_SUBCOMMAND: &str = "__guard";

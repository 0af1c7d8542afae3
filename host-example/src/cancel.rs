//! Cancelling a command: ask, wait, kill.
//!
//! It owns the order of these and the time between. It does not know who wants the command cancelled.

use std::time::Duration;

use tokio::time::timeout;

use crate::guard::{CommandEnd, GuardError, GuardedCommand};

/// How long a command may take to end when asked to, unless stated otherwise.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(10);

/// How a cancelled command came to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cancelled {
    /// It ended within the grace.
    InTime(CommandEnd),
    /// It did not, and the group was killed.
    Killed(CommandEnd),
}

impl Cancelled {
    /// How the command ended.
    #[must_use]
    pub fn end(self) -> CommandEnd {
        match self {
            Self::InTime(end) | Self::Killed(end) => end,
        }
    }
}

/// Asks the whole group to end, waits up to `grace` for the end of the command, and then kills the group. What the
/// command leaves behind in time is decided on by [`GuardedCommand::finish`], as ever.
///
/// To drop the future leaves the command as it is, asked or not.
///
/// # Errors
///
/// As [`GuardedCommand::wait_end`] and the signals.
pub async fn cancel(command: &mut GuardedCommand, grace: Duration) -> Result<Cancelled, GuardError> {
    command.terminate()?;
    if let Ok(end) = timeout(grace, command.wait_end()).await {
        return Ok(Cancelled::InTime(end?));
    }
    command.kill()?;
    Ok(Cancelled::Killed(command.wait_end().await?))
}

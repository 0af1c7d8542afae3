//! How many files a host may have open at the same time: a connection is one, and the usual limit is less than its connections.
//!
//! It owns the limit that a host was started with, which its commands get back: who waits by `select` cannot use a descriptor
//! beyond the usual limit.

use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What a host has open beside its connections: the store, and the pipes of commands.
const OTHER_FILES: u64 = 512;

/// The soft limit that this process was started with, once it was raised.
static STARTED_WITH: OnceLock<u64> = OnceLock::new();

/// Allows so many connections, as far as whoever started us lets us.
pub fn allow(connections: usize) {
    let needed = connections as u64 + OTHER_FILES;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let Some(current) = current.filter(|current| *current < needed) else { return };
    let allowed = maximum.map_or(needed, |maximum| maximum.min(needed));
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(allowed), maximum }) {
        tracing::warn!(%error, current, needed, "the limit of open files could not be raised");
        return;
    }
    // The first one counts: a later one raises what was raised.
    STARTED_WITH.get_or_init(|| current);
    if allowed < needed {
        tracing::warn!(allowed, needed, "the limit of open files is less than all connections may take");
    }
}

/// The soft limit that this process was started with, if it has another one now.
pub(crate) fn started_with() -> Option<u64> {
    STARTED_WITH.get().copied()
}

/// Takes the soft limit down to what a host was started with.
///
/// # Errors
/// When the system does not let it.
pub(crate) fn restore(started_with: u64) -> std::io::Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: Some(started_with), maximum })?)
}

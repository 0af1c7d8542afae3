//! How many files this host may have open at the same time: a connection is one, and the usual limit is less than its connections.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What a host has open beside its connections: the store, and the pipes of commands.
const OTHER_FILES: u64 = 512;

/// Allows so many connections, as far as whoever started us lets us.
pub(crate) fn allow(connections: usize) {
    let needed = connections as u64 + OTHER_FILES;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= needed) {
        return;
    }
    let allowed = maximum.map_or(needed, |maximum| maximum.min(needed));
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(allowed), maximum }) {
        tracing::warn!(%error, ?current, needed, "the limit of open files could not be raised");
    } else if allowed < needed {
        tracing::warn!(allowed, needed, "the limit of open files is less than all connections may take");
    }
}

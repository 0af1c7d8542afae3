//! What tells one process from every other, later ones with the same pid included.
//!
//! A pid is reused; a pid with its start time, within one boot and one pid namespace, is not. This module owns what
//! is compared; it does not know why somebody asks.

use std::{fs, os::unix::fs::MetadataExt};

use registry_actor::actor::ProcessStat;
use serde::{Deserialize, Serialize};

/// The identity of one process, comparable across restarts of the host and of the machine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ProcessIdentity {
    /// The process id as this host's pid namespace numbers it.
    pub pid: u32,
    /// The time of the start in clock ticks since the boot.
    pub start_ticks: u64,
    /// The boot in which pid and ticks have a meaning.
    pub boot_id: String,
    /// The inode of the pid namespace in which the pid has a meaning.
    pub pid_namespace: u64,
}

/// The identity of the process that has this pid now, a zombie included; `None` when there is none.
#[must_use]
pub fn process_identity(pid: u32) -> Option<ProcessIdentity> {
    Some(ProcessIdentity {
        pid,
        start_ticks: ProcessStat::of(pid).ok()??.start_ticks,
        boot_id: boot_id()?,
        pid_namespace: fs::metadata("/proc/self/ns/pid").ok()?.ino(),
    })
}

/// The id of the current boot.
#[must_use]
pub fn boot_id() -> Option<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use std::process;

    use super::*;

    #[test]
    fn this_process_has_the_same_identity_twice_and_pid_zero_has_none() {
        let own = process_identity(process::id()).expect("this process exists");
        assert_eq!(Some(&own), process_identity(process::id()).as_ref());
        assert!(own.start_ticks > 0 && own.boot_id.len() == 36 && own.pid_namespace > 0);
        assert_eq!(process_identity(0), None);
    }
}

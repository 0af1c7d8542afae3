//! What tells one process from every other, later ones with the same pid included.
//!
//! A pid is reused; a pid with its start time, within one boot and one pid namespace, is not. This module owns reading
//! and parsing that from `/proc`; it does not know why somebody asks.

use std::{fs, os::unix::fs::MetadataExt};

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
        start_ticks: ProcessStat::read(pid)?.start_ticks,
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

/// The fields of `/proc/PID/stat` that matter here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ProcessStat {
    pub(crate) state: u8,
    pub(crate) group: u32,
    pub(crate) threads: u32,
    pub(crate) start_ticks: u64,
}

impl ProcessStat {
    /// What the kernel says of `pid`; `None` when no process has it.
    pub(crate) fn read(pid: u32) -> Option<Self> {
        // The name of the program within may hold any bytes, hence no string.
        Self::parse(&fs::read(format!("/proc/{pid}/stat")).ok()?)
    }

    /// Parses the one line. The name of the program is in parentheses and may itself hold blanks and parentheses, so
    /// that only what follows the last closing one can be counted.
    fn parse(line: &[u8]) -> Option<Self> {
        let name_end = line.windows(2).rposition(|pair| pair == b") ")?;
        let fields = str::from_utf8(line.get(name_end + 2..)?).ok()?;
        let mut fields = fields.split_ascii_whitespace();
        let state = *fields.next()?.as_bytes().first()?;
        let group = fields.nth(1)?.parse().ok()?;
        let threads = fields.nth(14)?.parse().ok()?;
        let start_ticks = fields.nth(1)?.parse().ok()?;
        Some(Self { state, group, threads, start_ticks })
    }

    /// Whether the process has ended and merely waits to be reaped. A process whose first thread has ended shows the
    /// same state while its other threads still run.
    pub(crate) fn is_dead(&self) -> bool {
        matches!(self.state, b'X' | b'x') || (self.state == b'Z' && self.threads <= 1)
    }
}

#[cfg(test)]
mod tests {
    use std::process;

    use super::*;

    const TAIL: &str = "S 10 4242 6017 0 -1 4194304 101 0 0 0 0 0 0 0 20 0 3 0 161216 3133440 384";

    #[test]
    fn the_stat_line_is_read_by_the_place_of_its_fields() {
        let stat = ProcessStat::parse(format!("77 (cat) {TAIL}\n").as_bytes());
        assert_eq!(stat, Some(ProcessStat { state: b'S', group: 4242, threads: 3, start_ticks: 161_216 }));
    }

    #[test]
    fn a_program_named_like_the_fields_does_not_shift_them() {
        let plain = ProcessStat::parse(format!("77 (cat) {TAIL}\n").as_bytes());
        for name in ["a b", ") R 1 2 3", "((", "x) Z 9 9 9 9 ("] {
            assert_eq!(ProcessStat::parse(format!("77 ({name}) {TAIL}\n").as_bytes()), plain, "{name}");
        }
        let mut raw = b"77 (\xff\xfe) ".to_vec();
        raw.extend_from_slice(TAIL.as_bytes());
        assert_eq!(ProcessStat::parse(&raw), plain);
    }

    #[test]
    fn a_torn_line_is_no_stat() {
        for line in ["", "77 (cat", "77 (cat) ", "77 (cat) S 10", "77 (cat) S x y z"] {
            assert_eq!(ProcessStat::parse(line.as_bytes()), None, "{line:?}");
        }
    }

    #[test]
    fn a_zombie_is_dead_unless_other_threads_of_it_run() {
        let stat = |state, threads| ProcessStat { state, group: 1, threads, start_ticks: 1 };
        assert!(stat(b'Z', 1).is_dead());
        assert!(!stat(b'Z', 2).is_dead());
        assert!(!stat(b'D', 1).is_dead());
        assert!(!stat(b'T', 1).is_dead());
    }

    #[test]
    fn this_process_has_the_same_identity_twice_and_pid_zero_has_none() {
        let own = process_identity(process::id()).expect("this process exists");
        assert_eq!(Some(&own), process_identity(process::id()).as_ref());
        assert!(own.start_ticks > 0 && own.boot_id.len() == 36 && own.pid_namespace > 0);
        assert_eq!(process_identity(0), None);
    }
}

//! What the kernel tells of a process in one line: `/proc/PID/stat`.
//!
//! It owns reading and parsing that line. It does not know why somebody asks.

use std::fs;
use std::io::{self, ErrorKind};

/// The fields of `/proc/PID/stat` by which a process is told from others, and a dead one from one that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessStat {
    /// The letter of its state.
    pub state: u8,
    /// Its process group.
    pub group: u32,
    /// How many threads it has.
    pub threads: u32,
    /// When it started, in clock ticks since the boot.
    pub start_ticks: u64,
}

impl ProcessStat {
    /// What the kernel says of the process that has this pid now, one that waits to be reaped included; `None` when no
    /// process has it.
    ///
    /// # Errors
    /// When the kernel says nothing that could be read, which proves nothing.
    pub fn of(pid: u32) -> io::Result<Option<Self>> {
        match fs::read(format!("/proc/{pid}/stat")) {
            // The name of the program within may hold any bytes, hence no string.
            Ok(line) => Self::parse(&line).map(Some).ok_or_else(|| io::Error::from(ErrorKind::InvalidData)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Parses the line. The name of the program is in parentheses and may itself hold blanks and parentheses, so that only
    /// what follows the last closing one can be counted.
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

    /// Whether the process has ended and merely waits to be reaped. A process whose first thread has ended shows the same
    /// state while its other threads still run.
    #[must_use]
    pub const fn is_dead(&self) -> bool {
        matches!(self.state, b'X' | b'x') || (self.state == b'Z' && self.threads <= 1)
    }
}

#[cfg(test)]
mod tests {
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
    fn this_process_is_there_and_no_process_has_the_pid_zero() {
        let own = ProcessStat::of(std::process::id()).expect("it can be read").expect("this process exists");
        assert!(own.start_ticks > 0 && !own.is_dead());
        assert_eq!(ProcessStat::of(0).expect("that nobody has it can be read"), None);
    }
}

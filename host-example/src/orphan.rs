//! Recovery: to find and kill what an attempt left running when its guard, its host or both died.
//!
//! It owns the search through `/proc` and the proof that what it kills is what was searched for: a process counts by
//! the attempt's marker in its environment, or by being in the attempt's process group, as long as that group is still
//! provably the recorded one. It does not know what the registry makes of the report.
//!
//! A process may fork between being seen and being killed, so the search ends only when it finds nothing twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::fd::OwnedFd,
    process,
    time::{Duration, Instant},
};

use registry_actor::actor::ProcessStat;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    marker::Marker,
    process_identity::{ProcessIdentity, boot_id, process_identity},
};

/// How long a search may take unless stated otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// The scans in a row that must find nothing.
const QUIET_SCANS: u32 = 2;

/// The processes that are waited for at a time.
const BATCH: usize = 256;

/// The bytes of a command line that go into a report.
const COMMAND_LIMIT_BYTES: usize = 4096;

/// What to search for.
#[derive(Clone, Debug)]
pub struct OrphanSearch {
    marker: Marker,
    group: Option<RecordedGroup>,
    timeout: Duration,
}

/// The process group of the attempt as it was recorded, in this boot.
#[derive(Clone, Copy, Debug)]
struct RecordedGroup {
    pgid: u32,
    leader_start_ticks: u64,
}

/// What a search has found and killed, as evidence.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct OrphanReport {
    /// The processes that were killed, by pid.
    pub killed: Vec<KilledProcess>,
    /// The count of processes that were found, those included that ended before they were killed.
    pub found: usize,
}

/// One process that was killed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KilledProcess {
    /// Its pid.
    pub pid: u32,
    /// Its start time in clock ticks since the boot.
    pub start_ticks: u64,
    /// Its command line, separated by blanks, or its mere name where it has none.
    pub command: String,
}

/// Why orphans may still run.
#[derive(Debug, Error)]
pub enum OrphanError {
    /// They were found, but could not be killed or did not end in time.
    #[error("processes {pids:?} could not be ended within {timeout_ms} ms")]
    Survivors {
        /// Those that were last seen.
        pids: Vec<u32>,
        /// The time that the search was given.
        timeout_ms: u128,
        /// What was achieved nevertheless.
        report: OrphanReport,
    },
    /// The system does not let us search.
    #[error("cannot search for orphans: {0}")]
    Io(#[from] io::Error),
}

/// One process among those that live, told from others by more than its pid.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Candidate {
    pid: u32,
    start_ticks: u64,
}

/// What happened to a candidate.
enum Fate {
    /// It was told to die; the descriptor tells when it has.
    Signalled(OwnedFd),
    /// It is not there any more, or was not what it seemed.
    Gone,
    /// The system refused.
    Refused,
}

impl OrphanSearch {
    /// A search by the marker alone.
    #[must_use]
    pub fn new(marker: Marker) -> Self {
        Self { marker, group: None, timeout: DEFAULT_TIMEOUT }
    }

    /// Searches the process group of which `leader` was recorded as the leader too. A leader of another boot or pid
    /// namespace proves nothing in this one, and its group is not searched.
    #[must_use]
    pub fn with_group_of(self, leader: &ProcessIdentity) -> Self {
        let here = process_identity(process::id());
        let comparable =
            here.is_some_and(|own| own.boot_id == leader.boot_id && own.pid_namespace == leader.pid_namespace);
        self.with_group(
            comparable.then_some(RecordedGroup { pgid: leader.pid, leader_start_ticks: leader.start_ticks }),
        )
    }

    /// Searches a process group too that was recorded without its pid namespace.
    #[must_use]
    pub fn with_recorded_group(self, pgid: u32, leader_start_ticks: u64, recorded_boot_id: &str) -> Self {
        let comparable = boot_id().is_some_and(|current| current == recorded_boot_id);
        self.with_group(comparable.then_some(RecordedGroup { pgid, leader_start_ticks }))
    }

    fn with_group(self, group: Option<RecordedGroup>) -> Self {
        // Group 0 is that of the kernel's own threads, and 1 that of the init process.
        Self { group: group.filter(|group| group.pgid > 1), ..self }
    }

    /// Changes the time that the search may take.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Searches and kills until nothing is left. Blocks.
    ///
    /// # Errors
    ///
    /// [`OrphanError::Survivors`] when something is left after the timeout.
    pub fn kill_all(&self) -> Result<OrphanReport, OrphanError> {
        let deadline = Instant::now() + self.timeout;
        let mut found = BTreeSet::new();
        let mut killed = BTreeMap::new();
        let mut quiet_scans = 0;
        while quiet_scans < QUIET_SCANS {
            let candidates = self.scan()?;
            quiet_scans = if candidates.is_empty() { quiet_scans + 1 } else { 0 };
            found.extend(candidates.iter().copied());
            let refused = self.kill_each(&candidates, deadline, &mut killed)?;
            // When the system refuses them all, another scan would change nothing.
            let hopeless = !candidates.is_empty() && refused == candidates.len();
            if hopeless || (!candidates.is_empty() && Instant::now() >= deadline) {
                let survivors = self.scan()?;
                if !survivors.is_empty() {
                    return Err(OrphanError::Survivors {
                        pids: survivors.iter().map(|candidate| candidate.pid).collect(),
                        timeout_ms: self.timeout.as_millis(),
                        report: report(&found, killed),
                    });
                }
            }
        }
        Ok(report(&found, killed))
    }

    /// Kills the candidates and waits for their deaths, some at a time lest there be more of them than a process may
    /// have descriptors. Tells how many the system refused to kill.
    fn kill_each(
        &self,
        candidates: &BTreeSet<Candidate>,
        deadline: Instant,
        killed: &mut BTreeMap<Candidate, String>,
    ) -> io::Result<usize> {
        let candidates: Vec<_> = candidates.iter().copied().collect();
        let mut refused = 0;
        for batch in candidates.chunks(BATCH) {
            let mut dying = Vec::new();
            for &candidate in batch {
                let command = command_line(candidate.pid);
                match self.kill(candidate)? {
                    Fate::Signalled(pidfd) => {
                        killed.entry(candidate).or_insert(command);
                        dying.push(pidfd);
                    }
                    Fate::Gone => {}
                    Fate::Refused => refused += 1,
                }
            }
            wait_for_deaths(&dying, deadline)?;
        }
        Ok(refused)
    }

    /// Every living process, except for this one, that is the attempt's.
    fn scan(&self) -> io::Result<BTreeSet<Candidate>> {
        let mut living = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            // A process that ends meanwhile is none of those searched for.
            let Ok(Some(stat)) = ProcessStat::of(pid) else { continue };
            living.push(Seen { pid, stat, marked: self.is_marked(pid) });
        }
        let own_pid = process::id();
        let group = self.group.filter(|group| group.is_proven_by(&living));
        Ok(living
            .iter()
            .filter(|seen| seen.pid != own_pid && !seen.stat.is_dead())
            .filter(|seen| seen.marked || group.is_some_and(|group| seen.stat.group == group.pgid))
            .map(|seen| Candidate { pid: seen.pid, start_ticks: seen.stat.start_ticks })
            .collect())
    }

    /// Kills the process that the candidate was, and none that has got its pid since.
    fn kill(&self, candidate: Candidate) -> io::Result<Fate> {
        let Some(pid) = i32::try_from(candidate.pid).ok().and_then(Pid::from_raw) else { return Ok(Fate::Gone) };
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(Errno::SRCH) => return Ok(Fate::Gone),
            Err(errno) => return Err(errno.into()),
        };
        // The descriptor stands for one process for ever. That this is the one that was seen is known only by looking
        // again now: the pid may have passed to another between the scan and the opening. Should it pass on after
        // this look, the descriptor still stands for the old process and the signal goes nowhere.
        if !self.scan_one(candidate) {
            return Ok(Fate::Gone);
        }
        match pidfd_send_signal(&pidfd, Signal::KILL) {
            Ok(()) => Ok(Fate::Signalled(pidfd)),
            Err(Errno::SRCH) => Ok(Fate::Gone),
            // What may not be killed shows again in the next scan, and in the end as a survivor.
            Err(Errno::PERM) => Ok(Fate::Refused),
            Err(errno) => Err(errno.into()),
        }
    }

    fn scan_one(&self, candidate: Candidate) -> bool {
        ProcessStat::of(candidate.pid).ok().flatten().is_some_and(|stat| {
            let belongs = self.is_marked(candidate.pid) || self.group.is_some_and(|group| stat.group == group.pgid);
            !stat.is_dead() && stat.start_ticks == candidate.start_ticks && belongs
        })
    }

    /// Whether the process carries the marker. An environment that we may not read belongs to another user.
    fn is_marked(&self, pid: u32) -> bool {
        fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environ| self.marker.is_in(&environ))
    }
}

/// One process at the time of a scan, zombies included: a group may be proven by a leader that waits to be reaped.
struct Seen {
    pid: u32,
    stat: ProcessStat,
    marked: bool,
}

impl RecordedGroup {
    /// Whether the group of this number is still the recorded one. The kernel gives no new process the number of a
    /// group that has members; so one proven member, be it the leader or a marked process, proves it for all.
    fn is_proven_by(&self, living: &[Seen]) -> bool {
        living.iter().any(|seen| {
            let is_leader = seen.pid == self.pgid && seen.stat.start_ticks == self.leader_start_ticks;
            seen.stat.group == self.pgid && (is_leader || seen.marked)
        })
    }
}

fn report(found: &BTreeSet<Candidate>, killed: BTreeMap<Candidate, String>) -> OrphanReport {
    OrphanReport {
        killed: killed
            .into_iter()
            .map(|(Candidate { pid, start_ticks }, command)| KilledProcess { pid, start_ticks, command })
            .collect(),
        found: found.len(),
    }
}

/// Waits until every process is dead, reaped or not, or the deadline has passed.
fn wait_for_deaths(pidfds: &[OwnedFd], deadline: Instant) -> io::Result<()> {
    let mut dying: Vec<PollFd<'_>> = pidfds.iter().map(|pidfd| PollFd::new(pidfd, PollFlags::IN)).collect();
    while !dying.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        match poll(&mut dying, Some(&Timespec::try_from(left).map_err(io::Error::other)?)) {
            Ok(_) => dying.retain(|pidfd| pidfd.revents().is_empty()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

fn command_line(pid: u32) -> String {
    let mut bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    bytes.truncate(COMMAND_LIMIT_BYTES);
    if bytes.is_empty() {
        bytes = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    }
    let text = String::from_utf8_lossy(&bytes);
    text.trim_end_matches(['\0', '\n']).replace('\0', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: RecordedGroup = RecordedGroup { pgid: 70, leader_start_ticks: 1000 };

    fn seen(pid: u32, group: u32, start_ticks: u64) -> Seen {
        Seen { pid, stat: ProcessStat { state: b'S', group, threads: 1, start_ticks }, marked: false }
    }

    fn marked(pid: u32, group: u32) -> Seen {
        Seen { marked: true, ..seen(pid, group, 5000) }
    }

    #[test]
    fn a_group_is_proven_by_its_recorded_leader() {
        assert!(GROUP.is_proven_by(&[seen(70, 70, 1000), seen(71, 70, 1001)]));
    }

    #[test]
    fn a_group_without_its_leader_is_proven_by_a_marked_member() {
        assert!(GROUP.is_proven_by(&[seen(71, 70, 1001), marked(72, 70)]));
    }

    #[test]
    fn a_group_whose_number_was_reused_is_not_proven() {
        assert!(!GROUP.is_proven_by(&[seen(70, 70, 2000), seen(71, 70, 2001)]), "another leader");
        assert!(!GROUP.is_proven_by(&[seen(71, 70, 1001)]), "members alone");
        assert!(!GROUP.is_proven_by(&[seen(70, 69, 1000)]), "the leader of old in another group");
        assert!(!GROUP.is_proven_by(&[seen(71, 70, 1001), marked(72, 99)]), "a marked process elsewhere");
    }

    #[test]
    fn a_group_of_another_boot_or_namespace_is_not_searched() {
        let marker: Marker = "00112233445566778899aabbccddeeff".parse().expect("the marker is well formed");
        let own = process_identity(process::id()).expect("this process exists");
        let search = OrphanSearch::new(marker);
        assert!(search.clone().with_group_of(&own).group.is_some());
        let rebooted = ProcessIdentity { boot_id: "other".to_owned(), ..own.clone() };
        assert!(search.clone().with_group_of(&rebooted).group.is_none());
        let elsewhere = ProcessIdentity { pid_namespace: own.pid_namespace + 1, ..own.clone() };
        assert!(search.clone().with_group_of(&elsewhere).group.is_none());
        assert!(search.clone().with_recorded_group(own.pid, own.start_ticks, "other").group.is_none());
        assert!(search.with_recorded_group(own.pid, own.start_ticks, &own.boot_id).group.is_some());
    }

    #[test]
    fn a_report_is_evidence_in_json() {
        let killed = vec![KilledProcess { pid: 7, start_ticks: 8, command: "sleep 600".to_owned() }];
        let json = serde_json::to_value(OrphanReport { killed, found: 2 }).expect("a report has a JSON form");
        let expected = serde_json::json!({
            "killed": [{"pid": 7, "start_ticks": 8, "command": "sleep 600"}],
            "found": 2,
        });
        assert_eq!(json, expected);
    }
}

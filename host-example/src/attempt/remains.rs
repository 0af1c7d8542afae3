//! What earlier attempts at a process may have left running, as their records tell where to look.
//!
//! It owns reading the records and having each attempt searched for. It does not know what becomes of the process.

use registry_actor::{
    actor::ProcessStat,
    domain::{ProcessEvent, ProcessId, Sequence},
    port::{ProcessRegistry, ProcessRegistryExt, RegistryError},
};
use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;

use host_example::{
    marker::Marker,
    orphan::{OrphanError, OrphanReport, OrphanSearch},
    process_identity::{ProcessIdentity, boot_id, process_identity},
};

use crate::command_process::{ATTEMPT_STARTED, GUARDED};

/// An attempt that somebody made before.
#[derive(Clone, PartialEq, Eq, Debug)]
struct PastAttempt {
    /// Its number as its host counted it. Stores of earlier versions have counts of their own: it names, and identifies
    /// nothing.
    number: u32,
    /// Where its record is.
    sequence: Sequence,
    marker: Marker,
    boot_id: Option<String>,
    /// Who made it.
    host: Option<ProcessIdentity>,
    /// The guard, and thus the process group, if it came so far.
    guard: Option<ProcessIdentity>,
}

/// All attempts that were ever made at a process.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct PastAttempts(Vec<PastAttempt>);

/// What was found of them, and is no more.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Remains(Vec<(u32, OrphanReport)>);

/// Why it is not known that nothing of them is left.
#[derive(Debug, Error)]
pub(crate) enum RemainsError {
    /// The records could not be read.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A record is not what this version writes.
    #[error("event {sequence} is no record of an attempt: {reason}")]
    Record {
        /// Which one.
        sequence: Sequence,
        /// What does not fit.
        reason: String,
    },
    /// Something lives on.
    #[error("attempt {attempt}: {source}")]
    Orphans {
        /// The attempt.
        attempt: u32,
        /// What lives on.
        source: OrphanError,
    },
    /// Whoever made it lives, and is another host. It has another store, of which ours is a copy: what runs is its own.
    #[error("attempt {attempt}: its host, process {pid}, lives, and serves another store: this one is a copy of that")]
    HostLives {
        /// The attempt.
        attempt: u32,
        /// The host.
        pid: u32,
    },
    /// The search itself failed.
    #[error("the search for leftovers failed: {0}")]
    Search(#[from] tokio::task::JoinError),
}

#[derive(Deserialize)]
struct StartedPayload {
    attempt: u32,
    marker: Marker,
    #[serde(default)]
    boot_id: Option<String>,
    #[serde(default)]
    host: Option<ProcessIdentity>,
}

#[derive(Deserialize)]
struct GuardedPayload {
    attempt: u32,
    guard: ProcessIdentity,
}

impl PastAttempts {
    /// Reads the records of all attempts.
    ///
    /// # Errors
    /// [`RemainsError::Registry`] and [`RemainsError::Record`].
    pub(crate) async fn read(registry: &dyn ProcessRegistry, process_id: &ProcessId) -> Result<Self, RemainsError> {
        let mut attempts = Vec::new();
        let mut after = Sequence::REGISTRATION;
        while let Some(event) = registry.first_event_of_type(process_id, ATTEMPT_STARTED, after).await? {
            after = event.sequence;
            let StartedPayload { attempt: number, marker, boot_id, host } = payload_of(&event)?;
            attempts.push(PastAttempt { number, sequence: after, marker, boot_id, host, guard: None });
        }
        let mut after = Sequence::REGISTRATION;
        while let Some(event) = registry.first_event_of_type(process_id, GUARDED, after).await? {
            after = event.sequence;
            let GuardedPayload { attempt: number, guard } = payload_of(&event)?;
            let Some(attempt) = latest_before(&mut attempts, number, after) else { continue };
            attempt.guard = Some(guard);
        }
        Ok(Self(attempts))
    }

    /// Ends whatever of them still runs, and tells what it was. Returns with success only when nothing is left.
    ///
    /// # Errors
    /// [`RemainsError::Orphans`] when something is, or may be.
    pub(crate) async fn end_all(self) -> Result<Remains, RemainsError> {
        let searched = tokio::task::spawn_blocking(move || {
            let current_boot = boot_id();
            for attempt in &self.0 {
                if let Some(pid) = attempt.host_elsewhere() {
                    return Err(RemainsError::HostLives { attempt: attempt.number, pid });
                }
            }
            let mut remains = Vec::new();
            for attempt in self.0 {
                let number = attempt.number;
                let report = if attempt.is_of_another_boot(current_boot.as_deref()) {
                    // No process survives the end of its boot.
                    OrphanReport::default()
                } else {
                    attempt.search().kill_all().map_err(|source| RemainsError::Orphans { attempt: number, source })?
                };
                remains.push((number, report));
            }
            Ok(Remains(remains))
        });
        searched.await?
    }
}

/// The attempt whose guard is told of there: the latest of that number.
fn latest_before(attempts: &mut [PastAttempt], number: u32, sequence: Sequence) -> Option<&mut PastAttempt> {
    attempts.iter_mut().rfind(|attempt| attempt.number == number && attempt.sequence < sequence)
}

impl PastAttempt {
    fn is_of_another_boot(&self, current: Option<&str>) -> bool {
        matches!((self.boot_id.as_deref(), current), (Some(then), Some(now)) if then != now)
    }

    /// The host that made it, if it lives and is not this one. One store has one host: it has another.
    fn host_elsewhere(&self) -> Option<u32> {
        let host = self.host.as_ref().filter(|host| host.pid != std::process::id())?;
        let lives = ProcessStat::of(host.pid).ok().flatten().is_some_and(|stat| !stat.is_dead());
        (lives && process_identity(host.pid).as_ref() == Some(host)).then_some(host.pid)
    }

    fn search(&self) -> OrphanSearch {
        let search = OrphanSearch::new(self.marker.clone());
        match &self.guard {
            Some(guard) => search.with_group_of(guard),
            None => search,
        }
    }
}

impl Remains {
    /// The report as evidence.
    pub(crate) fn to_evidence(&self) -> Value {
        let attempts: Vec<_> = self
            .0
            .iter()
            .map(|(attempt, report)| json!({"attempt": attempt, "found": report.found, "killed": report.killed}))
            .collect();
        json!({"nothing_left_alive": true, "attempts": attempts})
    }
}

fn payload_of<'event, T: Deserialize<'event>>(event: &'event ProcessEvent) -> Result<T, RemainsError> {
    T::deserialize(&event.payload)
        .map_err(|error| RemainsError::Record { sequence: event.sequence, reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(number: u32, boot_id: Option<&str>) -> PastAttempt {
        let marker = Marker::random().expect("random numbers");
        let sequence = Sequence(u64::from(number));
        PastAttempt { number, sequence, marker, boot_id: boot_id.map(str::to_owned), host: None, guard: None }
    }

    /// A store whose attempts an earlier version had counted by itself: the registry's own count began at 1 again.
    #[test]
    fn a_guard_belongs_to_the_latest_attempt_of_its_number() {
        let mut attempts = [attempt(1, None), attempt(2, None), attempt(1, None)];
        for (place, attempt) in (1..).zip(&mut attempts) {
            attempt.sequence = Sequence(10 * place);
        }
        let found = |attempts: &mut [PastAttempt], number, sequence| {
            latest_before(attempts, number, Sequence(sequence)).map(|attempt| attempt.sequence.0)
        };
        assert_eq!(found(&mut attempts, 1, 15), Some(10));
        assert_eq!(found(&mut attempts, 1, 35), Some(30));
        assert_eq!(found(&mut attempts, 2, 35), Some(20));
        assert_eq!(found(&mut attempts, 2, 15), None);
    }

    #[test]
    fn only_a_boot_that_is_known_to_be_another_needs_no_search() {
        assert!(attempt(1, Some("a")).is_of_another_boot(Some("b")));
        assert!(!attempt(1, Some("a")).is_of_another_boot(Some("a")));
        assert!(!attempt(1, Some("a")).is_of_another_boot(None));
        assert!(!attempt(1, None).is_of_another_boot(Some("b")));
    }

    /// A restored copy of a store took the commands of the original's host, which lived, for leftovers and killed them.
    #[tokio::test]
    async fn what_another_living_host_runs_is_none_of_the_leftovers() {
        let mut other = std::process::Command::new("sleep").arg("600").spawn().expect("a process");
        let of_host = |pid: u32| PastAttempt { host: process_identity(pid), ..attempt(1, None) };
        let of_other = of_host(other.id());
        let refused = PastAttempts(vec![of_other.clone()]).end_all().await.expect_err("it lives");
        assert!(matches!(refused, RemainsError::HostLives { attempt: 1, pid } if pid == other.id()), "{refused}");
        PastAttempts(vec![of_host(std::process::id())]).end_all().await.expect("what we have left ourselves");
        other.kill().expect("killed");
        // Not reaped yet, and yet it is no host any more.
        while of_other.host_elsewhere().is_some() {
            tokio::task::yield_now().await;
        }
        PastAttempts(vec![of_other]).end_all().await.expect("its host is dead");
        other.wait().expect("reaped");
    }

    #[test]
    fn the_evidence_names_each_attempt() {
        let remains = Remains(vec![(1, OrphanReport::default())]);
        let expected = json!({"nothing_left_alive": true, "attempts": [{"attempt": 1, "found": 0, "killed": []}]});
        assert_eq!(remains.to_evidence(), expected);
    }
}

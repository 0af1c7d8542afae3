//! What earlier attempts at a process may have left running, as their records tell where to look.
//!
//! It owns reading the records and having each attempt searched for. It does not know what becomes of the process.

use registry_actor::{
    domain::{ProcessEvent, ProcessId, Sequence},
    port::{ProcessRegistry, ProcessRegistryExt, RegistryError},
};
use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;

use host_example::{
    marker::Marker,
    orphan::{OrphanError, OrphanReport, OrphanSearch},
    process_identity::{ProcessIdentity, boot_id},
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
            let StartedPayload { attempt: number, marker, boot_id } = payload_of(&event)?;
            attempts.push(PastAttempt { number, sequence: after, marker, boot_id, guard: None });
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
        PastAttempt { number, sequence, marker, boot_id: boot_id.map(str::to_owned), guard: None }
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

    #[test]
    fn the_evidence_names_each_attempt() {
        let remains = Remains(vec![(1, OrphanReport::default())]);
        let expected = json!({"nothing_left_alive": true, "attempts": [{"attempt": 1, "found": 0, "killed": []}]});
        assert_eq!(remains.to_evidence(), expected);
    }
}

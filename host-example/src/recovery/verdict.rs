//! What is to become of a process that an earlier host left unfinished: one pure function.
//!
//! It judges the record as it was found under the claimed lease, and what is known of those who held the lease or began
//! the execution before. It does not know how the lease was claimed, nor how a death is proved.
//!
//! | disposition | started | earlier holder, or who started it | verdict |
//! |---|---|---|---|
//! | rerunnable | any | any | run |
//! | owner-bound | no | any | run |
//! | owner-bound | yes | the displaced holder is dead | abandon; the owner is that holder |
//! | owner-bound | yes | who started it is dead | abandon; the owner is who started it |
//! | owner-bound | yes | nobody is proved dead | leave |
//! | externally owned | any | any | leave |
//!
//! Time that has passed never yields an abandonment: only a proof does.

use registry_actor::domain::{
    AbandonEvidence, AbandonWriter, LeaseOwnerIdentity, LeaseOwnerLiveness, ObservedProcess, ProcessRecord,
    RecoveryDisposition, StoreSession,
};

/// What is known of an earlier owner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Death {
    /// It is dead beyond doubt.
    Proved,
    /// It may live, for all we know.
    Unproved,
}

impl Death {
    /// What the store's session, and what is seen under the owner's pid, prove of it.
    pub(crate) fn of(
        owner: &LeaseOwnerIdentity,
        claimant: &LeaseOwnerLiveness,
        session: &StoreSession,
        observed: &ObservedProcess,
    ) -> Self {
        if owner.liveness.is_definitely_dead_for(claimant, session, observed) { Self::Proved } else { Self::Unproved }
    }
}

/// What is known of those who had the process before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Predecessors {
    /// Whom our claim displaced, if the lease was not free.
    pub(crate) displaced: Option<(LeaseOwnerIdentity, Death)>,
    /// What is known of who began the execution, as the record names it.
    pub(crate) starter: Death,
}

/// What is to become of the process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// It is run, again or for the first time.
    Run,
    /// It ends here. What was found of its remains is added to the evidence by who looked for them.
    Abandon {
        /// Why.
        evidence: AbandonEvidence,
    },
    /// It is none of our business, or nothing can be said of it.
    Leave {
        /// Why, for people.
        reason: &'static str,
    },
}

/// The verdict on a process that has not ended and whose lease we hold.
pub(crate) fn verdict(record: &ProcessRecord, predecessors: &Predecessors, now_epoch_ms: u64) -> Verdict {
    match record.registration.disposition {
        RecoveryDisposition::ExternallyOwned => Verdict::Leave { reason: "it is owned elsewhere" },
        RecoveryDisposition::Rerunnable => Verdict::Run,
        RecoveryDisposition::OwnerBound => match &record.first_started {
            None => Verdict::Run,
            Some(started) => match (&predecessors.displaced, predecessors.starter) {
                (Some((holder, Death::Proved)), _) => abandon(holder, now_epoch_ms),
                // A holder that may live is heard before somebody who began long ago.
                (Some((_, Death::Unproved)), _) | (None, Death::Unproved) => {
                    Verdict::Leave { reason: "it was started, and its owner is not proved to be dead" }
                }
                // The lease was given up and the outcome never came, as when an earlier recovery could not end what
                // was left of the command.
                (None, Death::Proved) => abandon(&started.owner, now_epoch_ms),
            },
        },
    }
}

fn abandon(owner: &LeaseOwnerIdentity, now_epoch_ms: u64) -> Verdict {
    Verdict::Abandon {
        evidence: AbandonEvidence {
            writer: AbandonWriter::Sweep,
            owner: Some(owner.clone()),
            epoch_ms: now_epoch_ms,
            detail: None,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use registry_actor::domain::{ProcessId, ProcessInput, ProcessRegistration, ProcessStarted, ProcessStatus};

    use super::*;

    const NOW_MS: u64 = 77;

    fn owner(name: &str) -> LeaseOwnerIdentity {
        LeaseOwnerIdentity {
            owner_id: name.to_owned(),
            incarnation_id: "1".to_owned(),
            liveness: LeaseOwnerLiveness::Opaque,
        }
    }

    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    enum Start {
        Never,
        Before,
    }

    fn record(disposition: RecoveryDisposition, start: Start) -> ProcessRecord {
        let id = ProcessId::new("p").expect("an id");
        let input = ProcessInput::new("command", serde_json::json!({}));
        let registration = ProcessRegistration::new(id, input, disposition);
        ProcessRecord {
            registration_hash: serde_json::from_value(serde_json::json!("v1:hash")).expect("a hash"),
            registration: Arc::new(registration),
            generation: 1,
            created_at_ms: 1,
            updated_at_ms: 1,
            terminal_at_ms: None,
            first_started: (start == Start::Before)
                .then(|| Arc::new(ProcessStarted { owner: owner("starter"), started_at_ms: 2 })),
            attempts: registry_actor::domain::ProcessAttempts::default(),
            external_ref: None,
            abandon_request: None,
            wait: None,
            wake_target: None,
            status: Arc::new(ProcessStatus::Running),
        }
    }

    fn judge(
        disposition: RecoveryDisposition,
        start: Start,
        displaced: Option<(LeaseOwnerIdentity, Death)>,
        starter: Death,
    ) -> Verdict {
        verdict(&record(disposition, start), &Predecessors { displaced, starter }, NOW_MS)
    }

    fn every_past() -> impl Iterator<Item = (Option<(LeaseOwnerIdentity, Death)>, Death)> {
        [None, Some(Death::Proved), Some(Death::Unproved)].into_iter().flat_map(|displaced| {
            [Death::Proved, Death::Unproved]
                .map(move |starter| (displaced.map(|death| (owner("holder"), death)), starter))
        })
    }

    fn abandoned_for(name: &str) -> Verdict {
        Verdict::Abandon {
            evidence: AbandonEvidence {
                writer: AbandonWriter::Sweep,
                owner: Some(owner(name)),
                epoch_ms: NOW_MS,
                detail: None,
            },
        }
    }

    #[test]
    fn a_rerunnable_process_runs_whoever_had_it() {
        for (displaced, starter) in every_past() {
            for start in [Start::Never, Start::Before] {
                assert_eq!(judge(RecoveryDisposition::Rerunnable, start, displaced.clone(), starter), Verdict::Run);
            }
        }
    }

    #[test]
    fn an_owner_bound_process_that_was_never_started_runs() {
        for (displaced, starter) in every_past() {
            assert_eq!(judge(RecoveryDisposition::OwnerBound, Start::Never, displaced, starter), Verdict::Run);
        }
    }

    #[test]
    fn a_started_owner_bound_process_of_a_dead_holder_is_abandoned_in_its_name() {
        for starter in [Death::Proved, Death::Unproved] {
            let displaced = Some((owner("holder"), Death::Proved));
            let verdict = judge(RecoveryDisposition::OwnerBound, Start::Before, displaced, starter);
            assert_eq!(verdict, abandoned_for("holder"));
        }
    }

    #[test]
    fn a_started_owner_bound_process_with_a_free_lease_is_abandoned_when_its_starter_is_dead() {
        let verdict = judge(RecoveryDisposition::OwnerBound, Start::Before, None, Death::Proved);
        assert_eq!(verdict, abandoned_for("starter"));
    }

    #[test]
    fn time_alone_abandons_nothing() {
        let lapsed = || Some((owner("holder"), Death::Unproved));
        for (displaced, starter) in [(None, Death::Unproved), (lapsed(), Death::Unproved), (lapsed(), Death::Proved)] {
            let verdict = judge(RecoveryDisposition::OwnerBound, Start::Before, displaced, starter);
            assert!(matches!(verdict, Verdict::Leave { .. }), "{verdict:?}");
        }
    }

    #[test]
    fn what_is_owned_elsewhere_is_left_alone() {
        for (displaced, starter) in every_past() {
            for start in [Start::Never, Start::Before] {
                let verdict = judge(RecoveryDisposition::ExternallyOwned, start, displaced.clone(), starter);
                assert!(matches!(verdict, Verdict::Leave { .. }), "{verdict:?}");
            }
        }
    }
}

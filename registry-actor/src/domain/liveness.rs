//! Proof of a holder's death. Everything but proof counts as alive: a wrong "dead" runs work twice.
//!
//! Looking at the operating system is the edge's work; this module only judges what was seen.

use serde::{Deserialize, Serialize};

use super::StoreSession;

/// What a lease owner lets others know about itself, so that its death can be proved.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum LeaseOwnerLiveness {
    /// It lives inside the host that holds the store: it is dead when that session of the store is over.
    StoreSession {
        /// The session in which it lives.
        session: StoreSession,
    },
    /// It is an operating-system process.
    LocalProcess {
        /// Identity of the machine.
        host_id: String,
        /// Identity of the boot.
        boot_id: String,
        /// The process id.
        pid: u32,
        /// Start time of that process, in clock ticks since boot, as `/proc/PID/stat` shows it.
        process_start: String,
        /// Inode of its PID namespace. Absent means that nothing can be proved (two containers share host and boot).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pid_namespace: Option<u64>,
    },
    /// Nothing is known; only time ends its right.
    #[default]
    Opaque,
}

/// What the claimant saw under the holder's pid.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ObservedProcess {
    /// It was not looked for, or could not be read.
    #[default]
    Unknown,
    /// No process has that pid.
    Absent,
    /// A process has that pid and started at this time, in clock ticks since boot.
    Started(String),
}

impl LeaseOwnerLiveness {
    /// Whether this holder is dead beyond doubt, for a claimant in `current_session` that is `claimant` and saw
    /// `observed` under the holder's pid.
    ///
    /// The exclusive owner lock of a local store proves that the host of every earlier session is dead. For separate
    /// processes machine, boot and PID namespace must agree, and the pid must be gone or reused.
    #[must_use]
    pub fn is_definitely_dead_for(
        &self,
        claimant: &Self,
        current_session: &StoreSession,
        observed: &ObservedProcess,
    ) -> bool {
        match self {
            Self::StoreSession { session } => session.is_earlier_session_of_same_store(current_session),
            Self::LocalProcess { host_id, boot_id, process_start, pid_namespace, .. } => {
                let Self::LocalProcess {
                    host_id: claimant_host,
                    boot_id: claimant_boot,
                    pid_namespace: claimant_namespace,
                    ..
                } = claimant
                else {
                    return false;
                };
                let same_pid_space = host_id == claimant_host
                    && boot_id == claimant_boot
                    && pid_namespace.is_some()
                    && pid_namespace == claimant_namespace;
                same_pid_space
                    && match observed {
                        ObservedProcess::Unknown => false,
                        ObservedProcess::Absent => true,
                        ObservedProcess::Started(start) => start != process_start,
                    }
            }
            Self::Opaque => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(boot_id: &str, pid_namespace: Option<u64>) -> LeaseOwnerLiveness {
        LeaseOwnerLiveness::LocalProcess {
            host_id: "h".into(),
            boot_id: boot_id.into(),
            pid: 7,
            process_start: "100".into(),
            pid_namespace,
        }
    }

    fn session(number: u64) -> StoreSession {
        StoreSession { store_id: "s".into(), number }
    }

    fn dead(holder: &LeaseOwnerLiveness, claimant: &LeaseOwnerLiveness, observed: ObservedProcess) -> bool {
        holder.is_definitely_dead_for(claimant, &session(2), &observed)
    }

    #[test]
    fn an_absent_or_reused_pid_proves_death_only_in_the_same_pid_space() {
        let holder = local("b", Some(1));
        assert!(dead(&holder, &local("b", Some(1)), ObservedProcess::Absent));
        assert!(dead(&holder, &local("b", Some(1)), ObservedProcess::Started("200".into())));
        assert!(!dead(&holder, &local("b", Some(1)), ObservedProcess::Started("100".into())));
        assert!(!dead(&holder, &local("b", Some(1)), ObservedProcess::Unknown));
        assert!(!dead(&holder, &local("other boot", Some(1)), ObservedProcess::Absent));
        assert!(!dead(&holder, &local("b", Some(2)), ObservedProcess::Absent), "another container");
        assert!(!dead(&local("b", None), &local("b", None), ObservedProcess::Absent), "no namespace, no proof");
        assert!(!dead(&holder, &LeaseOwnerLiveness::Opaque, ObservedProcess::Absent));
        assert!(!dead(&LeaseOwnerLiveness::Opaque, &holder, ObservedProcess::Absent));
    }

    #[test]
    fn only_an_earlier_session_of_the_same_store_is_over() {
        let of = |session| LeaseOwnerLiveness::StoreSession { session };
        let opaque = LeaseOwnerLiveness::Opaque;
        assert!(dead(&of(session(1)), &opaque, ObservedProcess::Unknown));
        assert!(!dead(&of(session(2)), &opaque, ObservedProcess::Unknown));
        assert!(!dead(&of(session(3)), &opaque, ObservedProcess::Unknown));
        let foreign = StoreSession { store_id: "t".into(), number: 1 };
        assert!(!dead(&of(foreign), &opaque, ObservedProcess::Absent));
    }
}

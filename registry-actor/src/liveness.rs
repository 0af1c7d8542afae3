//! Looking at operating-system processes, for the proof of a holder's death. What is seen is judged by
//! [`LeaseOwnerLiveness::is_definitely_dead_for`].

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::domain::{LeaseOwnerLiveness, ObservedProcess};
use crate::process_stat::ProcessStat;

/// What stands under the pid of a holder now. Anything but a plain answer of the system is
/// [`ObservedProcess::Unknown`].
#[must_use]
pub fn observe(holder: &LeaseOwnerLiveness) -> ObservedProcess {
    let LeaseOwnerLiveness::LocalProcess { pid, .. } = holder else {
        return ObservedProcess::Unknown;
    };
    match ProcessStat::of(*pid) {
        // What merely waits to be reaped runs nothing any more.
        Ok(Some(stat)) if stat.is_dead() => ObservedProcess::Absent,
        Ok(Some(stat)) => ObservedProcess::Started(stat.start_ticks.to_string()),
        Ok(None) => ObservedProcess::Absent,
        Err(_) => ObservedProcess::Unknown,
    }
}

/// How the death of this very operating-system process can be proved to others; opaque where the system does not tell.
#[must_use]
pub fn own_liveness() -> LeaseOwnerLiveness {
    let read = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let own_pid = std::process::id();
    let (Some(boot_id), Ok(Some(stat))) = (read("/proc/sys/kernel/random/boot_id"), ProcessStat::of(own_pid)) else {
        return LeaseOwnerLiveness::Opaque;
    };
    LeaseOwnerLiveness::LocalProcess {
        host_id: read("/etc/machine-id").unwrap_or_default(),
        boot_id,
        pid: own_pid,
        process_start: stat.start_ticks.to_string(),
        pid_namespace: fs::metadata("/proc/self/ns/pid").ok().map(|namespace| namespace.ino()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_seen_alive_with_its_own_start_time() {
        let own = own_liveness();
        let LeaseOwnerLiveness::LocalProcess { process_start, .. } = &own else {
            panic!("this system shows /proc, got {own:?}");
        };
        assert_eq!(observe(&own), ObservedProcess::Started(process_start.clone()));
        assert_eq!(observe(&LeaseOwnerLiveness::Opaque), ObservedProcess::Unknown);
    }
}

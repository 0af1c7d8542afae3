//! Looking at operating-system processes, for the proof of a holder's death. What is seen is judged by
//! [`LeaseOwnerLiveness::is_definitely_dead_for`].

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::sync::OnceLock;

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use crate::domain::{LeaseOwnerLiveness, ObservedProcess};
use crate::process_stat::ProcessStat;

/// What stands under the pid of a holder now, as far as this process can see it. Anything but a plain answer of the system is
/// [`ObservedProcess::Unknown`], and so is a pid that was given in another PID namespace than that of this process: here the
/// same number is somebody else's, or nobody's.
#[must_use]
pub fn observe(holder: &LeaseOwnerLiveness) -> ObservedProcess {
    let LeaseOwnerLiveness::LocalProcess { host_id, boot_id, pid, pid_namespace, .. } = holder else {
        return ObservedProcess::Unknown;
    };
    let is_seen_here = PidSpace::of_this_process().is_some_and(|own| {
        own.host_id == *host_id
            && own.boot_id == *boot_id
            && own.pid_namespace == *pid_namespace
            && pid_namespace.is_some()
    });
    if !is_seen_here {
        return ObservedProcess::Unknown;
    }
    match ProcessStat::of(*pid) {
        // What merely waits to be reaped runs nothing any more.
        Ok(Some(stat)) if stat.is_dead() => ObservedProcess::Absent,
        Ok(Some(stat)) => ObservedProcess::Started(stat.start_ticks.to_string()),
        // A `/proc` may hide what is there: the kernel knows.
        Ok(None) if has_no_process(*pid) => ObservedProcess::Absent,
        Ok(None) | Err(_) => ObservedProcess::Unknown,
    }
}

fn has_no_process(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| test_kill_process(pid) == Err(Errno::SRCH))
}

/// How the death of this very operating-system process can be proved to others; opaque where the system does not tell.
#[must_use]
pub fn own_liveness() -> LeaseOwnerLiveness {
    let own_pid = std::process::id();
    let (Some(space), Ok(Some(stat))) = (PidSpace::of_this_process(), ProcessStat::of(own_pid)) else {
        return LeaseOwnerLiveness::Opaque;
    };
    LeaseOwnerLiveness::LocalProcess {
        host_id: space.host_id.clone(),
        boot_id: space.boot_id.clone(),
        pid: own_pid,
        process_start: stat.start_ticks.to_string(),
        pid_namespace: space.pid_namespace,
    }
}

/// Within what a pid means one process.
struct PidSpace {
    host_id: String,
    boot_id: String,
    pid_namespace: Option<u64>,
}

impl PidSpace {
    /// That of this process, which has one for as long as it lives. What could not be read is read again at the next call.
    fn of_this_process() -> Option<&'static Self> {
        static OWN: OnceLock<PidSpace> = OnceLock::new();
        if let Some(own) = OWN.get() {
            return Some(own);
        }
        let host_id = match fs::read_to_string("/etc/machine-id") {
            Ok(host_id) => host_id.trim().to_owned(),
            // A container may have none.
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            Err(_) => return None,
        };
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned();
        let pid_namespace = fs::metadata("/proc/self/ns/pid").ok().map(|namespace| namespace.ino());
        Some(OWN.get_or_init(|| Self { host_id, boot_id, pid_namespace }))
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

    /// Two workers in one container share a PID namespace; the host that holds the store, outside of it, looked the pid of one up
    /// among its own processes, found nobody, and gave its lease to the other.
    #[test]
    fn a_pid_of_another_namespace_machine_or_boot_is_not_looked_up_here() {
        let LeaseOwnerLiveness::LocalProcess { host_id, boot_id, process_start, pid_namespace, .. } = own_liveness()
        else {
            panic!("this system shows /proc");
        };
        let nobody = |host_id: &str, boot_id: &str, pid_namespace| LeaseOwnerLiveness::LocalProcess {
            host_id: host_id.to_owned(),
            boot_id: boot_id.to_owned(),
            // Above the largest pid that the kernel gives.
            pid: 1 << 30,
            process_start: process_start.clone(),
            pid_namespace,
        };
        assert_eq!(observe(&nobody(&host_id, &boot_id, pid_namespace)), ObservedProcess::Absent);
        let elsewhere = pid_namespace.map(|inode| inode ^ 1);
        for holder in [
            nobody(&host_id, &boot_id, elsewhere),
            nobody(&host_id, &boot_id, None),
            nobody(&host_id, "another boot", pid_namespace),
            nobody("another machine", &boot_id, pid_namespace),
        ] {
            assert_eq!(observe(&holder), ObservedProcess::Unknown, "{holder:?}");
        }
    }
}

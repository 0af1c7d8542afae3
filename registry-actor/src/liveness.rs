//! Looking at operating-system processes, for the proof of a holder's death. What is seen is judged by
//! [`LeaseOwnerLiveness::is_definitely_dead_for`].

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;

use crate::domain::{LeaseOwnerLiveness, ObservedProcess};

/// What stands under the pid of a holder now. Anything but a plain answer of the system is
/// [`ObservedProcess::Unknown`].
#[must_use]
pub fn observe(holder: &LeaseOwnerLiveness) -> ObservedProcess {
    let LeaseOwnerLiveness::LocalProcess { pid, .. } = holder else {
        return ObservedProcess::Unknown;
    };
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => start_ticks(&stat).map_or(ObservedProcess::Unknown, ObservedProcess::Started),
        Err(error) if error.kind() == ErrorKind::NotFound => ObservedProcess::Absent,
        Err(_) => ObservedProcess::Unknown,
    }
}

/// How the death of this very operating-system process can be proved to others; opaque where the system does not tell.
#[must_use]
pub fn own_liveness() -> LeaseOwnerLiveness {
    let read = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let (Some(boot_id), Some(process_start)) =
        (read("/proc/sys/kernel/random/boot_id"), read("/proc/self/stat").as_deref().and_then(start_ticks))
    else {
        return LeaseOwnerLiveness::Opaque;
    };
    LeaseOwnerLiveness::LocalProcess {
        host_id: read("/etc/machine-id").unwrap_or_default(),
        boot_id,
        pid: std::process::id(),
        process_start,
        pid_namespace: fs::metadata("/proc/self/ns/pid").ok().map(|namespace| namespace.ino()),
    }
}

/// The 22nd field of `/proc/PID/stat`. The second one is the command in parentheses and may hold anything, so counting
/// starts after the last `") "`.
fn start_ticks(stat: &str) -> Option<String> {
    let (_, after_command) = stat.rsplit_once(") ")?;
    let ticks = after_command.split_whitespace().nth(19)?;
    ticks.bytes().all(|byte| byte.is_ascii_digit()).then(|| ticks.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_time_is_found_behind_any_command_name() {
        let fields: Vec<String> = (3..=52).map(|field| field.to_string()).collect();
        let stat = format!("7 (a) b) (c) {}", fields.join(" "));
        assert_eq!(start_ticks(&stat).as_deref(), Some("22"));
        assert_eq!(start_ticks("7 (a) S 1"), None);
        assert_eq!(start_ticks(""), None);
    }

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

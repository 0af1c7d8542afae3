//! The protocol between host and guard: one JSON value per line, each way.
//!
//! It owns the messages and the lines they make; it does not know what carries them.

use std::{ffi::OsString, fmt, io};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// What the host says to the guard.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum HostMessage {
    /// The first message: start the command, whose program and arguments are the guard's own.
    Start(Start),
    /// The last message, of a host that wants what is left in the group to stay: go alone. A host that wants it dead
    /// kills the group, or just closes the lifeline.
    Finish {},
}

/// What of the command must not show in an argv. An `OsString` travels as its bytes, so that nothing is lost.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Start {
    pub(super) directory: Option<OsString>,
    pub(super) env: Vec<(OsString, OsString)>,
    /// The soft limit of open files that the host was started with, if it has raised its own.
    pub(super) open_files: Option<u64>,
}

/// What the guard says to the host.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum GuardMessage {
    /// The command runs.
    Started {
        /// The command's pid.
        pid: u32,
        /// Its start time in clock ticks since the boot.
        start_ticks: u64,
    },
    /// The command could not be run at all.
    SpawnFailed(SpawnFailure),
    /// The command ended by itself.
    Exited {
        /// Its exit code.
        code: i32,
    },
    /// A signal ended the command.
    Signaled {
        /// The number of the signal.
        signal: i32,
    },
}

/// How the command, as opposed to what it started, came to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommandEnd {
    /// It ended by itself.
    Exited {
        /// Its exit code.
        code: i32,
    },
    /// A signal ended it.
    Signaled {
        /// The number of the signal.
        signal: i32,
    },
}

/// Why the kernel would not run the command.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SpawnFailure {
    /// The step that failed.
    pub stage: SpawnStage,
    /// The kernel's error number.
    pub errno: i32,
    /// The same for people.
    pub message: String,
}

/// The steps in which a spawn can fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpawnStage {
    /// Entering the directory to run in.
    Directory,
    /// Executing the program.
    Program,
}

impl SpawnFailure {
    pub(super) fn new(stage: SpawnStage, error: &io::Error) -> Self {
        // An error without a number comes from the standard library, which refuses a NUL within a string.
        let errno = error.raw_os_error().unwrap_or(rustix::io::Errno::INVAL.raw_os_error());
        Self { stage, errno, message: error.to_string() }
    }
}

impl fmt::Display for SpawnFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = match self.stage {
            SpawnStage::Directory => "enter the directory",
            SpawnStage::Program => "execute the program",
        };
        write!(f, "cannot {stage}: {}", self.message)
    }
}

/// The line of one message, its newline included.
pub(super) fn encode(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

/// The message of one line, with or without its newline.
pub(super) fn decode<M: DeserializeOwned>(line: &[u8]) -> io::Result<M> {
    Ok(serde_json::from_slice(line)?)
}

#[cfg(test)]
mod tests {
    use std::{fmt::Debug, os::unix::ffi::OsStringExt};

    use super::*;

    fn assert_line<M: Serialize + DeserializeOwned + PartialEq + Debug>(message: M, line: &str) {
        let encoded = encode(&message).expect("the message has a JSON form");
        assert_eq!(String::from_utf8_lossy(&encoded), format!("{line}\n"));
        assert_eq!(decode::<M>(&encoded).expect("the line is a message"), message);
    }

    #[test]
    fn the_guard_speaks_one_json_line_per_message() {
        assert_line(GuardMessage::Started { pid: 7, start_ticks: 8 }, r#"{"started":{"pid":7,"start_ticks":8}}"#);
        assert_line(GuardMessage::Exited { code: 3 }, r#"{"exited":{"code":3}}"#);
        assert_line(GuardMessage::Signaled { signal: 9 }, r#"{"signaled":{"signal":9}}"#);
        assert_line(HostMessage::Finish {}, r#"{"finish":{}}"#);
    }

    #[test]
    fn a_spawn_failure_tells_the_error_number() {
        let failure = SpawnFailure::new(SpawnStage::Program, &io::Error::from_raw_os_error(2));
        assert_line(
            GuardMessage::SpawnFailed(failure),
            r#"{"spawn_failed":{"stage":"program","errno":2,"message":"No such file or directory (os error 2)"}}"#,
        );
    }

    #[test]
    fn an_environment_that_is_no_text_arrives_as_it_was_and_on_one_line() {
        let value = OsString::from_vec(b"a\nb\xff".to_vec());
        let env = vec![("KEY".into(), value)];
        let start = HostMessage::Start(Start { directory: Some("/".into()), env, open_files: Some(1_024) });
        let line = encode(&start).expect("the message has a JSON form");
        assert_eq!(line.iter().filter(|&&byte| byte == b'\n').count(), 1);
        assert_eq!(decode::<HostMessage>(&line).expect("the line is a message"), start);
    }
}

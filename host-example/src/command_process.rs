//! A command as a process of the registry: what of it is stored, and under which names.
//!
//! It owns the payload of the registration and the names of the event types. It does not know how commands are run,
//! nor when events are appended.

use std::{collections::BTreeMap, env, ffi::OsString};

use registry_actor::domain::{
    ProcessEventType, ProcessId, ProcessIdentity, ProcessInput, ProcessRegistration, RecoveryDisposition,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The kind of input by which a command is told from processes of other hosts in the same store.
pub(crate) const COMMAND_KIND: &str = "command";

/// An attempt is about to be made: its marker is durable before anything of it runs.
pub(crate) const ATTEMPT_STARTED: &str = "command.attempt_started";
/// The guard of an attempt runs, and its command does not yet.
pub(crate) const GUARDED: &str = "command.guarded";
/// A line of output.
pub(crate) const OUTPUT: &str = "command.output";
/// Output past the limit was dropped.
pub(crate) const OUTPUT_DROPPED: &str = "command.output_dropped";
/// A pipe was still open some time after the end of the command, and was given up.
pub(crate) const OUTPUT_HELD_OPEN: &str = "command.output_held_open";

const EVENT_TYPES: [&str; 5] = [ATTEMPT_STARTED, GUARDED, OUTPUT, OUTPUT_DROPPED, OUTPUT_HELD_OPEN];

/// The characters of a command line that people are shown.
const LABEL_CHARACTERS: usize = 80;

/// What is stored of a command: all that another host needs to run it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct CommandProcess {
    /// The program and its arguments; never empty.
    pub(crate) argv: Vec<String>,
    /// The directory to run in, absolute.
    pub(crate) cwd: String,
    /// Variables on top of the host's environment.
    #[serde(default)]
    pub(crate) env: BTreeMap<String, String>,
    /// Names of variables whose values come from the host's environment and are not stored.
    #[serde(default)]
    pub(crate) env_names: Vec<String>,
    /// How much output is stored, in bytes.
    pub(crate) max_output_bytes: u64,
    /// How long one attempt may take, in ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) time_limit_ms: Option<u64>,
}

/// Why a stored process is no command that can be run here.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum NotRunnable {
    /// Its payload is that of something else.
    #[error("its payload is no command: {reason}")]
    Payload {
        /// What does not fit.
        reason: String,
    },
    /// A value that was not stored is not there either.
    #[error("the environment variable `{name}` that it needs is not set")]
    MissingVariable {
        /// Its name.
        name: String,
    },
}

impl CommandProcess {
    /// The declaration of this command as a process.
    pub(crate) fn registration(&self, id: ProcessId, disposition: RecoveryDisposition) -> ProcessRegistration {
        let payload = serde_json::json!(self);
        let mut registration = ProcessRegistration::new(id, ProcessInput::new(COMMAND_KIND, payload), disposition)
            .with_extra_event_types(EVENT_TYPES.map(ProcessEventType::plain));
        registration.identity =
            ProcessIdentity { kind: COMMAND_KIND.to_owned(), label: Some(self.label()), definition: None };
        registration
    }

    /// The command that was declared.
    ///
    /// # Errors
    /// [`NotRunnable::Payload`].
    pub(crate) fn from_registration(registration: &ProcessRegistration) -> Result<Self, NotRunnable> {
        if registration.input.kind != COMMAND_KIND {
            return Err(NotRunnable::Payload { reason: format!("it is of kind `{}`", registration.input.kind) });
        }
        let command = Self::deserialize(&registration.input.payload)
            .map_err(|error| NotRunnable::Payload { reason: error.to_string() })?;
        if command.argv.is_empty() {
            return Err(NotRunnable::Payload { reason: "its argv is empty".to_owned() });
        }
        Ok(command)
    }

    /// The variables to add to the environment, with the values that were not stored.
    ///
    /// # Errors
    /// [`NotRunnable::MissingVariable`].
    pub(crate) fn environment(&self) -> Result<Vec<(OsString, OsString)>, NotRunnable> {
        self.environment_from(|name| env::var_os(name))
    }

    fn environment_from(
        &self,
        value_of: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Vec<(OsString, OsString)>, NotRunnable> {
        let stored = self.env.iter().map(|(name, value)| Ok((name.into(), value.into())));
        let passed = self.env_names.iter().map(|name| match value_of(name) {
            Some(value) => Ok((name.into(), value)),
            None => Err(NotRunnable::MissingVariable { name: name.clone() }),
        });
        stored.chain(passed).collect()
    }

    /// The command line for people, shortened.
    fn label(&self) -> String {
        let line = self.argv.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ");
        if line.chars().count() <= LABEL_CHARACTERS {
            return line;
        }
        line.chars().take(LABEL_CHARACTERS - 1).chain(['…']).collect()
    }
}

/// A word as a shell would take it, on one line.
fn quoted(word: &str) -> String {
    let plain = |character: char| character.is_alphanumeric() || "-_./:=,+@%^".contains(character);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    let shown: String = word.chars().map(|character| if character.is_control() { ' ' } else { character }).collect();
    format!("'{}'", shown.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(argv: &[&str]) -> CommandProcess {
        CommandProcess {
            argv: argv.iter().map(|&word| word.to_owned()).collect(),
            cwd: "/work".to_owned(),
            env: BTreeMap::from([("A".to_owned(), "b".to_owned())]),
            env_names: vec!["SECRET".to_owned()],
            max_output_bytes: 7,
            time_limit_ms: Some(1_500),
        }
    }

    fn registration(command: &CommandProcess) -> ProcessRegistration {
        command.registration(ProcessId::new("p").expect("an id"), RecoveryDisposition::OwnerBound)
    }

    #[test]
    fn a_command_reads_back_from_its_registration() {
        let command = command(&["sh", "-c", "exit 3"]);
        let registration = registration(&command);
        assert_eq!(CommandProcess::from_registration(&registration), Ok(command));
        assert_eq!(registration.identity.label.as_deref(), Some("sh -c 'exit 3'"));
        assert!(EVENT_TYPES.iter().all(|name| registration.event_type(name).is_some()));
    }

    #[test]
    fn a_long_command_line_is_shortened_by_characters() {
        let label = command(&["echo", &"ü".repeat(200)]).label();
        assert_eq!(label.chars().count(), LABEL_CHARACTERS);
        assert!(label.ends_with('…'));
    }

    #[test]
    fn a_label_is_one_line_and_can_be_pasted() {
        assert_eq!(command(&["a", "", "b\nc", "it's"]).label(), r"a '' 'b c' 'it'\''s'");
    }

    #[test]
    fn values_that_are_not_stored_come_from_the_host() {
        let environment = command(&["x"]).environment_from(|name| (name == "SECRET").then(|| "s".into()));
        assert_eq!(environment, Ok(vec![("A".into(), "b".into()), ("SECRET".into(), "s".into())]));
        let missing = command(&["x"]).environment_from(|_| None).expect_err("the value is nowhere");
        assert_eq!(missing, NotRunnable::MissingVariable { name: "SECRET".to_owned() });
    }

    #[test]
    fn what_is_no_command_is_not_taken_for_one() {
        let id = || ProcessId::new("p").expect("an id");
        let bound = RecoveryDisposition::OwnerBound;
        for input in [
            ProcessInput::new("other", serde_json::json!({})),
            ProcessInput::new(COMMAND_KIND, serde_json::json!({"argv": 7})),
            ProcessInput::new(COMMAND_KIND, serde_json::json!({"argv": [], "cwd": "/", "max_output_bytes": 1})),
        ] {
            assert!(CommandProcess::from_registration(&ProcessRegistration::new(id(), input, bound)).is_err());
        }
    }
}

//! A command and what is declared of it, as both `run` and `submit` take it.
//!
//! It owns these options and the registration that they mean. It does not know who runs the command, nor where.

use std::{collections::BTreeMap, env, ffi::OsString, path, path::PathBuf};

use clap::{ArgAction, Args, ValueEnum};
use jiff::Timestamp;
use registry_actor::domain::{
    ParentEndRule, ProcessId, ProcessParent, ProcessRegistration, ProcessSignal, RecoveryDisposition, RetryPolicy,
};

use host_example::output::DEFAULT_MAX_OUTPUT_BYTES;

use crate::{
    command_process::CommandProcess,
    default_id::default_id,
    duration_text,
    failure::{Failure, FailureKind},
    store_choice::typed_id,
};

/// The pause after the first failed attempt unless stated otherwise.
const DEFAULT_BACKOFF_MS: u64 = 1_000;

/// How far the pause between two attempts grows.
const LONGEST_BACKOFF_MS: u64 = 300_000;

/// The command and what is declared of it.
#[derive(Args, Debug)]
pub(crate) struct CommandArgs {
    /// The id of the process; by default a unique one.
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// What a later host does with the process if this one dies: run it again, or declare it abandoned.
    #[arg(long, value_enum, default_value_t = Disposition::OwnerBound)]
    disposition: Disposition,
    /// How often a rerunnable command is tried, the first time included: an attempt that fails, or whose host dies, is
    /// followed by another up to this number. Without it a failure is final, and an attempt whose host died is always made
    /// again.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_attempts: Option<u32>,
    /// How long to wait after the first failed attempt, such as `500ms` or `2m`; it doubles with each further one, up to five
    /// minutes. By default 1s.
    #[arg(long, value_name = "DURATION", requires = "max_attempts", value_parser = duration_text::to_ms)]
    backoff: Option<u64>,
    /// How long after its registration the process has to end, such as `90s` or `1h 30m`: it is cancelled then and fails,
    /// with the exit code 124. It counts across hosts and attempts.
    #[arg(long, value_name = "DURATION", value_parser = duration_text::to_ms)]
    deadline: Option<u64>,
    /// How long one attempt may take, such as `30s`: its command is ended then, and the attempt has failed. Where another one may follow,
    /// that has as much time again; otherwise the process fails, with the exit code 124.
    #[arg(long, value_name = "DURATION", value_parser = duration_text::to_ms)]
    time_limit: Option<u64>,
    /// The name of a signal that may be sent to it, which a command waits for with `proctor wait "$PROCTOR_PROCESS_ID" --event
    /// signal.NAME`; may be given several times.
    #[arg(long, value_name = "NAME", action = ArgAction::Append, value_parser = signal)]
    signal: Vec<ProcessSignal>,
    /// The process of the same store on whose behalf this one runs: when that ends or is asked to stop, this one is asked
    /// to stop too.
    #[arg(long, value_name = "ID")]
    parent: Option<String>,
    /// The directory to run in; by default the present one.
    #[arg(long, value_name = "DIR")]
    cwd: Option<PathBuf>,
    /// A variable of the command's environment. KEY=VALUE is stored; KEY alone stores the name only, and passes the value
    /// that the host has that runs the command: `run` the present one.
    #[arg(long, value_name = "KEY[=VALUE]", action = ArgAction::Append)]
    env: Vec<String>,
    /// How much output is recorded and shown, in bytes, and at most a line for each 64 of them; the rest is counted.
    #[arg(long, value_name = "BYTES", default_value_t = DEFAULT_MAX_OUTPUT_BYTES)]
    max_output: u64,
    /// A word by which lists find the process; may be given several times.
    #[arg(long, value_name = "TAG", action = ArgAction::Append)]
    tag: Vec<String>,
    /// The command and its arguments, after `--`. Nothing is interpreted by a shell.
    #[arg(value_name = "COMMAND", required = true, last = true)]
    command: Vec<OsString>,
}

/// The dispositions that a command can have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Disposition {
    /// A later host runs it again.
    Rerunnable,
    /// Once started, it is this host's or nobody's.
    OwnerBound,
}

impl From<Disposition> for RecoveryDisposition {
    fn from(disposition: Disposition) -> Self {
        match disposition {
            Disposition::Rerunnable => Self::Rerunnable,
            Disposition::OwnerBound => Self::OwnerBound,
        }
    }
}

impl CommandArgs {
    /// The command.
    ///
    /// # Errors
    /// When it cannot be stored.
    pub(crate) fn command(&self) -> Result<CommandProcess, Failure> {
        let argv = self.command.iter().map(|word| text(word.clone(), "the command line")).collect::<Result<_, _>>()?;
        let cwd = match &self.cwd {
            Some(directory) => path::absolute(directory),
            None => env::current_dir(),
        };
        let cwd = cwd.map_err(|error| Failure::new(FailureKind::Usage, format!("no directory to run in: {error}")))?;
        let mut variables = BTreeMap::new();
        let mut env_names = Vec::new();
        for variable in &self.env {
            let (name, value) = match variable.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (variable.as_str(), None),
            };
            if name.is_empty() {
                return Err(Failure::new(FailureKind::Usage, format!("--env {variable:?} names no variable")));
            }
            match value {
                Some(value) => drop(variables.insert(name.to_owned(), value.to_owned())),
                None => env_names.push(name.to_owned()),
            }
        }
        env_names.sort_unstable();
        env_names.dedup();
        Ok(CommandProcess {
            argv,
            cwd: text(cwd.into_os_string(), "the directory")?,
            env: variables,
            env_names,
            max_output_bytes: self.max_output,
            time_limit_ms: self.time_limit,
        })
    }

    /// Whether an id was named.
    pub(crate) const fn names_id(&self) -> bool {
        self.id.is_some()
    }

    /// Whether a directory was named.
    pub(crate) const fn names_directory(&self) -> bool {
        self.cwd.is_some()
    }

    /// The declaration of the command as a process.
    ///
    /// # Errors
    /// When options do not go together, or the system gives no randomness for an id.
    pub(crate) fn registration(&self, command: &CommandProcess) -> Result<ProcessRegistration, Failure> {
        let mut registration =
            command.registration(self.id_of(command)?, self.disposition.into()).with_tags(self.tag.clone());
        registration = registration.with_extra_event_types(self.signal.iter().map(ProcessSignal::declared_type));
        if let Some(max_attempts) = self.max_attempts {
            if self.disposition != Disposition::Rerunnable {
                let line = "--max-attempts needs --disposition rerunnable: any other command is run once at most";
                return Err(Failure::new(FailureKind::Usage, line));
            }
            let initial_backoff_ms = self.backoff.unwrap_or(DEFAULT_BACKOFF_MS);
            let max_backoff_ms = initial_backoff_ms.max(LONGEST_BACKOFF_MS);
            registration = registration.with_retry(RetryPolicy { max_attempts, initial_backoff_ms, max_backoff_ms });
        }
        if let Some(deadline_ms) = self.deadline {
            registration = registration.with_deadline_ms(deadline_ms);
        }
        if let Some(parent) = &self.parent {
            let process_id = typed_id(parent)?;
            registration = registration.with_parent(ProcessParent { process_id, on_end: ParentEndRule::RequestCancel });
        }
        Ok(registration)
    }

    fn id_of(&self, command: &CommandProcess) -> Result<ProcessId, Failure> {
        let id = match &self.id {
            Some(id) => id.clone(),
            None => {
                let random = getrandom::u64()
                    .map_err(|error| Failure::new(FailureKind::System, format!("no randomness for an id: {error}")))?;
                default_id(command.argv.first().map_or("", String::as_str), Timestamp::now(), random)
            }
        };
        ProcessId::new(id).map_err(|error| Failure::new(FailureKind::Usage, error.to_string()))
    }
}

fn signal(name: &str) -> Result<ProcessSignal, String> {
    ProcessSignal::new(name).map_err(|error| error.to_string())
}

/// What is stored has to be text: JSON knows nothing else.
fn text(words: OsString, what: &str) -> Result<String, Failure> {
    words.into_string().map_err(|words| Failure::new(FailureKind::Usage, format!("{what} is not UTF-8: {words:?}")))
}

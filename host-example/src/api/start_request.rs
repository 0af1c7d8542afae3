//! What a caller says to start a process, and the registration that it means.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, path,
};

use axum::http::StatusCode;
use registry_actor::domain::{
    ParentEndRule, ProcessEventType, ProcessId, ProcessInput, ProcessParent, ProcessRegistration, ProcessSignal,
    RecoveryDisposition, RetryPolicy,
};
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{extract::process_id, problem::Problem, session_routes::ScopeView};
use crate::{command_policy::CommandPolicy, command_process::CommandProcess, default_id::default_id};

use host_example::output::DEFAULT_MAX_OUTPUT_BYTES;

/// A process to be started: a command that this host runs, or work of another kind that somebody else takes up.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StartRequest {
    /// Its id; by default a new one. The same request with the same id again is answered with the process that is there.
    #[schema(min_length = 1, max_length = 512)]
    process_id: Option<String>,
    /// The command, if it is one.
    command: Option<CommandRequest>,
    /// The work, if it is none.
    work: Option<WorkRequest>,
    /// What a later host does with it if this one dies. By default `owner_bound`; what is `externally_owned` is no command.
    disposition: Option<DispositionName>,
    /// The names of signals that may be sent to it.
    #[serde(default)]
    signals: BTreeSet<String>,
    /// Words by which lists find it.
    #[serde(default)]
    tags: BTreeSet<String>,
    /// How often a rerunnable process is tried, and with which pauses.
    retry: Option<RetryRequest>,
    /// How long after its registration it has to end, in ms.
    #[schema(minimum = 1)]
    deadline_ms: Option<u64>,
    /// The process on whose behalf it runs: when that ends, this one is asked to stop.
    parent: Option<String>,
}

/// A command.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CommandRequest {
    /// The program and its arguments. Nothing is interpreted by a shell.
    #[schema(min_items = 1)]
    argv: Vec<String>,
    /// The directory to run in, absolute; by default that of the host.
    cwd: Option<String>,
    /// Variables of its environment, which are stored.
    #[serde(default)]
    env: BTreeMap<String, String>,
    /// Variables that it gets from the host's environment, and whose values are not stored.
    #[serde(default)]
    env_names: BTreeSet<String>,
    /// How much output is recorded, in bytes.
    max_output_bytes: Option<u64>,
    /// How long one attempt may take, in ms. One that takes longer has failed, and is followed by another where `retry` allows it.
    #[schema(minimum = 1)]
    time_limit_ms: Option<u64>,
}

/// Work of another kind.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct WorkRequest {
    /// The kind of executor that runs it.
    kind: String,
    /// What that needs to know.
    #[serde(default)]
    #[schema(value_type = Value)]
    payload: Value,
    /// Types of events that may be appended to it, beyond those that every process has.
    #[serde(default)]
    event_types: BTreeSet<String>,
    /// The session that is woken by it.
    wake_target: Option<ScopeView>,
}

/// What recovery does with a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum DispositionName {
    /// It is run again.
    Rerunnable,
    /// It is its owner's or nobody's.
    OwnerBound,
    /// It is left to its owner elsewhere.
    ExternallyOwned,
}

/// How often it is tried.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RetryRequest {
    /// How many attempts in all.
    #[schema(minimum = 1)]
    max_attempts: u32,
    /// The pause after the first failed attempt, in ms; it doubles. By default 1000.
    initial_backoff_ms: Option<u64>,
    /// How far it grows, in ms. By default 300000.
    max_backoff_ms: Option<u64>,
}

impl StartRequest {
    /// The registration that is meant. Which commands may be started is the settings' business.
    ///
    /// # Errors
    /// What makes no sense, or is not allowed here.
    pub(crate) fn registration(
        self,
        policy: &CommandPolicy,
        now: jiff::Timestamp,
        random: u64,
    ) -> Result<ProcessRegistration, Problem> {
        let disposition = match self.disposition {
            Some(DispositionName::Rerunnable) => RecoveryDisposition::Rerunnable,
            Some(DispositionName::OwnerBound) | None => RecoveryDisposition::OwnerBound,
            Some(DispositionName::ExternallyOwned) => RecoveryDisposition::ExternallyOwned,
        };
        let id_or = |name: &str| match &self.process_id {
            Some(id) => process_id(id),
            None => ProcessId::new(default_id(name, now, random)).map_err(|error| Problem::invalid(error.to_string())),
        };
        let mut registration = match (self.command, self.work) {
            (Some(command), None) => {
                if disposition == RecoveryDisposition::ExternallyOwned {
                    return Err(Problem::invalid("a command is run here: expected `rerunnable` or `owner_bound`"));
                }
                let command = command.command(policy)?;
                let id = id_or(command.argv.first().map_or("", String::as_str))?;
                command.registration(id, disposition)
            }
            (None, Some(work)) => {
                if work.kind == crate::command_process::COMMAND_KIND {
                    return Err(Problem::invalid("a command is started as `command`, not as `work`"));
                }
                let id = id_or(&work.kind)?;
                let mut registration =
                    ProcessRegistration::new(id, ProcessInput::new(work.kind, work.payload), disposition)
                        .with_extra_event_types(work.event_types.into_iter().map(ProcessEventType::plain));
                registration.wake_target = work.wake_target.map(ScopeView::scope).transpose()?;
                registration
            }
            _ => return Err(Problem::invalid("expected either `command` or `work`")),
        };
        let signals = self.signals.into_iter().map(ProcessSignal::new).collect::<Result<Vec<_>, _>>();
        let signals = signals.map_err(|error| Problem::invalid(error.to_string()))?;
        registration =
            registration.with_extra_event_types(signals.iter().map(ProcessSignal::declared_type)).with_tags(self.tags);
        if let Some(retry) = self.retry {
            if disposition != RecoveryDisposition::Rerunnable {
                return Err(Problem::invalid(
                    "`retry` needs the disposition `rerunnable`: any other runs once at most",
                ));
            }
            let initial_backoff_ms = retry.initial_backoff_ms.unwrap_or(1_000);
            registration = registration.with_retry(RetryPolicy {
                max_attempts: retry.max_attempts,
                initial_backoff_ms,
                max_backoff_ms: retry.max_backoff_ms.unwrap_or(300_000).max(initial_backoff_ms),
            });
        }
        if let Some(deadline_ms) = self.deadline_ms {
            registration = registration.with_deadline_ms(deadline_ms);
        }
        if let Some(parent) = self.parent {
            let process_id = process_id(&parent)?;
            registration = registration.with_parent(ProcessParent { process_id, on_end: ParentEndRule::RequestCancel });
        }
        Ok(registration)
    }
}

impl CommandRequest {
    fn command(self, policy: &CommandPolicy) -> Result<CommandProcess, Problem> {
        if self.argv.is_empty() {
            return Err(Problem::invalid("expected a program in `argv`, found none"));
        }
        let cwd = match self.cwd {
            Some(cwd) => cwd,
            None => env::current_dir()
                .map_err(|error| Problem::internal(format!("this host has no directory: {error}")))?
                .into_os_string()
                .into_string()
                .map_err(|found| Problem::internal(format!("this host's directory is not UTF-8: {found:?}")))?,
        };
        if !path::Path::new(&cwd).is_absolute() {
            return Err(Problem::invalid(format!("expected an absolute directory in `cwd`, found `{cwd}`")));
        }
        let named = self.env.keys().chain(&self.env_names);
        if let Some(name) = named.clone().find(|name| name.is_empty() || name.contains(['=', '\0'])) {
            return Err(Problem::invalid(format!("no variable can be called {name:?}")));
        }
        let has_nul = |text: &String| text.contains('\0');
        if self.argv.iter().chain(self.env.values()).chain([&cwd]).any(has_nul) {
            return Err(Problem::invalid("no word of a command can hold a NUL character"));
        }
        let command = CommandProcess {
            argv: self.argv,
            cwd,
            env: self.env,
            env_names: self.env_names.into_iter().collect(),
            max_output_bytes: self.max_output_bytes.unwrap_or(DEFAULT_MAX_OUTPUT_BYTES),
            time_limit_ms: self.time_limit_ms,
        };
        match policy.refusal(&command) {
            None => Ok(command),
            Some(detail) => Err(Problem::new(StatusCode::FORBIDDEN, "command_not_allowed", detail)),
        }
    }
}

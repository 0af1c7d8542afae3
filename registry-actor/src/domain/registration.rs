//! Registration: what a host declares about a process before anything happens to it.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::explicit_null::present;
use super::filter::check_tags;
use super::json_size::check_written_size;
use super::limits::check_items;
use super::name::check_name;
use super::nesting::{MAX_LEVELS, nests_within, too_deep};
use super::{
    CoreEventType, Digest, Limits, ProcessEventType, ProcessId, ProcessOriginator, ProcessParent, ProcessProvenance,
    Refusal, RetryPolicy, SessionScope,
};

/// What recovery may do with a process after its owner is gone. There is no default: the host must say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecoveryDisposition {
    /// Any later owner may execute it again.
    Rerunnable,
    /// Binds at first start: before it anybody may run it, after it nobody else ever does, and only abandonment is
    /// left.
    OwnerBound,
    /// Never executed here; closed from outside.
    ExternallyOwned,
}

impl RecoveryDisposition {
    /// The name that JSON and columns use.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Rerunnable => "rerunnable",
            Self::OwnerBound => "owner_bound",
            Self::ExternallyOwned => "externally_owned",
        }
    }
}

impl fmt::Display for RecoveryDisposition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.label())
    }
}

/// Spec from which a process is started and recovered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProcessRegistration {
    /// Key of the process.
    pub id: ProcessId,
    /// What is to be done.
    pub input: ProcessInput,
    /// What recovery may do.
    pub disposition: RecoveryDisposition,
    /// What people see of it.
    pub identity: ProcessIdentity,
    /// Which events may be appended. The core types are added where they are missing.
    #[serde(default)]
    pub event_types: Vec<ProcessEventType>,
    /// Lineage.
    #[serde(default)]
    pub provenance: ProcessProvenance,
    /// The captured environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env_ref: Option<ProcessEnvRef>,
    /// Whom its wakes go to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wake_target: Option<SessionScope>,
    /// Words of the host, for lists and retention.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub tags: BTreeSet<String>,
    /// How often it may be attempted. Only a rerunnable process has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryPolicy>,
    /// By when it has to end, in ms after its registration; at least 1. Who runs it stops it then; once nobody holds its
    /// lease recovery ends it as failed, whatever its disposition is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// The process on whose behalf it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<ProcessParent>,
}

impl ProcessRegistration {
    /// A registration with the core event types and the identity that follows from the input.
    #[must_use]
    pub fn new(id: ProcessId, input: ProcessInput, disposition: RecoveryDisposition) -> Self {
        let identity = input.default_identity();
        Self {
            id,
            input,
            disposition,
            identity,
            event_types: CoreEventType::DECLARED.map(CoreEventType::declaration).to_vec(),
            provenance: ProcessProvenance::default(),
            env_ref: None,
            wake_target: None,
            tags: BTreeSet::new(),
            retry: None,
            deadline_ms: None,
            parent: None,
        }
    }

    /// The same with attempts as this policy says.
    #[must_use]
    pub fn with_retry(self, retry: RetryPolicy) -> Self {
        Self { retry: Some(retry), ..self }
    }

    /// The same with an end by so many ms after its registration.
    #[must_use]
    pub fn with_deadline_ms(self, deadline_ms: u64) -> Self {
        Self { deadline_ms: Some(deadline_ms), ..self }
    }

    /// The same on behalf of another process.
    #[must_use]
    pub fn with_parent(self, parent: ProcessParent) -> Self {
        Self { parent: Some(parent), ..self }
    }

    /// The same with these tags besides those that it has.
    #[must_use]
    pub fn with_tags<T: Into<String>>(mut self, tags: impl IntoIterator<Item = T>) -> Self {
        self.tags.extend(tags.into_iter().map(Into::into));
        self
    }

    /// The same with these event types besides those that it has.
    #[must_use]
    pub fn with_extra_event_types(mut self, event_types: impl IntoIterator<Item = ProcessEventType>) -> Self {
        self.event_types.extend(event_types);
        self
    }

    /// The declared type of that name.
    #[must_use]
    pub fn event_type(&self, name: &str) -> Option<&ProcessEventType> {
        self.event_types.iter().find(|declared| declared.name == name)
    }

    /// Adds what every registration has, and checks the whole.
    pub(crate) fn prepare(mut self) -> Result<(Self, RegistrationHash), Refusal> {
        for core in CoreEventType::DECLARED {
            if self.event_type(core.name()).is_none() {
                self.event_types.push(core.declaration());
            }
        }
        self.check()?;
        check_written_size("registration", &self)?;
        let hash = RegistrationHash::of(&self)?;
        Ok((self, hash))
    }

    fn check(&self) -> Result<(), Refusal> {
        // First of all: what follows compares, compiles and hashes the values, and each of these walks them recursively.
        let values_nest_within = nests_within(&self.input.payload, MAX_LEVELS)
            && self.identity.definition.as_ref().is_none_or(|definition| nests_within(definition, MAX_LEVELS))
            && self.event_types.iter().all(|declared| declared.nests_within(MAX_LEVELS));
        if !values_nest_within {
            return Err(Refusal::RegistrationHasNoJson { process_id: self.id.clone(), reason: too_deep() });
        }
        if self.input.kind.trim().is_empty() {
            return Err(Refusal::EmptyInputKind { process_id: self.id.clone() });
        }
        self.check_names()?;
        self.check_execution_terms()?;
        match (self.input.env, &self.env_ref) {
            (EnvironmentRule::Required, None) => {
                return Err(Refusal::EnvironmentRequired { kind: self.input.kind.clone() });
            }
            (EnvironmentRule::Forbidden, Some(_)) => {
                return Err(Refusal::EnvironmentForbidden { kind: self.input.kind.clone() });
            }
            _ => {}
        }
        check_items("event types", self.event_types.len(), Limits::EVENT_TYPES)?;
        let mut names = BTreeSet::new();
        for declared in &self.event_types {
            if declared.name.trim().is_empty() {
                return Err(Refusal::EmptyEventType { process_id: self.id.clone() });
            }
            check_name("event type", &declared.name)?;
            if !names.insert(declared.name.as_str()) {
                return Err(Refusal::DuplicateEventType { event_type: declared.name.clone() });
            }
            match CoreEventType::from_name(&declared.name) {
                Some(core) if CoreEventType::INTERNAL.contains(&core) || core.declaration() != *declared => {
                    return Err(Refusal::ReservedEventType { event_type: declared.name.clone() });
                }
                _ => {}
            }
            if let Some(terminal) = &declared.semantics.terminal
                && terminal.await_output.is_none()
                && terminal.state != super::ProcessTerminalState::Completed
            {
                return Err(Refusal::AwaitOutputUndeclared {
                    event_type: declared.name.clone(),
                    state: terminal.state,
                });
            }
            declared
                .payload_schema
                .check()
                .map_err(|reason| Refusal::InvalidSchema { event_type: declared.name.clone(), reason })?;
        }
        Ok(())
    }

    /// Refuses terms that nobody could keep.
    fn check_execution_terms(&self) -> Result<(), Refusal> {
        let invalid = |reason: String| Err(Refusal::InvalidExecutionTerms { process_id: self.id.clone(), reason });
        if let Some(retry) = &self.retry {
            if self.disposition != RecoveryDisposition::Rerunnable {
                return invalid(format!(
                    "only a rerunnable process has a retry policy, this one is {}",
                    self.disposition
                ));
            }
            retry.check(&self.id)?;
        }
        if self.deadline_ms == Some(0) {
            return invalid("deadline_ms must be at least 1, got 0".to_owned());
        }
        if self.parent.as_ref().is_some_and(|parent| parent.process_id == self.id) {
            return invalid("a process cannot be its own parent".to_owned());
        }
        Ok(())
    }

    fn check_names(&self) -> Result<(), Refusal> {
        check_name("input kind", &self.input.kind)?;
        check_name("identity kind", &self.identity.kind)?;
        if let Some(label) = &self.identity.label {
            check_name("label", label)?;
        }
        if let Some(env_ref) = &self.env_ref {
            check_name("env ref", &env_ref.0)?;
        }
        if let ProcessOriginator::Session { scope } = &self.provenance.originator {
            scope.check()?;
        }
        if let Some(target) = &self.wake_target {
            target.check()?;
        }
        check_tags(&self.tags)
    }
}

/// What is to be done, and by which kind of executor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProcessInput {
    /// Names the executor.
    pub kind: String,
    /// What that executor needs to know.
    #[serde(default)]
    pub payload: Value,
    /// Whether it runs in a captured environment.
    #[serde(default)]
    pub env: EnvironmentRule,
}

impl ProcessInput {
    /// Work of a host's own kind.
    #[must_use]
    pub fn new(kind: impl Into<String>, payload: Value) -> Self {
        Self { kind: kind.into(), payload, env: EnvironmentRule::Optional }
    }

    /// A tool call, run in a captured environment.
    #[must_use]
    pub fn tool_call(call: Value) -> Self {
        Self { kind: "tool_call".to_owned(), payload: call, env: EnvironmentRule::Required }
    }

    /// Work of an engine, run in a captured environment.
    #[must_use]
    pub fn engine(kind: impl Into<String>, payload: Value) -> Self {
        Self { kind: kind.into(), payload, env: EnvironmentRule::Required }
    }

    /// A turn of a session of its own.
    #[must_use]
    pub fn session_turn(turn: Value) -> Self {
        Self { kind: "session_turn".to_owned(), payload: turn, env: EnvironmentRule::Forbidden }
    }

    /// Work that is done elsewhere.
    #[must_use]
    pub fn external(metadata: Value) -> Self {
        Self { kind: "external".to_owned(), payload: metadata, env: EnvironmentRule::Forbidden }
    }

    /// What people see unless the host says otherwise.
    #[must_use]
    pub fn default_identity(&self) -> ProcessIdentity {
        // What cannot be a label is no reason to refuse the work that it was found in.
        let is_label = |text: &&str| check_name("label", text).is_ok();
        let text = |names: &[&str]| {
            let mut found = names.iter().filter_map(|name| self.payload.pointer(name).and_then(Value::as_str));
            found.next().filter(is_label).map(str::to_owned)
        };
        let (kind, label) = match self.kind.as_str() {
            "tool_call" => ("tool", text(&["/tool_name"])),
            "session_turn" => ("session_turn", text(&["/capability", "/usage_source", "/session_id"])),
            "external" => ("external", text(&["/label", "/name", "/title"])),
            kind => (kind, None),
        };
        ProcessIdentity { kind: kind.to_owned(), label, definition: None }
    }
}

/// Whether work of a kind runs in a captured environment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EnvironmentRule {
    /// It must have one.
    Required,
    /// It must not have one.
    Forbidden,
    /// As the host likes.
    #[default]
    Optional,
}

/// Content address of a captured environment.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ProcessEnvRef(pub String);

/// What people see of a process.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ProcessIdentity {
    /// What kind of work.
    pub kind: String,
    /// Which work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The definition that it is an instance of.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub definition: Option<Value>,
}

/// Hash of a prepared registration, with the version of the rule that made it: `v1:` and 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RegistrationHash(String);

impl RegistrationHash {
    /// Version 1: SHA-256 over the canonical JSON of the registration, with its event types sorted by name, so that the
    /// order in which a host lists them does not matter.
    fn of(registration: &ProcessRegistration) -> Result<Self, Refusal> {
        let mut canonical = registration.clone();
        canonical.event_types.sort_by(|left, right| left.name.cmp(&right.name));
        let digest = Digest::of_json(&canonical).map_err(|error| Refusal::RegistrationHasNoJson {
            process_id: registration.id.clone(),
            reason: error.to_string(),
        })?;
        Ok(Self(format!("v1:{digest}")))
    }
}

impl fmt::Display for RegistrationHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

//! Refusals: why a command was not carried out. Nothing has changed when one is answered.
//!
//! Each variant is typed; its text keeps the words that callers of the peer match on.

use serde::{Deserialize, Serialize};

use super::{
    CursorFault, InvalidFilter, LeaseOwnerIdentity, Measure, ProcessAwaitOutput, ProcessExternalRef, ProcessId,
    ProcessLease, ProcessTerminalState, RegistrationHash, ReplayKey, SelectorError, Sequence, SessionScope,
};

/// Why a command was not carried out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "refusal", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Refusal {
    /// No process has that id.
    #[error("unknown process `{process_id}`")]
    Unknown {
        /// The id.
        process_id: ProcessId,
    },
    /// The id is taken by another registration.
    #[error("registration hash conflict for process `{process_id}`: stored {stored}, offered {offered}")]
    RegistrationConflict {
        /// The id.
        process_id: ProcessId,
        /// Hash of the stored registration.
        stored: RegistrationHash,
        /// Hash of the offered one.
        offered: RegistrationHash,
    },
    /// The registration has no JSON form.
    #[error("registration of process `{process_id}` cannot be written as JSON: {reason}")]
    RegistrationHasNoJson {
        /// The id.
        process_id: ProcessId,
        /// What serde says.
        reason: String,
    },
    /// The command is a registration of another process than the one it was sent to.
    #[error("registration of process `{found}` was sent to process `{expected}`")]
    MisroutedRegistration {
        /// The process that it was sent to.
        expected: ProcessId,
        /// The process that it names.
        found: ProcessId,
    },
    /// What it declares about its execution cannot be kept.
    #[error("process `{process_id}` declares execution terms that cannot be kept: {reason}")]
    InvalidExecutionTerms {
        /// The id.
        process_id: ProcessId,
        /// What was expected, and what was found.
        reason: String,
    },
    /// It is executed elsewhere, and closed from there.
    #[error("process `{process_id}` is externally-owned and must not be executed here")]
    NotExecutedHere {
        /// The id.
        process_id: ProcessId,
    },
    /// It is bound to the owner who started it: nobody executes it again.
    #[error("process `{process_id}` is owner-bound and was started by `{}`: it is not executed again", .owner.owner_id)]
    AlreadyStarted {
        /// The id.
        process_id: ProcessId,
        /// Who started it.
        owner: Box<LeaseOwnerIdentity>,
    },
    /// As many attempts as it declares were made.
    #[error("process `{process_id}` was attempted {max_attempts} times and declares no more attempts")]
    AttemptsExhausted {
        /// The id.
        process_id: ProcessId,
        /// How many it declares.
        max_attempts: u32,
    },
    /// A failed attempt is to be followed by another, and under this lease none was begun.
    #[error("process `{process_id}` has no attempt that was begun under this lease and could fail")]
    NoAttemptBegun {
        /// The id.
        process_id: ProcessId,
    },
    /// The input names no executor.
    #[error("process `{process_id}` declares an empty input kind")]
    EmptyInputKind {
        /// The id.
        process_id: ProcessId,
    },
    /// This kind of work needs an environment.
    #[error("process input of kind `{kind}` requires a captured execution env")]
    EnvironmentRequired {
        /// The kind.
        kind: String,
    },
    /// This kind of work has no environment.
    #[error("process input of kind `{kind}` must not capture an execution env for this input kind")]
    EnvironmentForbidden {
        /// The kind.
        kind: String,
    },
    /// An event type has no name.
    #[error("process `{process_id}` declares an empty event type")]
    EmptyEventType {
        /// The id.
        process_id: ProcessId,
    },
    /// Two event types have one name.
    #[error("process declares duplicate event type `{event_type}`")]
    DuplicateEventType {
        /// The name.
        event_type: String,
    },
    /// The name belongs to the registry.
    #[error("event type `{event_type}` is reserved: it cannot be redeclared, and only its own command appends it")]
    ReservedEventType {
        /// The name.
        event_type: String,
    },
    /// A terminal event type does not say where its outcome is.
    #[error("terminal event type `{event_type}` for state {state} must declare await output")]
    AwaitOutputUndeclared {
        /// The name.
        event_type: String,
        /// The declared state.
        state: ProcessTerminalState,
    },
    /// A payload schema is no JSON Schema.
    #[error("payload schema of event type `{event_type}` is not usable: {reason}")]
    InvalidSchema {
        /// The name.
        event_type: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The process does not declare the type.
    #[error("process `{process_id}` emitted undeclared event type `{event_type}`")]
    UndeclaredEventType {
        /// The id.
        process_id: ProcessId,
        /// The name.
        event_type: String,
    },
    /// The type demands a replay key.
    #[error("event type `{event_type}` requires a deterministic replay key")]
    ReplayKeyRequired {
        /// The name.
        event_type: String,
    },
    /// Another event has the key.
    #[error("event replay key `{replay_key}` conflicts with an existing event")]
    ReplayConflict {
        /// The key.
        replay_key: ReplayKey,
    },
    /// The key was not looked up before the decision: a fault of the edge, never of the caller.
    #[error("event replay key `{replay_key}` was not looked up before the decision")]
    ReplayUnresolved {
        /// The key.
        replay_key: ReplayKey,
    },
    /// The payload does not fit the declared schema.
    #[error("invalid `{event_type}` payload: {reason}")]
    InvalidPayload {
        /// The name.
        event_type: String,
        /// Where and why.
        reason: String,
    },
    /// A declared selector does not fit the payload.
    #[error("event type `{event_type}`: {reason}")]
    SelectorMissed {
        /// The name.
        event_type: String,
        /// Which selector, and why.
        reason: SelectorError,
    },
    /// The outcome is not of the state that its event type declares.
    #[error("event type `{event_type}` declares state {declared}, got an outcome of state {found}")]
    OutcomeContradictsType {
        /// The name.
        event_type: String,
        /// The declared state.
        declared: ProcessTerminalState,
        /// The state of the outcome.
        found: ProcessTerminalState,
    },
    /// The process has ended.
    #[error("process `{process_id}` is already terminal: {}", .existing.terminal_state())]
    AlreadyTerminal {
        /// The id.
        process_id: ProcessId,
        /// Its outcome.
        existing: Box<ProcessAwaitOutput>,
    },
    /// Another holds the lease, and the write is not fenced.
    #[error(
        "process `{process_id}` is leased to `{}` until {} ms: an unfenced write is refused",
        .holder.owner.owner_id, .holder.expires_at_epoch_ms
    )]
    LeaseHeld {
        /// The id.
        process_id: ProcessId,
        /// The lease in force.
        holder: Box<ProcessLease>,
    },
    /// The writer's lease is over: released, displaced, or for a renewal expired.
    #[error("process lease for `{process_id}` is missing or expired")]
    LeaseLost {
        /// The id.
        process_id: ProcessId,
    },
    /// The process is known under another name to a foreign backend.
    #[error("external ref conflict for process `{process_id}`: stored {}/{}, offered another", .stored.backend, .stored.id)]
    ExternalRefConflict {
        /// The id.
        process_id: ProcessId,
        /// The reference that stands.
        stored: Box<ProcessExternalRef>,
    },
    /// The process has ended: there is nothing to abandon.
    #[error("process `{process_id}` is already terminal and cannot accept an abandon request")]
    AbandonOfTerminal {
        /// The id.
        process_id: ProcessId,
        /// Its outcome.
        existing: Box<ProcessAwaitOutput>,
    },
    /// The process has ended: it waits for nothing.
    #[error("process `{process_id}` is already terminal and cannot enter a wait state")]
    WaitOfTerminal {
        /// The id.
        process_id: ProcessId,
        /// Its outcome.
        existing: Box<ProcessAwaitOutput>,
    },
    /// No event of that sequence woke anybody.
    #[error("process `{process_id}` has no wake at sequence {sequence}")]
    NoSuchWake {
        /// The id.
        process_id: ProcessId,
        /// What was acknowledged.
        sequence: Sequence,
    },
    /// The key is one that the registry derives itself.
    #[error("event replay key `{replay_key}` is reserved for the registry's own facts")]
    ReservedReplayKey {
        /// The key.
        replay_key: ReplayKey,
    },
    /// The scope cannot address the process.
    #[error("process handle `{process_id}` is not granted to session `{}`", .scope.id())]
    HandleNotGranted {
        /// The id.
        process_id: ProcessId,
        /// The scope.
        scope: SessionScope,
    },
    /// A name is blank.
    #[error("{what} must be a non-empty string")]
    EmptyName {
        /// What was to be named.
        what: String,
    },
    /// A name holds a control character.
    #[error("{what} must not hold control characters, got {found:?}")]
    ControlCharacter {
        /// What was to be named.
        what: String,
        /// The first one.
        found: char,
    },
    /// Something is larger than the registry takes.
    #[error("{what} must be at most {limit} {measure}, got {found}")]
    LimitExceeded {
        /// What.
        what: String,
        /// What the limit counts.
        measure: Measure,
        /// The limit, inclusive.
        limit: u64,
        /// What was found.
        found: u64,
    },
    /// A value nests too deep.
    #[error("{what} is {reason}")]
    TooDeep {
        /// What.
        what: String,
        /// How.
        reason: String,
    },
    /// A page of nothing was asked for.
    #[error("a page must hold at least 1 entry, got a limit of 0")]
    EmptyPage,
    /// The filter is none.
    #[error(transparent)]
    InvalidFilter(InvalidFilter),
    /// The store does not accept the cursor.
    #[error(transparent)]
    Cursor(CursorFault),
    /// Deciding the command panicked. It is not tried again.
    #[error("command for process `{process_id}` panicked while it was decided: {message}")]
    DecisionPanicked {
        /// The id.
        process_id: ProcessId,
        /// The panic message.
        message: String,
    },
}

//! The pure core: values of the registry's vocabulary and the two functions that give them meaning,
//! [`decide`](fn@decide) and [`apply`](fn@apply).
//!
//! It does not know that tokio, ractor, SQL, a clock, randomness or logging exist. Time, tokens and facts about the
//! operating system arrive as arguments.

mod abandon;
mod apply;
mod attempt;
mod command;
mod cursor;
mod decide;
mod digest;
mod event;
mod event_type;
mod explicit_null;
mod external_ref;
mod filter;
mod grant;
mod identifier;
mod json_size;
mod lease;
mod limits;
mod liveness;
mod name;
mod nesting;
mod next_step;
mod outcome;
mod parent;
mod provenance;
mod prune;
mod receipt;
mod record;
mod refusal;
mod registration;
mod registry_command;
mod replay;
mod schema;
mod selector;
mod semantics;
mod session;
mod session_deletion;
mod signal;
mod state;
mod status;
mod tombstone;
mod wait;
mod wake;

pub use abandon::AbandonRequest;
pub use apply::apply;
pub use attempt::{AttemptFailed, AttemptFailure, AttemptStarted, ProcessAttempts, RetryPolicy};
pub use command::{Command, CommandEvents, LeaseRelease, WriteAuthority};
pub use cursor::{ChangeCursor, CursorFault, InvalidCursor, RegistrationCursor, WakeCursor};
pub use decide::{
    Decision, DecisionContext, PruneVerdict, Reply, RevokedGrant, UnfencedWrites, check_across, clear_wake_target,
    decide, prune_verdict, session_report,
};
pub use digest::Digest;
pub use event::{ProcessEvent, ProcessEventAppendRequest, RuntimeInvocation, RuntimeScope, RuntimeSubject};
pub use event_type::{
    CoreEventType, ProcessEventSemanticsSpec, ProcessEventType, ProcessTerminalSpec, ProcessWakeDedupeKey,
    ProcessWakeSpec,
};
pub use external_ref::ProcessExternalRef;
pub use filter::{InvalidFilter, OriginatorFilter, ProcessListFilter, ProcessStatusFilter, TimeRange};
pub use grant::{ProcessHandleDescriptor, ProcessHandleGrant};
pub use identifier::{Fence, InvalidIdentifier, LeaseToken, OperationId, ProcessId, ReplayKey, Sequence};
pub use lease::{
    InvalidLeaseTimings, LeaseFence, LeaseOwnerIdentity, LeaseRow, LeaseTimings, ProcessLease,
    ProcessLeaseClaimOutcome, StoreSession,
};
pub use limits::{Limits, Measure};
pub use liveness::{LeaseOwnerLiveness, ObservedProcess};
pub use next_step::{Death, LeaseSituation, NextStep, ParentSituation, ProcessSituation, Verdict};
pub use outcome::{AbandonEvidence, AbandonWriter, ProcessAwaitOutput, ProcessFailureClass, ProcessTerminalState};
pub use parent::{ParentEndRule, ProcessParent};
pub use provenance::{CausalRef, ProcessOriginator, ProcessProvenance};
pub use prune::{ProcessPruneReport, ProjectionWatermark, PruneExemption, PruneFilter};
pub use receipt::{Receipt, ReceiptEvent};
pub use record::{ProcessRecord, ProcessStarted};
pub use refusal::Refusal;
pub use registration::{
    EnvironmentRule, ProcessEnvRef, ProcessIdentity, ProcessInput, ProcessRegistration, RecoveryDisposition,
    RegistrationHash,
};
pub use registry_command::{RegistryCommand, RegistryReceipt};
pub use replay::ReplayWindow;
pub use schema::PayloadSchema;
pub use selector::{ProcessValueSelector, SelectorError};
pub use semantics::{MaterializedTerminal, MaterializedWake, ProcessEventSemantics, TerminalAuthority};
pub use session::{SessionScope, SessionScopeId};
pub use session_deletion::{ProcessSessionDeleteReport, SessionDeletion};
pub use signal::{InvalidSignalName, ProcessSignal};
pub use state::ProcessState;
pub use status::ProcessStatus;
pub use tombstone::Tombstone;
pub use wait::{WaitKind, WaitState};
pub use wake::ProcessWakeDelivery;

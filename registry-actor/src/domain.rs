//! The pure core: values of the registry's vocabulary and the two functions that give them meaning,
//! [`decide`](fn@decide) and [`apply`](fn@apply).
//!
//! It does not know that tokio, ractor, SQL, a clock, randomness or logging exist. Time, tokens and facts about the
//! operating system arrive as arguments.

mod apply;
mod command;
mod decide;
mod digest;
mod event;
mod event_type;
mod explicit_null;
mod identifier;
mod lease;
mod liveness;
mod nesting;
mod outcome;
mod provenance;
mod receipt;
mod record;
mod refusal;
mod registration;
mod replay;
mod schema;
mod selector;
mod semantics;
mod session;
mod state;
mod status;
mod wake;

pub use apply::apply;
pub use command::{Command, LeaseRelease, WriteAuthority};
pub use decide::{Decision, DecisionContext, Reply, UnfencedWrites, decide};
pub use digest::Digest;
pub use event::{ProcessEvent, ProcessEventAppendRequest, RuntimeInvocation, RuntimeScope, RuntimeSubject};
pub use event_type::{
    CoreEventType, ProcessEventSemanticsSpec, ProcessEventType, ProcessTerminalSpec, ProcessWakeDedupeKey,
    ProcessWakeSpec,
};
pub use identifier::{Fence, InvalidIdentifier, LeaseToken, OperationId, ProcessId, ReplayKey, Sequence};
pub use lease::{
    InvalidLeaseTimings, LeaseFence, LeaseOwnerIdentity, LeaseRow, LeaseTimings, ProcessLease,
    ProcessLeaseClaimOutcome, StoreSession,
};
pub use liveness::{LeaseOwnerLiveness, ObservedProcess};
pub use outcome::{AbandonEvidence, AbandonWriter, ProcessAwaitOutput, ProcessFailureClass, ProcessTerminalState};
pub use provenance::{CausalRef, ProcessOriginator, ProcessProvenance};
pub use receipt::{Receipt, ReceiptEvent};
pub use record::{ProcessRecord, ProcessStarted};
pub use refusal::Refusal;
pub use registration::{
    EnvironmentRule, ProcessEnvRef, ProcessIdentity, ProcessInput, ProcessRegistration, RecoveryDisposition,
    RegistrationHash,
};
pub use replay::ReplayWindow;
pub use schema::PayloadSchema;
pub use selector::{ProcessValueSelector, SelectorError};
pub use semantics::{MaterializedTerminal, MaterializedWake, ProcessEventSemantics, TerminalAuthority};
pub use session::{SessionScope, SessionScopeId};
pub use state::ProcessState;
pub use status::ProcessStatus;
pub use wake::ProcessWakeDelivery;

//! What commands that concern several processes do to each of them. The rows are read, and the results written, in one
//! transaction of the log.

use std::collections::BTreeSet;

use super::super::event::fact_key;
use super::super::limits::check_items;
use super::super::name::check_name;
use super::super::{
    CoreEventType, LeaseRow, Limits, ProcessId, ProcessRecord, ProcessSessionDeleteReport, ProcessState, PruneFilter,
    Refusal, RegistryCommand, SessionScope, Tombstone,
};
use super::lifecycle::{inserted, internal_event};
use super::{Decision, DecisionContext};

/// Refuses what can be refused without reading anything.
///
/// # Errors
/// A [`Refusal`] that says what was expected and what was found.
pub fn check_across(command: &RegistryCommand) -> Result<(), Refusal> {
    match command {
        RegistryCommand::GrantHandle { grant } => {
            grant.scope.check()?;
            for (what, name) in [("kind", &grant.descriptor.kind), ("label", &grant.descriptor.label)] {
                if let Some(name) = name {
                    check_name(what, name)?;
                }
            }
            Ok(())
        }
        RegistryCommand::RevokeHandle { .. } => Ok(()),
        RegistryCommand::TransferHandleGrants { to, process_ids, .. } => {
            check_items("a transfer", process_ids.len(), Limits::GRANTS_PER_TRANSFER)?;
            to.check()
        }
        RegistryCommand::DeleteSession { session_id } => SessionScope::check_session(session_id),
        RegistryCommand::Prune { limit: 0, .. } => Err(Refusal::EmptyPage),
        RegistryCommand::Prune { filter, .. } => filter.check(),
    }
}

/// Takes the wake target away, if there is one.
#[must_use]
pub fn clear_wake_target(state: &ProcessState, context: &DecisionContext) -> Decision {
    let Some(record) = &state.record else { return Decision::default() };
    if record.wake_target.is_none() {
        return Decision::default();
    }
    let key = fact_key(&state.process_id, CoreEventType::WakeTargetCleared, None);
    inserted(internal_event(state, CoreEventType::WakeTargetCleared, serde_json::json!({}), key, context))
}

/// A grant that goes with its session, and what that means for its process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevokedGrant {
    /// The process.
    pub process_id: ProcessId,
    /// Whether the process has ended.
    pub ended: bool,
    /// Whether others can still address it.
    pub shared: bool,
}

/// What the deletion of a session did. Ended processes are neither orphaned nor preserved.
#[must_use]
pub fn session_report(session_id: &str, revoked: &[RevokedGrant], settled_wakes: u64) -> ProcessSessionDeleteReport {
    let running = |shared: bool| {
        let ids: BTreeSet<&ProcessId> = revoked
            .iter()
            .filter(|grant| !grant.ended && grant.shared == shared)
            .map(|grant| &grant.process_id)
            .collect();
        ids.into_iter().cloned().collect()
    };
    ProcessSessionDeleteReport {
        session_id: session_id.to_owned(),
        revoked_handle_count: revoked.len() as u64,
        deleted_wake_count: settled_wakes,
        orphaned_process_ids: running(false),
        preserved_process_ids: running(true),
        damaged_process_ids: Vec::new(),
    }
}

/// What a prune does to one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PruneVerdict {
    /// It goes, and this is left.
    Prune(Tombstone),
    /// The filter does not mean it.
    NotMeant,
    /// It stays, because a lease on it is in force.
    Leased,
    /// It stays, because the projector has not seen its last change.
    Unprojected,
}

/// Whether a process goes. `last_position` is that of its last event, `projected` how far the projector has come; both
/// count positions of the log as a whole.
#[must_use]
pub fn prune_verdict(
    record: &ProcessRecord,
    lease: &LeaseRow,
    last_position: u64,
    filter: &PruneFilter,
    projected: Option<u64>,
    context: &DecisionContext,
) -> PruneVerdict {
    let (Some(terminal_state), Some(terminal_at_ms)) = (record.status.terminal_state(), record.terminal_at_ms) else {
        return PruneVerdict::NotMeant;
    };
    if terminal_at_ms >= filter.terminal_before_ms || !filter.means(terminal_state, &record.registration) {
        return PruneVerdict::NotMeant;
    }
    // In this order: that it is unprojected is known without reading it.
    if projected.is_some_and(|projected| projected < last_position) {
        return PruneVerdict::Unprojected;
    }
    if context.live_holder(lease).is_some() {
        return PruneVerdict::Leased;
    }
    PruneVerdict::Prune(Tombstone {
        process_id: record.id().clone(),
        generation: record.generation,
        terminal_state,
        created_at_ms: record.created_at_ms,
        terminal_at_ms,
        pruned_at_ms: context.epoch_ms,
    })
}

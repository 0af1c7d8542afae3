//! Draining: what a worker that goes for good says of the work that is bound to it.

use serde::{Deserialize, Serialize};

use super::handle::Environment;
use super::journal::passes_soon;
use crate::domain::{
    AbandonEvidence, AbandonWriter, Command, LeaseRelease, ProcessAwaitOutput, ProcessId, ProcessLeaseClaimOutcome,
    ProcessListFilter, ProcessRecord, RecoveryDisposition, Refusal, WriteAuthority,
};
use crate::port::{ProcessRegistryExt, RegistryError};

/// How many records are read at a time.
const PAGE_RECORDS: u32 = 200;

/// What a drain did. Only writes that were confirmed are in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessDrainReport {
    /// Processes that are abandoned now, by id.
    pub abandoned: Vec<ProcessId>,
    /// Processes that were to be abandoned and are not: somebody held them, or the write was not confirmed. Recovery comes
    /// to them.
    pub deferred: Vec<ProcessId>,
    /// Processes whose run did not end when it was told to, and was killed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub killed: Vec<ProcessId>,
}

/// A drain that could not go on.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("the drain could not go on after {} processes were abandoned: {error}", .confirmed.abandoned.len())]
pub struct DrainError {
    /// What it did until then.
    pub confirmed: ProcessDrainReport,
    /// Why.
    pub error: RegistryError,
}

/// Abandons, in the name of their owner, all processes that it began, that are bound to it and have not ended.
pub(super) async fn drain_owner_bound_work(environment: &Environment) -> Result<ProcessDrainReport, DrainError> {
    let mut report = ProcessDrainReport::default();
    let mut after = None;
    loop {
        let page = environment.registry.list_page(ProcessListFilter::default(), after, PAGE_RECORDS).await;
        let page = match page {
            Ok(page) => page,
            Err(error) => return Err(DrainError { confirmed: report, error }),
        };
        for record in page.records.iter().filter(|record| is_ours(environment, record)) {
            match abandon(environment, record).await {
                Ok(true) => report.abandoned.push(record.id().clone()),
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(process_id = %record.id(), %error, "a process is not abandoned");
                    report.deferred.push(record.id().clone());
                }
            }
        }
        // Whose these are cannot be read.
        report.deferred.extend(page.damaged);
        after = page.records.last().map(|record| record.id().clone());
        if !page.has_more || after.is_none() {
            return Ok(report);
        }
    }
}

fn is_ours(environment: &Environment, record: &ProcessRecord) -> bool {
    record.registration.disposition == RecoveryDisposition::OwnerBound
        && record.first_started.as_ref().is_some_and(|started| started.owner == environment.options.owner)
}

/// Whether the process was abandoned; not so if it had ended meanwhile.
async fn abandon(environment: &Environment, record: &ProcessRecord) -> Result<bool, RegistryError> {
    let (registry, id) = (&environment.registry, record.id());
    let ttl_ms = environment.options.timings.ttl_ms();
    let lease = match registry.claim_process_lease(id, environment.attempt_owner(), ttl_ms).await {
        Ok(ProcessLeaseClaimOutcome::Acquired { lease, .. }) => lease,
        Ok(ProcessLeaseClaimOutcome::Busy { holder }) => {
            return Err(Refusal::LeaseHeld { process_id: id.clone(), holder: Box::new(holder) }.into());
        }
        Err(RegistryError::Refused(Refusal::AlreadyTerminal { .. })) => return Ok(false),
        Err(error) => return Err(error),
    };
    let evidence = AbandonEvidence {
        writer: AbandonWriter::OwnerDrain,
        owner: record.first_started.as_ref().map(|started| started.owner.clone()),
        epoch_ms: environment.options.clock.now().epoch_ms,
        detail: None,
    };
    let command = Command::Complete {
        output: ProcessAwaitOutput::abandoned(evidence),
        authority: WriteAuthority::Holder(lease.fence()),
        lease: LeaseRelease::Release,
    };
    let written = passes_soon(|| registry.execute(id, command.clone())).await;
    match written {
        Ok(_) => Ok(true),
        Err(error) => {
            drop(registry.complete_process_lease(&lease).await);
            Err(error)
        }
    }
}

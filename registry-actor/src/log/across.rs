//! Commands that concern several processes, over whatever holds the rows: one way of carrying them out, so that no two logs
//! can differ. What is written happens inside one transaction. A refusal comes before the first write; an error of the store
//! may come later, and then the transaction goes back.
//!
//! A prune is looked for before: the walk along all that has ended would hold up everybody who appends. What the walk has found
//! is decided anew in the transaction that removes it.

use std::collections::BTreeSet;
use std::mem;
use std::sync::Arc;

use crate::domain::{
    ChangeCursor, DecisionContext, LeaseRow, Limits, ProcessHandleGrant, ProcessId, ProcessPruneReport, ProcessRecord,
    ProcessSessionDeleteReport, ProcessState, ProjectionWatermark, PruneFilter, PruneVerdict, Refusal, RegistryCommand,
    RegistryReceipt, RevokedGrant, SessionDeletion, SessionScope, Tombstone, apply, check_across, clear_wake_target,
    prune_verdict, session_report,
};
use crate::port::{BatchEvent, Head, Precondition, ProcessBatch};

/// How many ended processes a prune steps over at a time.
const STEP: usize = 1_024;

/// A process as such a command sees it.
pub(crate) struct StoredRow {
    pub(crate) record: Arc<ProcessRecord>,
    pub(crate) head: Head,
    pub(crate) lease: LeaseRow,
    /// Position of its last event.
    pub(crate) position: u64,
}

/// Where the walk along ended processes stands: by time of ending, then by something unique.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PruneMark {
    pub(crate) terminal_at_ms: u64,
    pub(crate) tie: u64,
}

/// An ended process that a prune may remove.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PruneCandidate {
    pub(crate) mark: PruneMark,
    pub(crate) process_id: ProcessId,
    /// Position of its last event.
    pub(crate) position: u64,
}

/// A stretch of the walk along ended processes.
#[derive(Debug, Default)]
pub(crate) struct EndedPage {
    /// Those that the filter means, ascending by mark.
    pub(crate) candidates: Vec<PruneCandidate>,
    /// How many are damaged so that they have no id.
    pub(crate) damaged: u64,
    /// Where to go on; `None` at the end.
    pub(crate) next: Option<PruneMark>,
}

/// The rows of a log, as a prune looks for what it may remove.
pub(crate) trait EndedRows {
    type Error: From<Refusal>;

    /// Whether an error says that what is stored of the process is damaged, and nothing else.
    fn is_damage(error: &Self::Error) -> bool;
    /// A process, checked as when it is loaded.
    fn process(&mut self, process_id: &ProcessId) -> Result<Option<StoredRow>, Self::Error>;
    /// Refuses a cursor that is not of this store as it is.
    fn check_cursor(&mut self, cursor: &ChangeCursor) -> Result<(), Self::Error>;
    /// The next ended processes after a mark: so many are looked at, whether or not the filter means them. Those that ended at
    /// its very boundary are among them: on which side of it they fall, the verdict alone knows.
    fn ended(&mut self, filter: &PruneFilter, after: Option<PruneMark>, step: usize) -> Result<EndedPage, Self::Error>;
}

/// The rows of a log inside one transaction.
pub(crate) trait Rows: EndedRows {
    /// Whether a process has ended; `None` if it is unknown.
    fn has_ended(&mut self, process_id: &ProcessId) -> Result<Option<bool>, Self::Error>;
    /// Stores what a process gained, at the head that was read.
    fn append(&mut self, batch: ProcessBatch) -> Result<(), Self::Error>;

    fn grant(
        &mut self,
        scope: &SessionScope,
        process_id: &ProcessId,
    ) -> Result<Option<ProcessHandleGrant>, Self::Error>;
    /// Makes a grant or replaces its descriptor.
    fn put_grant(&mut self, grant: &ProcessHandleGrant) -> Result<(), Self::Error>;
    /// Ends a grant; answers whether there was one.
    fn remove_grant(&mut self, scope: &SessionScope, process_id: &ProcessId) -> Result<bool, Self::Error>;
    /// Grants of a session and all of its frames.
    fn grants_of_session(&mut self, session_id: &str) -> Result<Vec<(SessionScope, ProcessId)>, Self::Error>;
    /// Whether anybody may address a process.
    fn is_granted(&mut self, process_id: &ProcessId) -> Result<bool, Self::Error>;

    /// Processes whose wake target is the session or one of its frames.
    fn woken_by(&mut self, session_id: &str) -> Result<Vec<ProcessId>, Self::Error>;
    /// Settles the pending wakes of a session and all of its frames; answers how many.
    fn settle_wakes(&mut self, session_id: &str) -> Result<u64, Self::Error>;
    /// Puts the deletion into the change feed.
    fn note_session_deleted(&mut self, deletion: &SessionDeletion) -> Result<(), Self::Error>;

    /// Removes a process with all of its rows, leaves the tombstone and puts it into the change feed; answers how many
    /// events went, the registration apart.
    fn prune(&mut self, tombstone: &Tombstone) -> Result<u64, Self::Error>;
}

/// Carries a command out. What a prune is to remove was searched for before, or is now.
pub(crate) fn carry_out<R: Rows>(
    rows: &mut R,
    command: &RegistryCommand,
    searched: Option<PruneSearch>,
    context: &DecisionContext,
) -> Result<RegistryReceipt, R::Error> {
    check_across(command)?;
    match command {
        RegistryCommand::GrantHandle { grant } => {
            if rows.has_ended(&grant.process_id)?.is_none() {
                return Err(Refusal::Unknown { process_id: grant.process_id.clone() }.into());
            }
            rows.put_grant(grant)?;
            Ok(RegistryReceipt::Granted(grant.clone()))
        }
        RegistryCommand::RevokeHandle { scope, process_id } => {
            Ok(RegistryReceipt::Revoked(rows.remove_grant(scope, process_id)?))
        }
        RegistryCommand::TransferHandleGrants { from, to, process_ids } => transfer(rows, from, to, process_ids),
        RegistryCommand::DeleteSession { session_id } => delete_session(rows, session_id, context),
        RegistryCommand::Prune { filter, watermark, limit } => {
            let search = match searched {
                Some(search) => search,
                None => {
                    let mut search = PruneSearch::new(filter, watermark, *limit, context);
                    while search.step(rows)? == SearchStep::More {}
                    search
                }
            };
            search.carry_out(rows)
        }
    }
}

fn transfer<R: Rows>(
    rows: &mut R,
    from: &SessionScope,
    to: &SessionScope,
    process_ids: &[ProcessId],
) -> Result<RegistryReceipt, R::Error> {
    let mut moved = Vec::with_capacity(process_ids.len());
    for process_id in process_ids.iter().collect::<BTreeSet<_>>() {
        let Some(grant) = rows.grant(from, process_id)? else {
            return Err(Refusal::HandleNotGranted { process_id: process_id.clone(), scope: from.clone() }.into());
        };
        moved.push(ProcessHandleGrant { scope: to.clone(), ..grant });
    }
    for grant in &moved {
        rows.remove_grant(from, &grant.process_id)?;
        rows.put_grant(grant)?;
    }
    Ok(RegistryReceipt::Transferred(moved))
}

fn delete_session<R: Rows>(
    rows: &mut R,
    session_id: &str,
    context: &DecisionContext,
) -> Result<RegistryReceipt, R::Error> {
    let grants = rows.grants_of_session(session_id)?;
    for (scope, process_id) in &grants {
        rows.remove_grant(scope, process_id)?;
    }
    let mut revoked = Vec::with_capacity(grants.len());
    for (_, process_id) in grants {
        // A grant on an unknown process cannot be; it would count as ended.
        let ended = rows.has_ended(&process_id)?.unwrap_or(true);
        let shared = !ended && rows.is_granted(&process_id)?;
        revoked.push(RevokedGrant { process_id, ended, shared });
    }
    let woken = rows.woken_by(session_id)?;
    let cleared = woken.len();
    let mut damaged = Vec::new();
    for process_id in woken {
        match rows.process(&process_id) {
            // Nothing can be appended to it; it must not keep the session from being deleted.
            Err(error) if R::is_damage(&error) => damaged.push(process_id),
            stored => {
                if let Some(stored) = stored? {
                    rows.append(cleared_wake_target(process_id, stored, context))?;
                }
            }
        }
    }
    let settled = rows.settle_wakes(session_id)?;
    let report =
        ProcessSessionDeleteReport { damaged_process_ids: damaged, ..session_report(session_id, &revoked, settled) };
    if !revoked.is_empty() || settled > 0 || cleared > 0 {
        rows.note_session_deleted(&SessionDeletion {
            session_id: session_id.to_owned(),
            revoked_handle_count: report.revoked_handle_count,
            deleted_wake_count: settled,
            deleted_at_ms: context.epoch_ms,
        })?;
    }
    Ok(RegistryReceipt::SessionDeleted(report))
}

fn cleared_wake_target(process_id: ProcessId, stored: StoredRow, context: &DecisionContext) -> ProcessBatch {
    let StoredRow { record, head, lease, .. } = stored;
    let expected = Precondition { head: Some(head), lease_revision: lease.revision };
    let mut state = ProcessState {
        record: Some(Arc::clone(&record)),
        sequence: head.sequence,
        body_sequence: head.sequence,
        lease: Arc::new(lease),
        ..ProcessState::unregistered(process_id.clone())
    };
    let decision = clear_wake_target(&state, context);
    for event in &decision.events {
        state = apply(state, event);
    }
    ProcessBatch {
        process_id,
        expected,
        events: decision.events.into_iter().map(|event| BatchEvent { operation: context.operation, event }).collect(),
        deliveries: Vec::new(),
        record: state.record.unwrap_or(record),
        body_changed: true,
        lease: None,
        urgent: false,
    }
}

/// Whether there is more to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SearchStep {
    More,
    Done,
}

/// The search for what a prune may remove, in steps: between two of them others have a turn.
pub(crate) struct PruneSearch {
    filter: PruneFilter,
    watermark: ProjectionWatermark,
    limit: u64,
    context: DecisionContext,
    after: Option<PruneMark>,
    /// What is to go.
    process_ids: Vec<ProcessId>,
    /// Its events, the registrations apart.
    events: u64,
    /// What stays, and at the end what went.
    report: ProcessPruneReport,
}

impl PruneSearch {
    pub(crate) fn new(
        filter: &PruneFilter,
        watermark: &ProjectionWatermark,
        limit: u32,
        context: &DecisionContext,
    ) -> Self {
        let limit = u64::from(limit.min(Limits::PRUNED_PER_COMMAND));
        let (filter, watermark, context) = (filter.clone(), watermark.clone(), context.clone());
        let report = ProcessPruneReport::default();
        Self { filter, watermark, limit, context, after: None, process_ids: Vec::new(), events: 0, report }
    }

    /// Looks at the next stretch.
    pub(crate) fn step<R: EndedRows>(&mut self, rows: &mut R) -> Result<SearchStep, R::Error> {
        let projected = self.projected(rows)?;
        let EndedPage { candidates, damaged, next } = rows.ended(&self.filter, self.after, STEP)?;
        self.report.kept_damaged += damaged;
        for PruneCandidate { mark, process_id, position } in candidates {
            // Said without reading the process: a projector that stands still must not make each prune read all of them.
            let is_unprojected = projected.is_some_and(|projected| projected < position);
            if is_unprojected && mark.terminal_at_ms < self.filter.terminal_before_ms {
                self.report.kept_unprojected += 1;
                continue;
            }
            let Some((stored, verdict)) = self.judge(rows, &process_id, projected)? else { continue };
            if let PruneVerdict::Prune(_) = verdict {
                // Only a process that would go is left over; what stays anyway is not.
                if self.is_full() {
                    self.report.more = true;
                    return Ok(SearchStep::Done);
                }
                self.events += stored.head.sequence.0;
                self.process_ids.push(process_id);
            }
        }
        self.after = next;
        Ok(if next.is_some() { SearchStep::More } else { SearchStep::Done })
    }

    /// Removes what was found, as far as it still may go.
    fn carry_out<R: Rows>(mut self, rows: &mut R) -> Result<RegistryReceipt, R::Error> {
        let projected = self.projected(rows)?;
        for process_id in mem::take(&mut self.process_ids) {
            let Some((_, verdict)) = self.judge(rows, &process_id, projected)? else { continue };
            if let PruneVerdict::Prune(tombstone) = verdict {
                self.report.pruned_events += rows.prune(&tombstone)?;
                self.report.pruned_processes += 1;
            }
        }
        Ok(RegistryReceipt::Pruned(self.report))
    }

    /// What is to become of a process, and counts it if it stays. `None` if nothing is to be said of it.
    fn judge<R: EndedRows>(
        &mut self,
        rows: &mut R,
        process_id: &ProcessId,
        projected: Option<u64>,
    ) -> Result<Option<(StoredRow, PruneVerdict)>, R::Error> {
        let stored = match rows.process(process_id) {
            // What is damaged is evidence, and must not keep everything else from being pruned.
            Err(error) if R::is_damage(&error) => {
                self.report.kept_damaged += 1;
                return Ok(None);
            }
            stored => stored?,
        };
        let Some(stored) = stored else { return Ok(None) };
        let verdict =
            prune_verdict(&stored.record, &stored.lease, stored.position, &self.filter, projected, &self.context);
        match &verdict {
            PruneVerdict::Leased => self.report.kept_leased += 1,
            PruneVerdict::Unprojected => self.report.kept_unprojected += 1,
            PruneVerdict::NotMeant | PruneVerdict::Prune(_) => {}
        }
        Ok(Some((stored, verdict)))
    }

    /// The position up to which a projector has come, if there is one.
    fn projected<R: EndedRows>(&self, rows: &mut R) -> Result<Option<u64>, R::Error> {
        match &self.watermark {
            ProjectionWatermark::NoProjector => Ok(None),
            ProjectionWatermark::UpTo(cursor) => {
                rows.check_cursor(cursor)?;
                Ok(Some(cursor.position()))
            }
        }
    }

    /// Whether as much is to be removed as one transaction should: everybody else's appends wait for it.
    fn is_full(&self) -> bool {
        self.process_ids.len() as u64 >= self.limit || self.events >= Limits::PRUNED_EVENTS_PER_COMMAND
    }
}

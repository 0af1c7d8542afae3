//! What reads answer from the log in memory.

use std::ops::Bound;
use std::sync::Arc;

use super::store::{Entry, Store};
use crate::domain::{
    ChangeCursor, CursorFault, ProcessEvent, ProcessHandleGrant, ProcessId, ProcessListFilter, ProcessRecord, Refusal,
    RegistrationCursor, Sequence, SessionScope, WakeCursor,
};
use crate::port::{
    Answer, ChangePage, EventPage, FeedEntry, HandleGrantPage, LogError, PendingWake, PendingWakePage, ProcessChange,
    ProcessGrantPage, ProcessPage, Query, RecentProcessPage,
};

/// The epoch of a store that is never restored.
const EPOCH: u64 = 1;

impl Store {
    pub(super) fn query(&self, query: &Query) -> Result<Answer, LogError> {
        query.check()?;
        match query {
            Query::Process { process_id } => {
                Ok(Answer::Process(self.processes.get(process_id).map(|process| Arc::clone(&process.record))))
            }
            Query::Tombstone { process_id } => Ok(Answer::Tombstone(self.tombstones.get(process_id).cloned())),
            Query::Events { process_id, after, limit } => {
                let later = self.process(process_id)?.after(*after).iter().map(|stored| Arc::clone(&stored.event));
                Ok(Answer::Events(page_of_events(later, *limit)))
            }
            Query::RecentEvents { process_id, limit } => {
                let events = self.process(process_id)?.after(Sequence::REGISTRATION);
                let first = events.len().saturating_sub((*limit).min(EventPage::MAX_LIMIT) as usize);
                let recent = events[first..].iter().map(|stored| Arc::clone(&stored.event)).collect();
                Ok(Answer::Events(EventPage { events: recent, has_more: first > 0 }))
            }
            Query::FirstEventOfType { process_id, event_type, after } => {
                let mut later = self.process(process_id)?.after(*after).iter();
                let first = later.find(|stored| *stored.event.event_type == **event_type);
                Ok(Answer::Event(first.map(|stored| Arc::clone(&stored.event))))
            }
            Query::CountEventsThrough { process_id, event_type, through } => {
                let events = self.process(process_id)?.after(Sequence::REGISTRATION).iter();
                let counted = events
                    .take_while(|stored| stored.event.sequence <= *through)
                    .filter(|stored| *stored.event.event_type == **event_type);
                Ok(Answer::Count(counted.count() as u64))
            }
            Query::WakeEvents { process_id, after, limit } => {
                let process = self.process(process_id)?;
                let open = process.wakes.iter().filter(|(sequence, wake)| *sequence > after && !wake.acknowledged);
                let events = open.filter_map(|(sequence, _)| process.event(*sequence));
                Ok(Answer::Events(page_of_events(events, *limit)))
            }
            Query::Lease { process_id } => Ok(Answer::Lease(
                self.processes.get(process_id).and_then(|process| process.lease.holder.clone()).map(Box::new),
            )),
            Query::Processes { filter, after, limit } => {
                Ok(Answer::Processes(self.list(filter, after.as_ref(), *limit)))
            }
            Query::RecentProcesses { filter, before, limit } => {
                Ok(Answer::RecentProcesses(self.list_recent(filter, *before, *limit)))
            }
            Query::HandleGrant { scope, process_id } => Ok(Answer::HandleGrant(self.grant(scope, process_id))),
            Query::HandleGrants { scope, live_only, after, limit } => {
                Ok(Answer::HandleGrants(self.handle_grants(scope, *live_only, after.as_ref(), *limit)))
            }
            Query::GrantsOfProcess { process_id, after, limit } => {
                self.process(process_id)?;
                Ok(Answer::GrantsOfProcess(self.grants_of_process(process_id, after.as_ref(), *limit)))
            }
            Query::PendingWakes { target, after, limit } => {
                Ok(Answer::PendingWakes(self.pending_wakes(target, *after, *limit)))
            }
            Query::Changes { after, limit } => Ok(Answer::Changes(self.changes(after.as_ref(), *limit)?)),
        }
    }

    fn list(&self, filter: &ProcessListFilter, after: Option<&ProcessId>, limit: u32) -> ProcessPage {
        let limit = limit.clamp(1, ProcessPage::MAX_LIMIT) as usize;
        let mut shown =
            self.after_id(after).map(|(_, process)| &process.record).filter(|record| filter.matches(record));
        let records = shown.by_ref().take(limit).map(Arc::clone).collect();
        ProcessPage { records, damaged: Vec::new(), has_more: shown.next().is_some() }
    }

    /// Along the registrations of the feed, from the last one back.
    fn list_recent(
        &self,
        filter: &ProcessListFilter,
        before: Option<RegistrationCursor>,
        limit: u32,
    ) -> RecentProcessPage {
        let limit = limit.clamp(1, ProcessPage::MAX_LIMIT) as usize;
        let end = before.map_or(usize::MAX, |before| usize::try_from(before.place()).unwrap_or(usize::MAX));
        // What stands before position n is at the indexes before n - 1.
        let entries = &self.order[..end.saturating_sub(1).min(self.order.len())];
        let mut shown = entries.iter().enumerate().rev().filter_map(|(index, entry)| match entry {
            Entry::Event(process_id, Sequence::REGISTRATION) => {
                let record = &self.processes.get(process_id)?.record;
                filter.matches(record).then(|| (index as u64 + 1, Arc::clone(record)))
            }
            _ => None,
        });
        let taken: Vec<(u64, Arc<ProcessRecord>)> = shown.by_ref().take(limit).collect();
        let has_more = shown.next().is_some();
        let next = taken.last().filter(|_| has_more).map(|(position, _)| RegistrationCursor::new(*position));
        let records = taken.into_iter().map(|(_, record)| record).collect();
        RecentProcessPage { records, damaged: Vec::new(), next }
    }

    fn handle_grants(
        &self,
        scope: &SessionScope,
        live_only: bool,
        after: Option<&ProcessId>,
        limit: u32,
    ) -> HandleGrantPage {
        let limit = limit.clamp(1, ProcessPage::MAX_LIMIT) as usize;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let of_scope = self.grants.get(scope).into_iter();
        let mut shown = of_scope
            .flat_map(|granted| granted.range::<ProcessId, _>((from, Bound::Unbounded)))
            .filter_map(|(process_id, descriptor)| {
                let record = Arc::clone(&self.processes.get(process_id)?.record);
                Some((ProcessHandleGrant::new(scope.clone(), process_id.clone(), descriptor.clone()), record))
            })
            .filter(|(_, record)| !live_only || !record.status.is_terminal());
        let entries = shown.by_ref().take(limit).collect();
        HandleGrantPage { entries, has_more: shown.next().is_some() }
    }

    fn grants_of_process(&self, process_id: &ProcessId, after: Option<&SessionScope>, limit: u32) -> ProcessGrantPage {
        let limit = limit.clamp(1, ProcessPage::MAX_LIMIT) as usize;
        let mut shown = self.grants.iter().filter(|(scope, _)| after.is_none_or(|after| *scope > after)).filter_map(
            |(scope, granted)| {
                let descriptor = granted.get(process_id)?.clone();
                Some(ProcessHandleGrant::new(scope.clone(), process_id.clone(), descriptor))
            },
        );
        let grants = shown.by_ref().take(limit).collect();
        ProcessGrantPage { grants, has_more: shown.next().is_some() }
    }

    fn pending_wakes(&self, target: &SessionScope, after: Option<WakeCursor>, limit: u32) -> PendingWakePage {
        let limit = limit.clamp(1, EventPage::MAX_LIMIT) as usize;
        let mut shown = self
            .wakes
            .pending(target, after.map_or(0, WakeCursor::place))
            .map(|(position, delivery)| PendingWake { cursor: WakeCursor::new(position), delivery: delivery.clone() });
        let wakes = shown.by_ref().take(limit).collect();
        PendingWakePage { wakes, has_more: shown.next().is_some() }
    }

    fn changes(&self, after: Option<&ChangeCursor>, limit: u32) -> Result<ChangePage, Refusal> {
        if let Some(cursor) = after {
            self.check_cursor(cursor)?;
        }
        let from = after.map_or(0, ChangeCursor::position);
        let index = usize::try_from(from).unwrap_or(usize::MAX).min(self.order.len());
        let mut later = (index as u64 + 1..).zip(&self.order[index..]).filter_map(|(position, entry)| {
            let change = match entry {
                Entry::Event(process_id, sequence) => {
                    ProcessChange::Event(self.processes.get(process_id).and_then(|process| process.event(*sequence))?)
                }
                Entry::Pruned { tombstone, .. } => ProcessChange::Pruned(tombstone.clone()),
                Entry::SessionDeleted { deletion, .. } => ProcessChange::SessionDeleted(deletion.clone()),
                Entry::Gone => return None,
            };
            Some(FeedEntry { cursor: self.cursor_at(position), change })
        });
        let limit = limit.clamp(1, EventPage::MAX_LIMIT) as usize;
        let entries: Vec<FeedEntry> = later.by_ref().take(limit).collect();
        let has_more = later.next().is_some();
        let next = match entries.last() {
            Some(last) => last.cursor.clone(),
            None => after.cloned().unwrap_or_else(|| self.cursor_at(0)),
        };
        Ok(ChangePage { entries, next, safe_through: self.cursor_at(self.last_retained()), has_more })
    }

    /// Refuses a cursor that is not of this store as it is.
    pub(super) fn check_cursor(&self, cursor: &ChangeCursor) -> Result<(), Refusal> {
        cursor.check(self.store_id(), EPOCH).map_err(Refusal::Cursor)?;
        let position = cursor.position();
        let is_beyond = position > self.order.len() as u64;
        // What is gone says nothing of the cursor.
        if is_beyond || self.link_at(position).is_some_and(|link| link != cursor.link()) {
            return Err(Refusal::Cursor(CursorFault::Rewound));
        }
        Ok(())
    }

    fn cursor_at(&self, position: u64) -> ChangeCursor {
        let link = self.link_at(position).unwrap_or_default();
        ChangeCursor::new(Arc::clone(self.store_id()), EPOCH, position, link)
    }

    fn link_at(&self, position: u64) -> Option<[u8; 8]> {
        if position == 0 {
            return Some([0; 8]);
        }
        let index = usize::try_from(position).ok()?.checked_sub(1)?;
        match self.order.get(index)? {
            Entry::Event(process_id, sequence) => {
                self.processes.get(process_id)?.at(*sequence).map(|stored| stored.chain.short())
            }
            Entry::Pruned { link, .. } | Entry::SessionDeleted { link, .. } => Some(*link),
            Entry::Gone => None,
        }
    }

    fn last_retained(&self) -> u64 {
        let last = self.order.iter().rposition(|entry| !matches!(entry, Entry::Gone));
        last.map_or(0, |index| index as u64 + 1)
    }
}

fn page_of_events(mut events: impl Iterator<Item = Arc<ProcessEvent>>, limit: u32) -> EventPage {
    let limit = limit.clamp(1, EventPage::MAX_LIMIT) as usize;
    let taken = events.by_ref().take(limit).collect();
    EventPage { events: taken, has_more: events.next().is_some() }
}

//! What was recorded: the calls, and what was stored in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use registry_actor::domain::{
    Command, ProcessEvent, ProcessId, ProcessListFilter, Receipt, RegistryCommand, RegistryReceipt, Sequence,
};
use registry_actor::port::{
    Answer, EventPage, ProcessChange, ProcessRegistry, ProcessRegistryExt, Query, RegistryError, Timestamp,
};

/// A call and its answer.
#[derive(Debug, Clone)]
pub struct RecordedCall {
    /// Who called: a client makes one call at a time, unless it gives one up.
    pub client: u32,
    /// When it began and when it was answered.
    pub span: Span,
    /// What was asked.
    pub asked: Asked,
    /// What was answered; `None` if the caller went away before.
    pub answered: Option<Answered>,
}

/// When a call was under way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Span {
    /// Logical time of its begin: no two begins or ends of a history have the same.
    pub start: u64,
    /// Logical time of its end; `None` if there was none.
    pub end: Option<u64>,
    /// The clocks at its begin.
    pub from: Timestamp,
    /// The clocks at its end.
    pub to: Timestamp,
}

/// What was asked.
#[derive(Debug, Clone, PartialEq)]
pub enum Asked {
    /// A command of one process.
    Execute(ProcessId, Command),
    /// A command across processes.
    Across(RegistryCommand),
    /// A read.
    Query(Query),
}

/// What was answered.
#[derive(Debug, Clone, PartialEq)]
pub enum Answered {
    /// To a command of one process.
    Execute(Result<Receipt, RegistryError>),
    /// To a command across processes.
    Across(Result<RegistryReceipt, RegistryError>),
    /// To a read.
    Query(Result<Answer, RegistryError>),
}

/// The events of one life of a process, from its registration at 0.
#[derive(Debug, Clone, PartialEq)]
pub struct Life {
    /// Ascending.
    pub events: Vec<Arc<ProcessEvent>>,
    /// Whether it was pruned.
    pub pruned: bool,
}

/// Everything that was recorded of one registry, from its empty beginning to a point at which no call was under way.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// In the order of their begins.
    pub calls: Vec<RecordedCall>,
    /// What is stored at the end: all lives that are retained, and of pruned ones those of which the events are known.
    pub lives: BTreeMap<(ProcessId, u32), Life>,
    /// The whole feed at the end.
    pub feed: Vec<ProcessChange>,
}

impl History {
    /// Reads the end of the history from a registry on which no call is under way.
    ///
    /// # Errors
    /// Those of the reads.
    pub async fn read<R: ProcessRegistry + ?Sized>(
        calls: Vec<RecordedCall>,
        registry: &R,
    ) -> Result<Self, RegistryError> {
        let feed = whole_feed(registry).await?;
        let mut lives = BTreeMap::new();
        for record in registry.list_processes(ProcessListFilter::any()).await? {
            let is_registration = |change: &&ProcessChange| {
                matches!(change, ProcessChange::Event(event)
                    if event.process_id == *record.id() && event.sequence == Sequence::REGISTRATION)
            };
            // Pages leave the registration out: only the feed has it.
            let mut events: Vec<_> = feed
                .iter()
                .filter(is_registration)
                .filter_map(|change| match change {
                    ProcessChange::Event(event) => Some(Arc::clone(event)),
                    _ => None,
                })
                .collect();
            events.extend(registry.events_after(record.id(), Sequence::REGISTRATION).await?);
            lives.insert((record.id().clone(), record.generation), Life { events, pruned: false });
        }
        Ok(Self { calls, lives, feed })
    }

    /// Every process of which anything is known.
    #[must_use]
    pub fn process_ids(&self) -> BTreeSet<ProcessId> {
        let asked = self.calls.iter().filter_map(|call| call.asked.process_id().cloned());
        asked.chain(self.lives.keys().map(|(process_id, _)| process_id.clone())).collect()
    }
}

impl Asked {
    /// The one process that it concerns, if it concerns one.
    #[must_use]
    pub const fn process_id(&self) -> Option<&ProcessId> {
        match self {
            Self::Execute(process_id, _)
            | Self::Query(
                Query::Process { process_id }
                | Query::Tombstone { process_id }
                | Query::RecentEvents { process_id, .. }
                | Query::CountEventsThrough { process_id, .. }
                | Query::WakeEvents { process_id, .. }
                | Query::Events { process_id, .. }
                | Query::FirstEventOfType { process_id, .. }
                | Query::Lease { process_id },
            ) => Some(process_id),
            Self::Across(_) | Self::Query(_) => None,
        }
    }
}

/// All changes that a registry retains.
///
/// # Errors
/// Those of the reads.
pub async fn whole_feed<R: ProcessRegistry + ?Sized>(registry: &R) -> Result<Vec<ProcessChange>, RegistryError> {
    let (mut feed, mut after) = (Vec::new(), None);
    loop {
        let page = registry.changes_since(after, EventPage::MAX_LIMIT).await?;
        let (next, has_more) = (page.next.clone(), page.has_more);
        feed.extend(page.into_changes());
        if !has_more {
            return Ok(feed);
        }
        after = Some(next);
    }
}

//! Where processes are read from: a store, beside its host or at rest, or a host that is asked.
//!
//! It owns that both answer alike. It does not know how one of them was chosen.

use std::{fmt, path::PathBuf, sync::Arc};

use registry_actor::{
    domain::{ProcessId, ProcessListFilter, Sequence},
    port::ProcessRegistryExt,
};
use serde_json::Value;

use crate::{
    api::process_view::ProcessView,
    client::{EventPage, HostClient, HostPlace, ProcessPage},
    event_view::EventView,
    failure::{Failure, FailureKind},
    store::StoreReader,
};

/// The most processes that a page has.
pub(crate) const PAGE_PROCESSES: u32 = 500;

/// The most events that a page has.
pub(crate) const PAGE_EVENTS: u32 = 1_000;

/// A source. Clones read the same.
#[derive(Clone, Debug)]
pub(crate) enum ProcessSource {
    /// A file, and where its host listens if there is one.
    Store {
        /// The store.
        reader: Arc<StoreReader>,
        /// The socket of its host.
        socket: PathBuf,
    },
    /// A host.
    Host(HostClient),
}

impl ProcessSource {
    /// A store, whose host listens on this socket if there is one.
    pub(crate) fn of_store(reader: StoreReader, socket: PathBuf) -> Self {
        Self::Store { reader: Arc::new(reader), socket }
    }

    /// A host.
    pub(crate) const fn of_host(client: HostClient) -> Self {
        Self::Host(client)
    }

    /// The host, if there is one just now.
    ///
    /// # Errors
    /// When there is one that we may not talk to.
    pub(crate) fn host(&self) -> Result<Option<HostClient>, Failure> {
        match self {
            Self::Store { socket, .. } => HostClient::at_socket(socket),
            Self::Host(client) => Ok(Some(client.clone())),
        }
    }

    /// The host that can be asked to read. A store whose host we may not talk to is read as one that has none.
    pub(crate) fn reading_host(&self) -> Option<HostClient> {
        self.host().unwrap_or_default()
    }

    /// The name of the field that says in JSON where a process is, and its value.
    pub(crate) fn origin(&self) -> (&'static str, Value) {
        match self {
            Self::Store { reader, .. } => ("store", reader.path().to_string_lossy().into()),
            Self::Host(client) => ("host", client.place().to_string().into()),
        }
    }

    /// Where it is, in a word.
    pub(crate) fn short_name(&self) -> String {
        match self {
            Self::Store { reader, .. } => {
                reader.path().file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
            }
            Self::Host(client) => match client.place() {
                HostPlace::Web(url) => url.authority().to_owned(),
                HostPlace::Socket(path) => {
                    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
                }
            },
        }
    }

    /// The process with its lease, if it is known.
    ///
    /// # Errors
    /// When the source cannot be read.
    pub(crate) async fn process(&self, id: &ProcessId) -> Result<Option<ProcessView>, Failure> {
        match self {
            Self::Store { reader, .. } => {
                let Some(record) = reader.process(id).await? else { return Ok(None) };
                let lease = reader.lease(id).await?;
                Ok(Some(ProcessView::new(&record).held_by(lease.as_ref())))
            }
            Self::Host(client) => Ok(client.process(id.as_str()).await?),
        }
    }

    /// A page of processes by id.
    ///
    /// # Errors
    /// When the source cannot be read.
    pub(crate) async fn processes(
        &self,
        filter: &ProcessListFilter,
        after: Option<String>,
    ) -> Result<ProcessPage, Failure> {
        match self {
            Self::Store { reader, .. } => {
                let after = after.map(ProcessId::new).transpose();
                let after = after.map_err(|error| Failure::new(FailureKind::Software, error.to_string()))?;
                let page = reader.processes(filter.clone(), after, PAGE_PROCESSES).await?;
                let last = page.records.last().filter(|_| page.has_more);
                Ok(ProcessPage {
                    next_after: last.map(|record| record.id().to_string()),
                    damaged_process_ids: page.damaged.iter().map(ToString::to_string).collect(),
                    processes: page.records.iter().map(|record| ProcessView::new(record)).collect(),
                })
            }
            Self::Host(client) => {
                let mut query = query_of(filter)?;
                query.push(("limit", PAGE_PROCESSES.to_string()));
                query.extend(after.map(|after| ("after", after)));
                Ok(client.get(&["processes"], &query).await?)
            }
        }
    }

    /// A page of events behind a place.
    ///
    /// # Errors
    /// When the source cannot be read, or does not know the process.
    pub(crate) async fn events(&self, id: &ProcessId, after: u64, limit: u32) -> Result<EventPage, Failure> {
        let limit = limit.min(PAGE_EVENTS);
        match self {
            Self::Store { reader, .. } => {
                let page = reader.events(id, Sequence(after), limit).await?;
                let last = page.events.last().filter(|_| page.has_more);
                Ok(EventPage {
                    next_after: last.map(|event| event.sequence.0),
                    events: page.events.iter().map(|event| EventView::new(event)).collect(),
                })
            }
            Self::Host(client) => {
                let query = [("after", after.to_string()), ("limit", limit.to_string())];
                Ok(client.get(&["processes", id.as_str(), "events"], &query).await?)
            }
        }
    }

    /// The ids that are known, at most about so many.
    ///
    /// # Errors
    /// When the source cannot be read.
    pub(crate) async fn ids(&self, most: usize) -> Result<Vec<String>, Failure> {
        let mut ids: Vec<String> = Vec::new();
        match self {
            Self::Store { reader, .. } => {
                let mut after = None;
                while ids.len() < most {
                    let page = reader.process_ids(after, PAGE_PROCESSES).await?;
                    let Some(last) = page.last().cloned() else { break };
                    ids.extend(page.iter().map(ToString::to_string));
                    after = Some(last);
                }
            }
            Self::Host(_) => {
                let mut after = None;
                while ids.len() < most {
                    let page = self.processes(&ProcessListFilter::any(), after).await?;
                    ids.extend(page.processes.into_iter().map(|process| process.process_id));
                    let Some(last) = page.next_after else { break };
                    after = Some(last);
                }
            }
        }
        Ok(ids)
    }

    /// How a process ended of which a tombstone is left.
    pub(crate) async fn pruned_as(&self, id: &ProcessId) -> Option<String> {
        match self {
            Self::Store { reader, .. } => {
                let tombstone = reader.get_tombstone(id).await.ok().flatten()?;
                Some(tombstone.terminal_state.to_string())
            }
            // A host says it when it is asked for the process.
            Self::Host(_) => None,
        }
    }
}

impl fmt::Display for ProcessSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store { reader, .. } => write!(f, "{}", reader.path().display()),
            Self::Host(client) => write!(f, "{}", client.place()),
        }
    }
}

/// The filter as a host is told it.
fn query_of(filter: &ProcessListFilter) -> Result<Vec<(&'static str, String)>, Failure> {
    let mut query = Vec::new();
    if let Ok(Value::String(status)) = serde_json::to_value(filter.status) {
        query.push(("status", status));
    }
    query.extend(filter.kind.clone().map(|kind| ("kind", kind)));
    query.extend(filter.label.clone().map(|label| ("label", label)));
    query.extend(filter.waiting.map(|waiting| ("waiting", waiting.to_string())));
    if let Some(tag) = filter.tags.iter().find(|tag| tag.contains(',')) {
        let line = format!("a host cannot be asked for a tag with a comma in it: `{tag}`");
        return Err(Failure::new(FailureKind::Usage, line));
    }
    if !filter.tags.is_empty() {
        query.push(("tags", filter.tags.iter().map(String::as_str).collect::<Vec<_>>().join(",")));
    }
    Ok(query)
}

#[cfg(test)]
mod tests {
    use registry_actor::domain::ProcessStatusFilter;

    use super::*;

    #[test]
    fn a_filter_is_told_as_the_host_reads_it() {
        let mut filter = ProcessListFilter::of_status(ProcessStatusFilter::Running);
        assert_eq!(query_of(&filter).expect("a query"), [("status", "running".to_owned())]);
        filter.tags = ["a".to_owned(), "b=c".to_owned()].into();
        filter.waiting = Some(true);
        let told = query_of(&filter).expect("a query");
        assert_eq!(told[1..], [("waiting", "true".to_owned()), ("tags", "a,b=c".to_owned())]);
        filter.tags.insert("x,y".to_owned());
        assert_eq!(query_of(&filter).expect_err("a comma").kind(), FailureKind::Usage);
    }
}

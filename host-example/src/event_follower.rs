//! The events of a process, those that are there and those that come, however often its host goes and comes.
//!
//! It owns the place in the log from which it goes on: no event is missing, and none comes twice. It does not know how events are shown.

use std::{collections::VecDeque, time::Duration};

use registry_actor::domain::ProcessId;
use tokio::time::Instant;

use crate::{
    api::process_view::ProcessView,
    client::{EventFeed, HostClient, HostError, Told},
    event_view::EventView,
    failure::{Failure, FailureKind},
    process_source::{PAGE_EVENTS, ProcessSource},
    process_wait::{Awaited, HostAbsence, wait_for},
};

/// How long a store without a host is waited for before its record is read again.
const STORE_LOOK_PAUSE: Duration = Duration::from_secs(5);

/// What is followed.
#[derive(Debug)]
pub(crate) enum Followed {
    /// An event.
    Event(Box<EventView>),
    /// The process has ended, and all of its events were told.
    End(Box<ProcessView>),
}

/// Follows one process.
pub(crate) struct EventFollower {
    source: ProcessSource,
    id: ProcessId,
    generation: u32,
    after: u64,
    read: VecDeque<EventView>,
    feed: Option<EventFeed>,
    absence: HostAbsence,
}

impl EventFollower {
    /// Follows a process from behind a place in its log on.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) async fn new(source: ProcessSource, id: ProcessId, after: u64) -> Result<Self, Failure> {
        let generation = known(&source, &id).await?.generation;
        Ok(Self { source, id, generation, after, read: VecDeque::new(), feed: None, absence: HostAbsence::default() })
    }

    /// What comes next.
    ///
    /// # Errors
    /// When nothing will come any more, or it cannot be read.
    pub(crate) async fn next(&mut self) -> Result<Followed, Failure> {
        loop {
            if let Some(event) = self.read.pop_front() {
                self.after = event.sequence;
                return Ok(Followed::Event(Box::new(event)));
            }
            let followed = match (self.feed.take(), self.source.reading_host()) {
                (Some(feed), _) => self.told(feed).await,
                (None, Some(host)) => self.open(&host).await,
                (None, None) => Err(HostError::Unreachable("the host is gone".to_owned())),
            };
            match followed {
                Ok(Some(followed)) => return Ok(followed),
                Ok(None) => {}
                Err(error) if !error.is_passing() => return Err(error.into()),
                Err(error) => match &self.source {
                    ProcessSource::Store { .. } => {
                        if let Some(end) = self.read_store().await? {
                            return Ok(end);
                        }
                    }
                    ProcessSource::Host(_) => self.absence.pass(&error, None).await,
                },
            }
        }
    }

    async fn open(&mut self, host: &HostClient) -> Result<Option<Followed>, HostError> {
        let place = format!("{}.{}", self.generation, self.after);
        self.feed = host.follow(self.id.as_str(), &place).await?;
        self.absence = HostAbsence::default();
        if self.feed.is_some() {
            return Ok(None);
        }
        // Everything was told before.
        Ok(host.process(self.id.as_str()).await?.map(|process| Followed::End(Box::new(process))))
    }

    async fn told(&mut self, mut feed: EventFeed) -> Result<Option<Followed>, HostError> {
        match feed.next().await? {
            Told::Event { place, event } => {
                if let Some((generation, sequence)) = place_of(&place) {
                    (self.generation, self.after) = (generation, sequence);
                }
                self.feed = Some(feed);
                Ok(Some(Followed::Event(event)))
            }
            Told::End(process) => Ok(Some(Followed::End(process))),
            Told::Stopping => Err(HostError::Lost("the host is stopping".to_owned())),
        }
    }

    /// Reads on in a store that has no host, or waits for something to read.
    async fn read_store(&mut self) -> Result<Option<Followed>, Failure> {
        // The record first: what ended before it was read is in the page.
        let process = known(&self.source, &self.id).await?;
        if process.generation != self.generation {
            (self.generation, self.after) = (process.generation, 0);
        }
        let page = self.source.events(&self.id, self.after, PAGE_EVENTS).await?;
        if !page.events.is_empty() {
            self.read.extend(page.events);
            return Ok(None);
        }
        if process.outcome.is_some() {
            return Ok(Some(Followed::End(Box::new(process))));
        }
        let awaited = Awaited::Event { event_type: "*".to_owned(), after: self.after };
        wait_for(&self.source, &self.id, &awaited, Some(Instant::now() + STORE_LOOK_PAUSE)).await?;
        Ok(None)
    }
}

async fn known(source: &ProcessSource, id: &ProcessId) -> Result<ProcessView, Failure> {
    let process = source.process(id).await?;
    process.ok_or_else(|| Failure::new(FailureKind::NoInput, format!("process `{id}` was pruned")))
}

/// The life and the place in its log of an event.
fn place_of(text: &str) -> Option<(u32, u64)> {
    let (generation, sequence) = text.split_once('.')?;
    Some((generation.parse().ok()?, sequence.parse().ok()?))
}

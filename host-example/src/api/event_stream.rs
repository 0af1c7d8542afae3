//! The events of one process as one stream: what the log has, and then what comes.
//!
//! Live and past events go one way: after each tick of the process the log is read behind the last event that was told. It owns the place
//! in the log by which a stream is taken up again. It does not know how it is sent.

use std::{collections::VecDeque, fmt, str::FromStr, sync::Arc};

use awaiter::HubSubscription;
use axum::http::StatusCode;
use registry_actor::{
    domain::{ProcessEvent, ProcessId, ProcessRecord, Sequence},
    port::ProcessRegistryExt,
};

use super::{Api, event_view::EventView, problem::Problem, process_routes::known, process_view::ProcessView};

/// How many events are read at a time, and held for a reader that is slow.
const PAGE: u32 = 100;

/// A place in the log of a process: which life of its id, and behind which event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct EventPlace {
    generation: u32,
    sequence: u64,
}

impl fmt::Display for EventPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.generation, self.sequence)
    }
}

impl FromStr for EventPlace {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let read = || {
            let (generation, sequence) = text.split_once('.')?;
            Some(Self { generation: generation.parse().ok()?, sequence: sequence.parse().ok()? })
        };
        read().ok_or_else(|| {
            let detail = format!("expected the id of an event such as `1.17` in `Last-Event-ID`, found {text:?}");
            Problem::new(StatusCode::BAD_REQUEST, "invalid_event_id", detail)
        })
    }
}

/// What a stream tells.
pub(super) enum Told {
    /// An event.
    Event {
        /// Where to go on behind it.
        place: EventPlace,
        /// The event.
        event: EventView,
    },
    /// The process has ended, and all of its events were told.
    End(Box<ProcessView>),
    /// The host goes down: go on with the next one.
    Stopping,
    /// The log could not be read.
    Failed(Problem),
}

/// The stream of one process.
pub(super) struct EventStream {
    api: Arc<Api>,
    process_id: ProcessId,
    generation: u32,
    after: Sequence,
    read: VecDeque<Arc<ProcessEvent>>,
    ticks: HubSubscription<ProcessId>,
    is_over: bool,
}

impl EventStream {
    /// A stream that begins behind a place, or with the first event.
    ///
    /// # Errors
    /// When the place is not one of this process.
    pub(super) fn new(
        api: Arc<Api>,
        process_id: ProcessId,
        record: &ProcessRecord,
        from: Option<EventPlace>,
    ) -> Result<Self, Problem> {
        let generation = record.generation;
        let after = match from {
            Some(place) if place.generation > generation => {
                let detail =
                    format!("process `{process_id}` is in its life {generation}, and `{place}` is of a later one");
                return Err(Problem::new(StatusCode::BAD_REQUEST, "invalid_event_id", detail));
            }
            Some(place) if place.generation == generation => place.sequence,
            // Of an earlier life nothing is left. This one is told from its first event.
            Some(_) | None => 0,
        };
        let ticks = api.hub.subscribe(&process_id);
        Ok(Self { api, process_id, generation, after: Sequence(after), read: VecDeque::new(), ticks, is_over: false })
    }

    /// What is told next; `None` when it is over. To drop the future loses nothing.
    pub(super) async fn next(&mut self) -> Option<Told> {
        loop {
            if let Some(event) = self.read.pop_front() {
                self.after = event.sequence;
                let place = EventPlace { generation: self.generation, sequence: event.sequence.0 };
                return Some(Told::Event { place, event: EventView::new(&event) });
            }
            if self.is_over {
                return None;
            }
            match self.look().await {
                Ok(None) => {}
                Ok(Some(told)) => {
                    self.is_over = true;
                    return Some(told);
                }
                Err(problem) => {
                    self.is_over = true;
                    return Some(Told::Failed(problem));
                }
            }
        }
    }

    /// Reads on, or waits for something to read. Answers what the stream ends with.
    async fn look(&mut self) -> Result<Option<Told>, Problem> {
        // The record first: what ended before it was read is in the page.
        let record = known(&self.api, &self.process_id).await?;
        if record.generation != self.generation {
            self.generation = record.generation;
            self.after = Sequence(0);
        }
        let page = self.api.host.registry.events_page(&self.process_id, self.after, PAGE).await?;
        if !page.events.is_empty() {
            self.read.extend(page.events);
            return Ok(None);
        }
        if record.status.await_output().is_some() {
            return Ok(Some(Told::End(Box::new(ProcessView::new(&record)))));
        }
        tokio::select! {
            ticked = self.ticks.ticked() => match ticked {
                Ok(()) => Ok(None),
                Err(_) => Ok(Some(Told::Stopping)),
            },
            () = self.api.stopped() => Ok(Some(Told::Stopping)),
        }
    }
}

//! The events of one process as one stream: what the log has, and then what comes.
//!
//! Live and past events go one way: after each tick of the process the log is read behind the last event that was told. It owns the place
//! in the log by which a stream is taken up again. It does not know how it is sent.

use std::{collections::VecDeque, fmt, str::FromStr, sync::Arc};

use awaiter::HubSubscription;
use axum::http::StatusCode;
use registry_actor::{
    domain::{ProcessEvent, ProcessId, ProcessRecord, Sequence},
    port::{ProcessRegistry, ProcessRegistryExt},
};

use super::{Api, page_budget::PageBudget, problem::Problem, process_routes::known_to, process_view::ProcessView};
use crate::event_view::EventView;

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
            let place = Self { generation: generation.parse().ok()?, sequence: sequence.parse().ok()? };
            // One text for each place, and no life before the first.
            (place.generation > 0 && place.to_string() == text).then_some(place)
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
    /// How much is read ahead, and held for a reader that is slow.
    budget: PageBudget,
    ticks: HubSubscription<ProcessId>,
    is_over: bool,
}

impl EventStream {
    /// A stream that begins behind a place, or with the first event.
    ///
    /// # Errors
    /// When the place is not one of this process.
    pub(super) async fn new(
        api: Arc<Api>,
        process_id: ProcessId,
        record: &ProcessRecord,
        from: Option<EventPlace>,
    ) -> Result<Self, Problem> {
        let generation = record.generation;
        let after = match from {
            Some(place) if place.generation > generation => return Err(foreign(&process_id, place)),
            Some(place) if place.generation == generation => {
                if !is_there(&api.host.registry, &process_id, place.sequence).await? {
                    return Err(foreign(&process_id, place));
                }
                place.sequence
            }
            // Of an earlier life nothing is left. This one is told from its first event.
            Some(_) | None => 0,
        };
        let ticks = api.hub.subscribe(&process_id);
        Ok(Self {
            api,
            process_id,
            generation,
            after: Sequence(after),
            read: VecDeque::new(),
            budget: PageBudget::of_stream(),
            ticks,
            is_over: false,
        })
    }

    /// What is told next; `None` when it is over. To drop the future loses nothing.
    pub(super) async fn next(&mut self) -> Option<Told> {
        loop {
            // At once, whatever is left to read: a reader that is slow would hold up the stop, and can go on at the next host.
            if self.api.is_stopping() && !self.is_over {
                self.is_over = true;
                self.read.clear();
                return Some(Told::Stopping);
            }
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
        self.budget.clear();
        let place = (self.generation, self.after);
        let found = look_behind(&self.api.host.registry, &self.process_id, place, &mut self.budget).await?;
        let Found { record, events } = found;
        if record.generation != self.generation {
            self.generation = record.generation;
            self.after = Sequence(0);
        }
        if !events.is_empty() {
            self.read.extend(events);
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

/// A place that the process has not reached: the store was restored since, most likely, and what was told there is to come once more.
fn foreign(process_id: &ProcessId, place: EventPlace) -> Problem {
    let detail = format!("process `{process_id}` has no event `{place}`: it has not come so far");
    Problem::new(StatusCode::CONFLICT, "foreign_event_id", detail)
}

/// Whether a process has come so far.
async fn is_there(registry: &dyn ProcessRegistry, process_id: &ProcessId, sequence: u64) -> Result<bool, Problem> {
    let Some(before) = sequence.checked_sub(1) else { return Ok(true) };
    let page = registry.events_page(process_id, Sequence(before), 1).await?;
    Ok(!page.events.is_empty())
}

/// What stands behind a place: events of one life, and the record of that life as it was before they were read.
#[derive(Debug)]
struct Found {
    record: Arc<ProcessRecord>,
    events: Vec<Arc<ProcessEvent>>,
}

/// Reads behind a place of a life. Of another life, which took its place meanwhile, from its first event.
async fn look_behind(
    registry: &dyn ProcessRegistry,
    process_id: &ProcessId,
    (generation, after): (u32, Sequence),
    budget: &mut PageBudget,
) -> Result<Found, Problem> {
    // The record first: what ended before it was read is in the page.
    let mut record = known_to(registry, process_id).await?;
    loop {
        let after = if record.generation == generation { after } else { Sequence(0) };
        let page = registry.events_page(process_id, after, budget.next_read().unwrap_or(1)).await;
        // Two reads are two moments: between them the process may have been pruned, and its id may live again.
        let now = known_to(registry, process_id).await?;
        if now.generation == record.generation {
            let mut events = page?.events;
            events.truncate(budget.admit(&events));
            return Ok(Found { record, events });
        }
        record = now;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;
    use registry_actor::{
        actor::{ActorRegistry, RegistryOptions},
        domain::{
            Command, ProcessAwaitOutput, ProcessEventAppendRequest, ProcessEventType, ProcessInput,
            ProcessRegistration, ProjectionWatermark, PruneFilter, Receipt, RecoveryDisposition, RegistryCommand,
            RegistryReceipt,
        },
        log::MemoryLog,
        port::{Answer, DurabilityTier, Query, RegistryError},
    };
    use serde_json::{Value, json};

    use super::*;

    /// What happens before the next page of events is read.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    enum Meanwhile {
        Nothing,
        Pruned,
        LivesAgain,
    }

    /// A registry in which something happens between two reads.
    struct Interrupted {
        registry: ActorRegistry,
        meanwhile: Mutex<Meanwhile>,
    }

    #[async_trait]
    impl ProcessRegistry for Interrupted {
        async fn execute(&self, process_id: &ProcessId, command: Command) -> Result<Receipt, RegistryError> {
            self.registry.execute(process_id, command).await
        }

        async fn execute_across(&self, command: RegistryCommand) -> Result<RegistryReceipt, RegistryError> {
            self.registry.execute_across(command).await
        }

        async fn query(&self, query: Query) -> Result<Answer, RegistryError> {
            if let Query::Events { process_id, .. } = &query {
                let meanwhile = std::mem::replace(&mut *self.meanwhile.lock().expect("a lock"), Meanwhile::Nothing);
                if meanwhile != Meanwhile::Nothing {
                    let filter = PruneFilter::ended_before(u64::MAX);
                    self.registry.prune_terminal_processes(filter, ProjectionWatermark::NoProjector).await?;
                }
                if meanwhile == Meanwhile::LivesAgain {
                    live(&self.registry, process_id, &["second"; 4]).await;
                }
            }
            self.registry.query(query).await
        }

        fn durability_tier(&self) -> DurabilityTier {
            self.registry.durability_tier()
        }
    }

    /// A life with events that say which it is, and its end.
    async fn live(registry: &ActorRegistry, id: &ProcessId, says: &[&str]) {
        let input = ProcessInput::new("test", Value::Null);
        let registration = ProcessRegistration::new(id.clone(), input, RecoveryDisposition::ExternallyOwned)
            .with_extra_event_types([ProcessEventType::plain("said")]);
        registry.register_process(registration).await.expect("registered");
        let events = says.iter().map(|word| ProcessEventAppendRequest::new("said", json!(word))).collect();
        registry.append_events(id, events).await.expect("appended");
        registry.complete_process(id, ProcessAwaitOutput::success(Value::Null)).await.expect("completed");
    }

    /// Reads behind the first event of the first life, of two and an end, while something happens.
    async fn found(meanwhile: Meanwhile) -> Result<(u32, Vec<Value>), Problem> {
        let log = Arc::new(MemoryLog::new("a store"));
        let registry = ActorRegistry::start(log, RegistryOptions::default()).await.expect("a registry");
        let id = ProcessId::new("p").expect("an id");
        live(&registry, &id, &["first"; 2]).await;
        let interrupted = Interrupted { registry, meanwhile: Mutex::new(meanwhile) };
        let found = look_behind(&interrupted, &id, (1, Sequence(1)), &mut PageBudget::of_stream()).await?;
        let said = found.events.iter().filter(|event| &*event.event_type == "said");
        Ok((found.record.generation, said.map(|event| event.payload.clone()).collect()))
    }

    #[tokio::test]
    async fn hardly_more_than_a_stream_may_hold_is_read_ahead() {
        let log = Arc::new(MemoryLog::new("a store"));
        let registry = ActorRegistry::start(log, RegistryOptions::default()).await.expect("a registry");
        let id = ProcessId::new("p").expect("an id");
        live(&registry, &id, &["x".repeat(700_000).as_str(); 4]).await;
        let (mut budget, mut after) = (PageBudget::of_stream(), Sequence(0));
        for _ in 0..4 {
            budget.clear();
            let found = look_behind(&registry, &id, (1, after), &mut budget).await.expect("found");
            assert_eq!(found.events.len(), 1);
            after = found.events[0].sequence;
        }
        assert_eq!(after, Sequence(4));
    }

    #[tokio::test]
    async fn a_life_is_read_on_behind_its_place() {
        assert_eq!(found(Meanwhile::Nothing).await, Ok((1, vec![json!("first")])));
    }

    #[tokio::test]
    async fn a_life_that_took_the_place_of_another_between_two_reads_is_told_from_its_first_event() {
        assert_eq!(found(Meanwhile::LivesAgain).await, Ok((2, vec![json!("second"); 4])));
    }

    #[tokio::test]
    async fn what_was_pruned_between_two_reads_is_gone_and_not_unknown() {
        assert_eq!(found(Meanwhile::Pruned).await.expect_err("gone").status, 410);
    }
}

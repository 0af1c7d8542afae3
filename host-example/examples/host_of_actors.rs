//! A host that is made of actors: it supervises the registry as it supervises its own.
//!
//! ```text
//! Host ─┬─ the registry
//!       ├─ Worker: takes orders; owns a process while it works, and says what came of it
//!       └─ Customer: starts a process, hears what becomes of it, and gets the outcome as a message
//! ```
//!
//! Nobody stands still for an outcome, and nobody polls. Run it with `cargo run -p host-example --example host_of_actors`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use registry_actor::actor::{ActorRegistry, ActorWait, ProcessNews, ProcessSubscription, RegistryOptions, Told};
use registry_actor::domain::{
    LeaseRelease, ProcessAwaitOutput, ProcessEvent, ProcessEventAppendRequest, ProcessEventType, ProcessId,
    ProcessInput, ProcessRegistration, RecoveryDisposition, Sequence,
};
use registry_actor::log::{SqliteLog, SqliteOptions};
use registry_actor::port::{EngineError, ProcessRegistryExt, RegistryError};
use serde_json::json;
use tokio::sync::{mpsc, oneshot};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let (say, mut said) = mpsc::unbounded_channel();
    let host = tokio::spawn(run_host(directory.path().join("store.db"), say));
    while let Some(line) = said.recv().await {
        println!("{line}");
    }
    host.await?
}

/// Runs the host to its end.
async fn run_host(store: PathBuf, say: Say) -> anyhow::Result<()> {
    let (done, is_done) = oneshot::channel();
    let (_, task) = Actor::spawn(None, Host, HostArguments { store, say, done }).await?;
    task.await?;
    is_done.await.map_err(|_| anyhow::anyhow!("the host ended before its work was done"))
}

/// Where the customer says what it hears.
type Say = mpsc::UnboundedSender<String>;

/// The supervisor of everything.
struct Host;

struct HostArguments {
    store: PathBuf,
    say: Say,
    done: oneshot::Sender<()>,
}

struct HostState {
    registry: ActorRegistry,
    worker: ActorRef<Order>,
    customer: ActorRef<ToCustomer>,
    done: Option<oneshot::Sender<()>>,
}

/// What the host hears: its customer has what it wanted.
struct CustomerIsServed;

impl Actor for Host {
    type Msg = CustomerIsServed;
    type State = HostState;
    type Arguments = HostArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<CustomerIsServed>,
        HostArguments { store, say, done }: HostArguments,
    ) -> Result<HostState, ActorProcessingErr> {
        let supervisor = myself.get_cell();
        let log = Arc::new(open(&store)?);
        let registry = ActorRegistry::start_linked(log, RegistryOptions::default(), supervisor.clone()).await?;
        let (worker, _) = Actor::spawn_linked(None, Worker, registry.clone(), supervisor.clone()).await?;
        let arguments = CustomerArguments { registry: registry.clone(), worker: worker.clone(), host: myself, say };
        let (customer, _) = Actor::spawn_linked(None, Customer, arguments, supervisor).await?;
        Ok(HostState { registry, worker, customer, done: Some(done) })
    }

    /// In order: whoever uses the registry, then the registry, then the host.
    async fn handle(
        &self,
        myself: ActorRef<CustomerIsServed>,
        CustomerIsServed: CustomerIsServed,
        host: &mut HostState,
    ) -> Result<(), ActorProcessingErr> {
        host.customer.stop_and_wait(None, None).await?;
        host.worker.stop_and_wait(None, None).await?;
        host.registry.shut_down(Duration::from_secs(10)).await;
        if let Some(done) = host.done.take() {
            // Only a caller that has gone away does not hear of it.
            let _ = done.send(());
        }
        myself.stop(None);
        Ok(())
    }

    /// The registry starts its own actors again; whatever fails here fails the host, and everything goes down with it.
    /// What was committed is in the store.
    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<CustomerIsServed>,
        event: SupervisionEvent,
        _: &mut HostState,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(_, error) => Err(error),
            _ => Ok(()),
        }
    }
}

fn open(store: &Path) -> Result<SqliteLog, ActorProcessingErr> {
    Ok(SqliteLog::open(store, SqliteOptions::default())?)
}

/// Does the work.
struct Worker;

/// A process to be carried out.
struct Order(ProcessId);

impl Actor for Worker {
    type Msg = Order;
    type State = ActorRegistry;
    type Arguments = ActorRegistry;

    async fn pre_start(
        &self,
        _: ActorRef<Order>,
        registry: ActorRegistry,
    ) -> Result<ActorRegistry, ActorProcessingErr> {
        Ok(registry)
    }

    /// Becomes the one owner of the process, works, and says what came of it, fenced by the lease.
    async fn handle(
        &self,
        _: ActorRef<Order>,
        Order(id): Order,
        registry: &mut ActorRegistry,
    ) -> Result<(), ActorProcessingErr> {
        let me = registry.owner("worker");
        let lease = registry.claim_process_lease(&id, me, 30_000).await?.acquired().ok_or("held by another")?;
        for word in ["hello", "world"] {
            let said = ProcessEventAppendRequest::new("greeting.said", json!({ "text": word }));
            registry.append_events_fenced(&id, vec![said], lease.fence()).await?;
        }
        let output = ProcessAwaitOutput::success(json!({ "words": 2 }));
        registry.complete_process_fenced(&id, output, lease.fence(), LeaseRelease::Release).await?;
        Ok(())
    }
}

/// Wants something done.
struct Customer;

struct CustomerArguments {
    registry: ActorRegistry,
    worker: ActorRef<Order>,
    host: ActorRef<CustomerIsServed>,
    say: Say,
}

struct CustomerState {
    registry: ActorRegistry,
    host: ActorRef<CustomerIsServed>,
    say: Say,
    process_id: ProcessId,
    /// The last event that it knows.
    heard: Sequence,
    // They end with the actor, however it ends.
    _subscription: ProcessSubscription,
    _wait: ActorWait,
}

/// What the customer hears.
enum ToCustomer {
    News(ProcessNews),
    Outcome(Result<ProcessAwaitOutput, EngineError>),
}

impl Actor for Customer {
    type Msg = ToCustomer;
    type State = CustomerState;
    type Arguments = CustomerArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<ToCustomer>,
        CustomerArguments { registry, worker, host, say }: CustomerArguments,
    ) -> Result<CustomerState, ActorProcessingErr> {
        let process_id = ProcessId::new("greeting-1")?;
        let input = ProcessInput::new("greeting", json!({ "name": "world" }));
        let registration = ProcessRegistration::new(process_id.clone(), input, RecoveryDisposition::Rerunnable)
            .with_extra_event_types([ProcessEventType::plain("greeting.said")]);
        registry.register_process(registration).await?;
        let subscription = registry.subscribe(&process_id, myself.clone(), ToCustomer::News);
        let wait = registry.await_terminal_by_message(&process_id, myself, ToCustomer::Outcome);
        worker.cast(Order(process_id.clone()))?;
        let heard = Sequence::REGISTRATION;
        Ok(CustomerState { registry, host, say, process_id, heard, _subscription: subscription, _wait: wait })
    }

    /// Subscribed first, now read: nothing falls between.
    async fn post_start(
        &self,
        _: ActorRef<ToCustomer>,
        customer: &mut CustomerState,
    ) -> Result<(), ActorProcessingErr> {
        Ok(customer.read_on().await?)
    }

    async fn handle(
        &self,
        _: ActorRef<ToCustomer>,
        message: ToCustomer,
        customer: &mut CustomerState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ToCustomer::News(news) => match news.told {
                Told::Committed { missed: None, events, .. } => customer.hear(&events),
                Told::Committed { missed: Some(_), .. } | Told::Resync => customer.read_on().await?,
                Told::Pruned { .. } | Told::Closed => {}
            },
            ToCustomer::Outcome(outcome) => {
                let outcome = outcome?;
                // It may have overtaken the last news.
                customer.read_on().await?;
                customer.say(format!("outcome: {}", serde_json::to_string(&outcome)?));
                customer.host.cast(CustomerIsServed)?;
            }
        }
        Ok(())
    }
}

impl CustomerState {
    /// Reads what the log has after the last event that it knows.
    async fn read_on(&mut self) -> Result<(), RegistryError> {
        loop {
            let page = self.registry.events_page(&self.process_id, self.heard, 100).await?;
            self.hear(&page.events);
            if !page.has_more {
                return Ok(());
            }
        }
    }

    /// What was read may be told again: each event is heard once.
    fn hear(&mut self, events: &[Arc<ProcessEvent>]) {
        for event in events.iter().filter(|event| event.sequence > self.heard).collect::<Vec<_>>() {
            self.heard = event.sequence;
            self.say(format!("{} {} {}", event.sequence, event.event_type, event.payload));
        }
    }

    fn say(&self, line: String) {
        // The customer goes on when nobody listens.
        let _ = self.say.send(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_customer_hears_everything_once_and_the_host_ends() {
        let directory = tempfile::tempdir().expect("a directory can be made");
        let store = directory.path().join("store.db");
        let (say, mut said) = mpsc::unbounded_channel();
        let host = tokio::time::timeout(Duration::from_secs(60), run_host(store.clone(), say)).await;
        host.expect("the host ends").expect("its work is done");
        let mut heard = Vec::new();
        while let Some(line) = said.recv().await {
            heard.push(line);
        }
        assert_eq!(heard.len(), 4, "{heard:#?}");
        assert_eq!(heard[..2], [r#"1 greeting.said {"text":"hello"}"#, r#"2 greeting.said {"text":"world"}"#]);
        assert!(heard[2].starts_with("3 process.completed "), "{heard:#?}");
        assert!(heard[3].starts_with("outcome: ") && heard[3].contains(r#"{"words":2}"#), "{heard:#?}");
        open(&store).expect("the store was closed, so it can be opened again");
    }
}

//! A registry over a socket: who may connect, what is refused, what a broken line means, and what a slow client costs. That it
//! is a registry like any other is shown by the suites of registries and of watching, which have a line for it.

use std::collections::BTreeMap;
use std::future::Future;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use registry_actor::actor::{ActorRegistry, RegistryOptions};
use registry_actor::domain::{
    Command, LeaseOwnerIdentity, LeaseOwnerLiveness, Measure, ProcessAwaitOutput, ProcessEventAppendRequest,
    ProcessHandleDescriptor, ProcessId, ProcessLease, ProcessLeaseClaimOutcome, ProcessStarted, Receipt, Refusal,
    RegistryCommand, RegistryReceipt, Sequence, SessionDeletion, SessionScope, StoreSession, Tombstone,
};
use registry_actor::log::MemoryLog;
use registry_actor::port::{
    Answer, ChangeSource, CommitListener, CommittedBatch, DurabilityTier, LogError, ProcessLog, ProcessRegistry,
    ProcessRegistryExt, ProcessWait, Query, RegistryError, WaitAnswer, WaitError, WaitNotice, WaitReader,
};
use registry_actor::remote::{
    Admission, ConnectError, Goodbye, PROTOCOL, Peer, RegistryServer, RemoteOptions, RemoteRegistry, ServeError,
    ServerOptions, StopReport, VERSION, own_liveness,
};
use registry_tests::ManualClock;
use registry_tests::direct_registry::DirectRegistry;
use registry_tests::example_process::{note, process_id, registration};
use registry_tests::log_conformance::bounded;
use registry_tests::scoreboard::{self, RunRecord};
use registry_tests::seeded::Random;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, Semaphore, mpsc, watch};

/// How long a stop waits in these tests. It is the measure of none.
const PATIENCE: Duration = Duration::from_secs(30);

/// A registry in memory, behind a socket.
struct Host {
    directory: TempDir,
    log: MemoryLog,
    registry: ActorRegistry,
    gated: Arc<Gated>,
}

impl Host {
    async fn start() -> Self {
        let log = MemoryLog::new("store");
        let registry =
            ActorRegistry::start(Arc::new(log.clone()), RegistryOptions::default()).await.expect("a registry");
        let gated = Arc::new(Gated::new(registry.clone()));
        Self { directory: tempfile::tempdir().expect("a directory"), log, registry, gated }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    async fn serve(&self, options: ServerOptions) -> RegistryServer {
        self.serve_in(self.log.session().clone(), options).await
    }

    async fn serve_in(&self, session: StoreSession, options: ServerOptions) -> RegistryServer {
        let served = Arc::clone(&self.gated) as Arc<dyn ProcessRegistry>;
        RegistryServer::start(self.path(), served, session, options).await.expect("a server")
    }

    async fn connect(&self) -> RemoteRegistry {
        RemoteRegistry::connect(self.path(), RemoteOptions::default()).await.expect("a client")
    }

    async fn raw(&self) -> Raw {
        Raw { stream: UnixStream::connect(self.path()).await.expect("somebody listens") }
    }

    /// A connection on which both have greeted.
    async fn greeted(&self, follow: bool) -> Raw {
        let mut raw = self.raw().await;
        raw.say(&hello(follow)).await;
        let welcome = raw.hear().await.expect("a welcome");
        assert_eq!(welcome["welcome"]["protocol"], PROTOCOL);
        raw
    }

    async fn registered(&self, id: &str) -> ProcessId {
        let id = process_id(id);
        self.registry.register_process(registration(&id)).await.expect("a registration");
        id
    }

    async fn events(&self, id: &ProcessId) -> usize {
        self.registry.events_after(id, Sequence(0)).await.expect("events").len()
    }
}

/// The registry that is served; commands stop at a gate while it is shut, either side of the commit.
struct Gated {
    inner: ActorRegistry,
    before: Gate,
    after: Gate,
    calls: AtomicUsize,
}

struct Gate {
    shut: watch::Sender<bool>,
    standing: watch::Sender<usize>,
}

impl Gate {
    fn open() -> Self {
        Self { shut: watch::Sender::new(false), standing: watch::Sender::new(0) }
    }

    async fn pass(&self) {
        self.standing.send_modify(|standing| *standing += 1);
        let mut shut = self.shut.subscribe();
        shut.wait_for(|shut| !shut).await.expect("the gate is there");
        self.standing.send_modify(|standing| *standing -= 1);
    }

    async fn stand(&self, count: usize) {
        let mut standing = self.standing.subscribe();
        standing.wait_for(|standing| *standing >= count).await.expect("the gate is there");
    }
}

impl Gated {
    fn new(inner: ActorRegistry) -> Self {
        Self { inner, before: Gate::open(), after: Gate::open(), calls: AtomicUsize::new(0) }
    }
}

#[async_trait]
impl ProcessRegistry for Gated {
    async fn execute(&self, process_id: &ProcessId, command: Command) -> Result<Receipt, RegistryError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        assert!(process_id.as_str() != "panic", "as the case asks");
        self.before.pass().await;
        let result = self.inner.execute(process_id, command).await;
        self.after.pass().await;
        result
    }

    async fn execute_across(&self, command: RegistryCommand) -> Result<RegistryReceipt, RegistryError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let result = self.inner.execute_across(command).await;
        self.after.pass().await;
        result
    }

    async fn query(&self, query: Query) -> Result<Answer, RegistryError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.inner.query(query).await
    }

    fn durability_tier(&self) -> DurabilityTier {
        self.inner.durability_tier()
    }

    fn change_source(&self) -> Option<ChangeSource> {
        self.inner.change_source()
    }
}

/// A client that speaks the protocol by hand, as the documentation has it.
struct Raw {
    stream: UnixStream,
}

impl Raw {
    async fn say(&mut self, message: &Value) {
        let body = message.to_string();
        self.bytes(&u32::try_from(body.len()).expect("short").to_be_bytes()).await;
        self.bytes(body.as_bytes()).await;
    }

    async fn bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("it is written");
    }

    /// The next message; `None` at the end.
    async fn hear(&mut self) -> Option<Value> {
        let length = self.stream.read_u32().await.ok()?;
        let mut body = vec![0; length as usize];
        self.stream.read_exact(&mut body).await.ok()?;
        Some(serde_json::from_slice(&body).expect("a server says JSON"))
    }

    /// The last word, and that nothing follows.
    async fn goodbye(&mut self) -> Value {
        let goodbye = self.hear().await.expect("a word")["goodbye"].clone();
        assert_eq!(self.hear().await, None, "it is the last");
        goodbye
    }
}

fn hello(follow: bool) -> Value {
    let answer_bytes = 1024 * 1024;
    json!({"hello": {"protocol": PROTOCOL, "version": VERSION, "follow": follow, "answer_bytes": answer_bytes}})
}

fn append(id: u64, process_id: &ProcessId, payload: &str) -> Value {
    let event = ProcessEventAppendRequest::new("note", json!(payload));
    let command = Command::Append { events: vec![event], authority: registry_actor::domain::WriteAuthority::Unfenced };
    json!({"request": {"id": id, "call": {"execute": {"process_id": process_id, "command": command}}}})
}

fn read(id: u64, process_id: &ProcessId) -> Value {
    let query = Query::Process { process_id: process_id.clone() };
    json!({"request": {"id": id, "call": {"query": {"query": query}}}})
}

fn impatient() -> RemoteOptions {
    let mut options = RemoteOptions::default();
    options.patience = Duration::ZERO;
    options
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what} does not come"))
}

fn is_unknown(result: &Result<Receipt, RegistryError>) -> bool {
    matches!(result, Err(RegistryError::OutcomeUnknown { .. }))
}

#[tokio::test]
async fn the_socket_is_private_has_one_server_and_goes_with_it() {
    bounded(async {
        let host = Host::start().await;
        let server = host.serve(ServerOptions::default()).await;
        let mode = std::fs::metadata(host.path()).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let served = Arc::clone(&host.gated) as Arc<dyn ProcessRegistry>;
        let session = host.log.session().clone();
        let second = RegistryServer::start(host.path(), served, session, ServerOptions::default()).await;
        assert_eq!(second.map(drop), Err(ServeError::AlreadyServed { path: host.path() }));
        host.connect().await;
        assert_eq!(server.stop(PATIENCE).await, StopReport { connections_cut: 0 });
        assert!(!host.path().exists());
        let error = RemoteRegistry::connect(host.path(), impatient()).await.map(drop);
        assert!(matches!(error, Err(ConnectError::NoServer { .. })), "{error:?}");
    })
    .await;
}

/// Its own user is a foreigner to this server.
struct Nobody;

impl Admission for Nobody {
    fn admit(&self, peer: Peer) -> Result<(), u32> {
        assert_eq!(peer.pid, i32::try_from(std::process::id()).ok(), "the kernel says who it is");
        Err(peer.user + 1)
    }
}

#[tokio::test]
async fn a_client_of_another_user_is_refused_before_it_is_heard() {
    bounded(async {
        let host = Host::start().await;
        let mut options = ServerOptions::default();
        options.admission = Arc::new(Nobody);
        let _server = host.serve(options).await;
        let refused = RemoteRegistry::connect(host.path(), RemoteOptions::default()).await.map(drop);
        let own = rustix::process::geteuid().as_raw();
        assert_eq!(refused, Err(ConnectError::Refused(Goodbye::ForeignUser { expected: own + 1, found: own })));
        let mut raw = host.raw().await;
        let goodbye = raw.goodbye().await;
        assert_eq!(goodbye, json!({"reason": "foreign_user", "expected": own + 1, "found": own}));
        assert_eq!(host.gated.calls.load(Ordering::SeqCst), 0);
    })
    .await;
}

#[tokio::test]
async fn an_oversized_frame_ends_the_connection_and_what_came_before_it_is_answered() {
    bounded(async {
        let host = Host::start().await;
        let id = host.registered("p").await;
        let mut options = ServerOptions::default();
        options.request_bytes = 1_000;
        let _server = host.serve(options).await;
        let mut raw = host.greeted(false).await;
        raw.say(&append(1, &id, "short")).await;
        raw.say(&append(2, &id, &"x".repeat(1_000))).await;
        let answer = raw.hear().await.expect("an answer");
        assert_eq!(answer["answer"]["id"], 1);
        assert!(answer["answer"]["outcome"]["receipt"].is_object(), "{answer}");
        let goodbye = raw.goodbye().await;
        assert_eq!((&goodbye["reason"], &goodbye["limit"]), (&json!("frame_too_large"), &json!(1_000)), "{goodbye}");
        assert!(goodbye["found"].as_u64().expect("a number") > 1_000);
        assert_eq!(host.events(&id).await, 1, "nothing of the long one");

        // The client of the library does not even send it, and keeps its connection.
        let client = host.connect().await;
        let long = client.append_event(&id, ProcessEventAppendRequest::new("note", json!("x".repeat(1_000)))).await;
        match long {
            Err(RegistryError::Refused(Refusal::LimitExceeded {
                measure: Measure::Bytes,
                limit: 1_000,
                found,
                ..
            })) => {
                assert!(found > 1_000);
            }
            other => panic!("expected a refusal, got {other:?}"),
        }
        client.append_event(&id, note(1)).await.expect("an append");
    })
    .await;
}

#[tokio::test]
async fn what_is_no_message_ends_the_connection_and_nothing_of_it_is_done() {
    bounded(async {
        let host = Host::start().await;
        let id = host.registered("p").await;
        let _server = host.serve(ServerOptions::default()).await;
        let calls = host.gated.calls.load(Ordering::SeqCst);
        for (message, expected) in [
            (json!({"request": {"id": 1}}), "request"),
            (json!({"unheard": "of"}), "request"),
            (json!(7), "request"),
            (hello(true), "request"),
        ] {
            let mut raw = host.greeted(false).await;
            raw.say(&message).await;
            let goodbye = raw.goodbye().await;
            assert_eq!((&goodbye["reason"], &goodbye["expected"]), (&json!("malformed"), &json!(expected)));
        }
        // Before the greeting nothing else is taken, and only short frames are.
        let mut raw = host.raw().await;
        raw.say(&append(1, &id, "early")).await;
        assert_eq!(raw.goodbye().await["expected"], "hello");
        let mut raw = host.raw().await;
        raw.bytes(b"GET / HTTP/1.1\r\n\r\n").await;
        assert_eq!(raw.goodbye().await["reason"], "frame_too_large");
        assert_eq!(host.gated.calls.load(Ordering::SeqCst), calls);
        assert_eq!(host.events(&id).await, 0);
    })
    .await;
}

/// `PROCTOR_REMOTE_SEED` plays one run again.
#[tokio::test]
async fn random_bytes_never_stop_the_server_and_change_nothing() {
    const ROUNDS: u64 = 200;
    bounded(async {
        let seed = std::env::var("PROCTOR_REMOTE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0x5eed_u64);
        println!("PROCTOR_REMOTE_SEED={seed}");
        let mut numbers = Random::new(seed);
        let mut random = move || numbers.next();
        let host = Host::start().await;
        let id = host.registered("p").await;
        let _server = host.serve(ServerOptions::default()).await;
        for round in 0..ROUNDS {
            let mut raw = if round % 2 == 0 { host.raw().await } else { host.greeted(true).await };
            let mut bytes: Vec<u8> = (0..random() % 400).map(|_| random().to_le_bytes()[0]).collect();
            // Half of them begin with a length that fits.
            if random() % 2 == 0 && bytes.len() > 4 {
                bytes[..3].fill(0);
            }
            // A server that has enough closes while it is still being written to.
            let _ = raw.stream.write_all(&bytes).await;
            let _ = raw.stream.shutdown().await;
            while raw.hear().await.is_some() {}
        }
        assert_eq!(host.events(&id).await, 0);
        let client = host.connect().await;
        client.append_event(&id, note(1)).await.expect("it serves");
        scoreboard::record(&RunRecord {
            name: "remote_random_bytes".into(),
            what: "Random bytes to a registry's socket, before and after the greeting.".into(),
            ran: ROUNDS,
            unit: "connections".into(),
            seed: Some(seed),
            violations: 0,
            measured: BTreeMap::new(),
            not_run: None,
        });
    })
    .await;
}

#[tokio::test]
async fn another_version_is_refused_by_either_end_and_both_are_named() {
    bounded(async {
        let host = Host::start().await;
        let server = host.serve(ServerOptions::default()).await;
        let mut raw = host.raw().await;
        let mut newer = hello(true);
        newer["hello"]["version"] = json!(VERSION + 1);
        newer["hello"]["a field of the future"] = json!([]);
        raw.say(&newer).await;
        let expected = json!({"reason": "other_version", "expected": VERSION, "found": VERSION + 1});
        assert_eq!(raw.goodbye().await, expected);
        let mut raw = host.raw().await;
        newer["hello"]["protocol"] = json!("other");
        raw.say(&newer).await;
        let expected = json!({"reason": "other_protocol", "expected": PROTOCOL, "found": "other"});
        assert_eq!(raw.goodbye().await, expected);
        server.stop(PATIENCE).await;

        let newer = UnixListener::bind(host.path()).expect("a socket");
        let greeting = tokio::spawn(async move {
            let (stream, _) = newer.accept().await.expect("a client");
            let mut raw = Raw { stream };
            raw.hear().await.expect("a hello");
            raw.say(&json!({"welcome": {
                "protocol": PROTOCOL, "version": VERSION + 1, "session": {"store_id": "store", "number": 1},
                "durability": "durable", "follows": true, "request_bytes": 1,
            }}))
            .await;
        });
        let refused = RemoteRegistry::connect(host.path(), RemoteOptions::default()).await.map(drop);
        let other = Goodbye::OtherVersion { expected: VERSION + 1, found: VERSION };
        assert_eq!(refused, Err(ConnectError::Refused(other)));
        greeting.await.expect("a task");
    })
    .await;
}

#[tokio::test]
async fn whoever_does_not_greet_is_sent_away() {
    bounded(async {
        let host = Host::start().await;
        let mut options = ServerOptions::default();
        options.hello_within = Duration::from_millis(1);
        let _server = host.serve(options).await;
        let mut raw = host.raw().await;
        assert_eq!(raw.goodbye().await, json!({"reason": "silent", "within_ms": 1}));
    })
    .await;
}

#[tokio::test]
async fn a_request_that_came_in_part_is_not_carried_out() {
    bounded(async {
        let host = Host::start().await;
        let id = host.registered("p").await;
        let server = host.serve(ServerOptions::default()).await;
        let mut raw = host.greeted(false).await;
        let body = append(1, &id, "cut").to_string();
        raw.bytes(&u32::try_from(body.len()).expect("short").to_be_bytes()).await;
        raw.bytes(&body.as_bytes()[..body.len() - 1]).await;
        drop(raw);
        // The connection is done with: nothing of it is under way.
        assert_eq!(server.stop(PATIENCE).await.connections_cut, 0);
        assert_eq!(host.events(&id).await, 0);
    })
    .await;
}

/// A host that ends in the middle of a call: whoever called does not know, and the command is found carried out, once.
#[tokio::test]
async fn a_call_whose_answer_is_lost_is_unknown_and_carried_out_once() {
    bounded(async {
        let host = Host::start().await;
        let id = host.registered("p").await;
        let server = host.serve(ServerOptions::default()).await;
        let client = host.connect().await;
        host.gated.after.shut.send_replace(true);
        let call = tokio::spawn({
            let (client, id) = (client.clone(), id.clone());
            async move { client.append_event(&id, note(1)).await }
        });
        let across = tokio::spawn({
            let client = client.clone();
            async move { client.delete_session_process_state("s").await }
        });
        host.gated.after.stand(2).await;
        assert_eq!(server.stop(Duration::ZERO).await, StopReport { connections_cut: 1 });
        let answered = call.await.expect("a task");
        assert!(is_unknown(&answered), "{answered:?}");
        let answered = across.await.expect("a task");
        assert!(matches!(answered, Err(RegistryError::AcrossOutcomeUnknown { .. })), "{answered:?}");
        host.gated.after.shut.send_replace(false);
        let _server = host.serve(ServerOptions::default()).await;
        let events = client.events_after(&id, Sequence(0)).await.expect("events");
        assert_eq!(events.len(), 1, "once");
    })
    .await;
}

#[tokio::test]
async fn a_command_is_carried_out_although_its_caller_has_gone() {
    bounded(async {
        let host = Host::start().await;
        let id = host.registered("p").await;
        let _server = host.serve(ServerOptions::default()).await;
        let client = host.connect().await;
        host.gated.before.shut.send_replace(true);
        let call = tokio::spawn({
            let (client, id) = (client.clone(), id.clone());
            async move { client.append_event(&id, note(1)).await }
        });
        host.gated.before.stand(1).await;
        call.abort();
        call.await.expect_err("given up");
        let source = host.registry.change_source().expect("a source");
        let waiting = source.park(&ProcessWait::any_event(id, Sequence(0)));
        host.gated.before.shut.send_replace(false);
        match soon("the event", waiting.told()).await {
            WaitNotice::Happened { event, .. } => assert_eq!(event.sequence, Sequence(1)),
            other => panic!("expected the event, got {other:?}"),
        }
    })
    .await;
}

#[tokio::test]
async fn a_registry_that_panics_has_not_said_what_became_of_the_command() {
    bounded(async {
        let host = Host::start().await;
        let _server = host.serve(ServerOptions::default()).await;
        let client = host.connect().await;
        let answered = client.append_event(&process_id("panic"), note(1)).await;
        assert!(is_unknown(&answered), "{answered:?}");
        assert_eq!(client.get_process(&process_id("p")).await.expect("the connection lives"), None);
    })
    .await;
}

#[tokio::test]
async fn a_stop_answers_what_is_under_way_and_waiters_go_on_with_the_next_server() {
    bounded(async {
        let host = Host::start().await;
        let id = host.registered("p").await;
        let server = host.serve(ServerOptions::default()).await;
        let client = host.connect().await;
        let source = client.change_source().expect("a source");
        let waiting = tokio::spawn({
            let (client, id, source) = (client.clone(), id.clone(), source.clone());
            async move {
                let wait = ProcessWait::outcome(id);
                source.wait(&client, &mut WaitReader::new(&wait), tokio::time::sleep).await
            }
        });
        while source.parked_waits() == 0 {
            tokio::task::yield_now().await;
        }
        host.gated.after.shut.send_replace(true);
        let call = tokio::spawn({
            let (client, id) = (client.clone(), id.clone());
            async move { client.append_event(&id, note(1)).await }
        });
        host.gated.after.stand(1).await;
        let stopping = tokio::spawn(server.stop(PATIENCE));
        while host.path().exists() {
            tokio::task::yield_now().await;
        }
        host.gated.after.shut.send_replace(false);
        call.await.expect("a task").expect("it is answered");
        assert_eq!(stopping.await.expect("a task"), StopReport { connections_cut: 0 });

        // Nobody can tell the waiter of this one: it reads when there is a server again.
        host.registry.complete_process(&id, ProcessAwaitOutput::success(json!(7))).await.expect("an outcome");
        let _server = host.serve(ServerOptions::default()).await;
        let answer = soon("the outcome", waiting).await.expect("a task").expect("an answer");
        assert!(matches!(&answer, WaitAnswer::Completed { .. }), "{answer:?}");
        assert_eq!(source.parked_waits(), 0);
    })
    .await;
}

/// Counts what it is told.
#[derive(Default)]
struct Counted {
    told: Mutex<(usize, usize, usize)>,
    changed: Notify,
}

impl Counted {
    fn note(&self, change: impl FnOnce(&mut (usize, usize, usize))) {
        change(&mut self.told.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_one();
    }

    /// Events, resyncs, ends.
    async fn until(&self, enough: impl Fn((usize, usize, usize)) -> bool) -> (usize, usize, usize) {
        loop {
            let told = *self.told.lock().unwrap_or_else(PoisonError::into_inner);
            if enough(told) {
                return told;
            }
            self.changed.notified().await;
        }
    }
}

impl CommitListener for Counted {
    fn committed(&self, batches: &[CommittedBatch]) {
        self.note(|told| told.0 += batches.iter().map(|batch| batch.events.len()).sum::<usize>());
    }

    fn pruned(&self, _: &[Tombstone]) {}

    fn resync(&self) {
        self.note(|told| told.1 += 1);
    }

    fn closed(&self) {
        self.note(|told| told.2 += 1);
    }
}

#[tokio::test]
async fn a_client_comes_back_to_the_next_server_and_knows_its_session() {
    bounded(async {
        let host = Host::start().await;
        let id = host.registered("p").await;
        let server = host.serve(ServerOptions::default()).await;
        let client = host.connect().await;
        let listener = Arc::new(Counted::default());
        client.change_source().expect("a source").attach(&(Arc::clone(&listener) as Arc<dyn CommitListener>));
        client.append_event(&id, note(1)).await.expect("an append");
        soon("the commit", listener.until(|told| told == (1, 0, 0))).await;
        assert_eq!(&client.session(), host.log.session());
        server.stop(PATIENCE).await;

        let calls = [
            tokio::spawn({
                let (client, id) = (client.clone(), id.clone());
                async move { client.append_event(&id, note(2)).await.map(drop) }
            }),
            tokio::spawn({
                let (client, id) = (client.clone(), id.clone());
                async move { client.get_process(&id).await.map(drop) }
            }),
        ];
        let next = StoreSession { number: host.log.session().number + 1, ..host.log.session().clone() };
        let _server = host.serve_in(next.clone(), ServerOptions::default()).await;
        for call in calls {
            soon("an answer", call).await.expect("a task").expect("it waited for the next server");
        }
        assert_eq!(client.session(), next);
        soon("the commit", listener.until(|(events, resyncs, _)| resyncs == 1 && events == 2)).await;
        assert_eq!(host.events(&id).await, 2);
    })
    .await;
}

/// What of a deletion is no event of a process is told by itself, here and behind the socket. A reader of the feed that waited
/// for commits alone slept on until somebody else committed.
#[tokio::test]
async fn a_session_that_is_deleted_without_an_event_is_told_of() {
    bounded(async {
        let host = Host::start().await;
        let id = host.registered("p").await;
        let _server = host.serve(ServerOptions::default()).await;
        let client = host.connect().await;
        let attached = [&host.registry as &dyn ProcessRegistry, &client].map(|registry| {
            let (sender, told) = mpsc::unbounded_channel();
            let listener = Arc::new(ToldOfDeletions(sender)) as Arc<dyn CommitListener>;
            registry.change_source().expect("a source").attach(&listener);
            (listener, told)
        });
        client
            .grant_handle(SessionScope::session("s"), &id, ProcessHandleDescriptor::default())
            .await
            .expect("a grant");
        client.delete_session_process_state("s").await.expect("a deletion");
        for (_listener, mut told) in attached {
            let deletion = soon("the deletion", told.recv()).await.expect("a listener");
            assert_eq!((deletion.session_id.as_str(), deletion.revoked_handle_count), ("s", 1));
        }
    })
    .await;
}

struct ToldOfDeletions(mpsc::UnboundedSender<SessionDeletion>);

impl CommitListener for ToldOfDeletions {
    fn committed(&self, _: &[CommittedBatch]) {}

    fn pruned(&self, _: &[Tombstone]) {}

    fn sessions_deleted(&self, deletions: &[SessionDeletion]) {
        for deletion in deletions {
            // The test may have ended.
            drop(self.0.send(deletion.clone()));
        }
    }

    fn resync(&self) {}

    fn closed(&self) {}
}

#[tokio::test]
async fn without_a_server_a_command_has_changed_nothing_and_a_read_is_not_answered() {
    bounded(async {
        let host = Host::start().await;
        let id = host.registered("p").await;
        let server = host.serve(ServerOptions::default()).await;
        let client = RemoteRegistry::connect(host.path(), impatient()).await.expect("a client");
        server.stop(PATIENCE).await;
        // A read is made again until it is known that nobody is there; from then on nothing is sent.
        let error = client.get_process(&id).await.expect_err("nobody is there");
        assert!(matches!(&error, RegistryError::Store(LogError::Unreadable { .. })), "{error:?}");
        let error = client.append_event(&id, note(1)).await.expect_err("nobody is there");
        assert!(matches!(&error, RegistryError::NotStored { .. }), "{error:?}");
        assert_eq!(host.events(&id).await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_client_that_is_closed_answers_everybody() {
    bounded(async {
        let host = Host::start().await;
        let id = host.registered("p").await;
        let _server = host.serve(ServerOptions::default()).await;
        let client = host.connect().await;
        let source = client.change_source().expect("a source");
        let listener = Arc::new(Counted::default());
        source.attach(&(Arc::clone(&listener) as Arc<dyn CommitListener>));
        let waiting = tokio::spawn({
            let (client, id, source) = (client.clone(), id.clone(), source.clone());
            async move {
                let wait = ProcessWait::outcome(id);
                source.wait(&client, &mut WaitReader::new(&wait), tokio::time::sleep).await
            }
        });
        while source.parked_waits() == 0 {
            tokio::task::yield_now().await;
        }
        host.gated.after.shut.send_replace(true);
        let call = tokio::spawn({
            let (client, id) = (client.clone(), id.clone());
            async move { client.append_event(&id, note(1)).await }
        });
        host.gated.after.stand(1).await;
        client.close().await;
        client.close().await;
        let answered = soon("an answer", call).await.expect("a task");
        assert!(is_unknown(&answered), "{answered:?}");
        let waited = soon("an answer", waiting).await.expect("a task");
        assert!(matches!(waited, Err(WaitError::SourceClosed { .. })), "{waited:?}");
        soon("the end", listener.until(|told| told.2 == 1)).await;
        assert_eq!(client.append_event(&id, note(1)).await, Err(RegistryError::Closed));
        assert_eq!(client.get_process(&id).await, Err(RegistryError::Store(LogError::Closed)));
        host.gated.after.shut.send_replace(false);

        // The last handle closes as well.
        let client = host.connect().await;
        let listener = Arc::new(Counted::default());
        let source = client.change_source().expect("a source");
        source.attach(&(Arc::clone(&listener) as Arc<dyn CommitListener>));
        drop(client.clone());
        drop(client);
        soon("the end", listener.until(|told| told.2 == 1)).await;
    })
    .await;
}

/// A client that follows and does not read costs the server its backlog, and is told to read everything anew.
#[tokio::test]
async fn a_slow_reader_is_told_to_read_anew_and_holds_nobody_up() {
    bounded(async {
        const EVENTS: usize = 400;
        let host = Host::start().await;
        let id = host.registered("p").await;
        let mut options = ServerOptions::default();
        options.backlog_bytes = 256 * 1024;
        let _server = host.serve(options).await;
        let mut slow = host.greeted(true).await;
        let client = host.connect().await;
        let listener = Arc::new(Counted::default());
        client.change_source().expect("a source").attach(&(Arc::clone(&listener) as Arc<dyn CommitListener>));
        let large = ProcessEventAppendRequest::new("note", json!("x".repeat(10_000)));
        for _ in 0..EVENTS {
            client.append_event(&id, large.clone()).await.expect("nobody waits for the slow one");
        }
        // Four megabytes were committed; what the slow one did not take is gone.
        let marker = host.registered("marker").await;
        let (mut events, mut resyncs) = (0, 0);
        loop {
            let notice = soon("a notice", slow.hear()).await.expect("the connection lives");
            let Some(batches) = notice["committed"]["batches"].as_array() else {
                assert_eq!(notice, json!("resync"));
                resyncs += 1;
                // As whoever is told so: what is committed now is told.
                host.registry.append_event(&marker, note(1)).await.expect("an append");
                continue;
            };
            events += batches.iter().map(|batch| batch["events"].as_array().expect("events").len()).sum::<usize>();
            if resyncs > 0 && batches.iter().any(|batch| batch["process_id"] == json!(marker)) {
                break;
            }
        }
        assert!(resyncs > 0 && events < EVENTS, "{events} events, {resyncs} times to be read anew");
    })
    .await;
}

#[tokio::test]
async fn a_client_that_asks_too_much_at_once_is_answered_busy() {
    bounded(async {
        let host = Host::start().await;
        let id = host.registered("p").await;
        let mut options = ServerOptions::default();
        options.requests_under_way = 2;
        let _server = host.serve(options).await;
        let mut raw = host.greeted(false).await;
        host.gated.after.shut.send_replace(true);
        for number in 1..=3 {
            raw.say(&append(number, &id, "text")).await;
        }
        let busy = raw.hear().await.expect("an answer");
        let expected = json!({"answer": {"id": 3, "outcome": {"error": {"error": "busy", "detail": {"limit": 2}}}}});
        assert_eq!(busy, expected);
        host.gated.after.shut.send_replace(false);
        let mut answered = [raw.hear().await, raw.hear().await].map(|answer| answer.expect("an answer"));
        answered.sort_by_key(|answer| answer["answer"]["id"].as_u64());
        assert!(answered.iter().all(|answer| answer["answer"]["outcome"]["receipt"].is_object()), "{answered:?}");
        assert_eq!(host.events(&id).await, 2);

        // The client of the library waits for its turn instead.
        let mut options = RemoteOptions::default();
        options.calls_under_way = 2;
        let client = RemoteRegistry::connect(host.path(), options).await.expect("a client");
        let calls: Vec<_> = (0..50)
            .map(|number| {
                let (client, id) = (client.clone(), id.clone());
                tokio::spawn(async move { client.append_event(&id, note(number)).await.map(drop) })
            })
            .collect();
        for call in calls {
            call.await.expect("a task").expect("an append");
        }
        assert_eq!(host.events(&id).await, 52);
    })
    .await;
}

/// A run that floods its own line with output keeps its lease: neither end counts what is urgent among the rest.
#[tokio::test]
async fn a_flood_of_output_does_not_hold_up_what_is_urgent() {
    bounded(async {
        let host = Host::start().await;
        let id = host.registered("p").await;
        let mut options = ServerOptions::default();
        options.requests_under_way = 2;
        let _server = host.serve(options).await;
        let mut options = RemoteOptions::default();
        options.calls_under_way = 2;
        let client = RemoteRegistry::connect(host.path(), options).await.expect("a client");
        host.gated.after.shut.send_replace(true);
        let flood: Vec<_> = (0..10)
            .map(|number| {
                let (client, id) = (client.clone(), id.clone());
                tokio::spawn(async move { client.append_event(&id, note(number)).await.map(drop) })
            })
            .collect();
        soon("the flood", host.gated.after.stand(2)).await;
        let owner =
            LeaseOwnerIdentity { owner_id: "worker".into(), incarnation_id: "1".into(), liveness: own_liveness() };
        let claiming = {
            let (client, id) = (client.clone(), id.clone());
            tokio::spawn(async move { client.claim_process_lease(&id, owner, 60_000).await })
        };
        soon("the claim", host.gated.after.stand(3)).await;
        host.gated.after.shut.send_replace(false);
        let claimed = claiming.await.expect("a task").expect("an answer");
        assert!(matches!(claimed, ProcessLeaseClaimOutcome::Acquired { .. }), "{claimed:?}");
        for call in flood {
            call.await.expect("a task").expect("an append");
        }
    })
    .await;
}

/// Requests without end whose answers nobody reads: the server stops reading, and others are served.
#[tokio::test]
async fn a_client_that_never_reads_its_answers_is_not_read_any_further() {
    bounded(async {
        let host = Host::start().await;
        let id = host.registered("p").await;
        let server = host.serve(ServerOptions::default()).await;
        let mut raw = host.greeted(false).await;
        let request = read(1, &id).to_string();
        let frame = [&u32::try_from(request.len()).expect("short").to_be_bytes()[..], request.as_bytes()].concat();
        let before = host.gated.calls.load(Ordering::SeqCst);
        // A write that is not taken within a while of doing nothing else: the line is full in both directions.
        let mut written = 0;
        while let Ok(result) = tokio::time::timeout(Duration::from_millis(500), raw.stream.write_all(&frame)).await {
            result.expect("the connection lives");
            written += 1;
            assert!(written < 1_000_000, "the server reads without end");
        }
        let answered = host.gated.calls.load(Ordering::SeqCst) - before;
        assert!(answered < written, "{answered} of {written}");
        let client = host.connect().await;
        client.append_event(&id, note(1)).await.expect("others are served");
        client.close().await;
        assert_eq!(server.stop(Duration::ZERO).await.connections_cut, 1, "only it is cut");
    })
    .await;
}

#[tokio::test]
async fn connections_beyond_the_limit_are_told_so_and_room_comes_back() {
    bounded(async {
        let host = Host::start().await;
        let mut options = ServerOptions::default();
        options.connections = 2;
        let _server = host.serve(options).await;
        let first = host.connect().await;
        let _second = host.connect().await;
        for _ in 0..50 {
            let refused = RemoteRegistry::connect(host.path(), impatient()).await.map(drop);
            assert_eq!(refused, Err(ConnectError::Refused(Goodbye::TooManyConnections { limit: 2 })));
        }
        first.close().await;
        host.connect().await;
    })
    .await;
}

/// The session of the store is the proof of those who live in the host. A worker that borrowed it would be taken for alive as
/// long as the host is, and for dead as soon as the host is started anew.
#[tokio::test]
async fn a_remote_claimant_names_its_process_and_not_the_hosts_session() {
    bounded(async {
        let host = Host::start().await;
        let id = host.registered("p").await;
        let _server = host.serve(ServerOptions::default()).await;
        let client = host.connect().await;
        let session = client.session();
        let owner = |liveness| LeaseOwnerIdentity { owner_id: "worker".into(), incarnation_id: "1".into(), liveness };
        let resident = owner(LeaseOwnerLiveness::StoreSession { session: session.clone() });
        let refused = RegistryError::Refused(Refusal::ForeignStoreSession { owner_id: "worker".into(), session });
        let lease = match client.claim_process_lease(&id, owner(own_liveness()), 60_000).await.expect("an answer") {
            ProcessLeaseClaimOutcome::Acquired { lease, .. } => lease,
            other => panic!("expected the lease, got {other:?}"),
        };
        assert!(matches!(lease.owner.liveness, LeaseOwnerLiveness::LocalProcess { .. }));
        assert_eq!(client.claim_process_lease(&id, resident.clone(), 1).await, Err(refused.clone()));
        let reclaim = client.reclaim_process_lease(&id, resident.clone(), lease.clone(), 1).await;
        assert_eq!(reclaim, Err(refused.clone()));
        let started = ProcessStarted { owner: resident.clone(), started_at_ms: 1 };
        let start = client.record_first_started_fenced(&id, started, lease.fence()).await;
        assert_eq!(start, Err(refused));
        assert_eq!(host.registry.get_process_lease(&id).await.expect("a read"), Some(lease.clone()));
        // To speak of a holder that lives in the host is no claim to be one.
        client.complete_process_lease(&lease).await.expect("released");
        host.registry.claim_process_lease(&id, resident, 60_000).await.expect("the host may");
        let held: ProcessLease = host.registry.get_process_lease(&id).await.expect("a read").expect("a lease");
        let reclaim = client.reclaim_process_lease(&id, owner(own_liveness()), held, 1).await.expect("an answer");
        assert!(matches!(reclaim, ProcessLeaseClaimOutcome::Busy { .. }), "{reclaim:?}");
    })
    .await;
}

#[tokio::test]
async fn pages_that_do_not_fit_into_a_frame_are_cut_and_say_that_more_follows() {
    bounded(async {
        let host = Host::start().await;
        let id = host.registered("p").await;
        let mut options = ServerOptions::default();
        options.answer_bytes = 32 * 1024;
        let _server = host.serve(options).await;
        let client = host.connect().await;
        let large = ProcessEventAppendRequest::new("note", json!("x".repeat(1_000)));
        host.registry.append_events(&id, vec![large; 200]).await.expect("an append");
        let page = client.events_page(&id, Sequence(0), 200).await.expect("a page");
        assert!(page.has_more && (10..200).contains(&page.events.len()), "{}", page.events.len());
        assert_eq!(client.events_after(&id, Sequence(0)).await.expect("events").len(), 200);

        // What cannot be cut is said to be unreadable, or of an unknown outcome: it was carried out.
        let huge = ProcessEventAppendRequest::new("note", json!("x".repeat(40_000)));
        let answered = client.append_event(&id, huge).await;
        assert!(is_unknown(&answered), "{answered:?}");
        assert_eq!(host.events(&id).await, 201);
        let read = client.events_page(&id, Sequence(200), 1).await.map(drop);
        assert!(matches!(&read, Err(RegistryError::Store(LogError::Unreadable { .. }))), "{read:?}");
    })
    .await;
}

#[tokio::test]
async fn a_value_that_nests_too_deep_is_refused_and_the_connection_lives() {
    bounded(async {
        let host = Host::start().await;
        let id = host.registered("p").await;
        let _server = host.serve(ServerOptions::default()).await;
        let client = host.connect().await;
        for levels in [97, 110, 121, 500] {
            let deep = (0..levels).fold(json!(1), |inner, _| json!([inner]));
            let refused = client.append_event(&id, ProcessEventAppendRequest::new("note", deep)).await;
            let is_refused = matches!(
                &refused,
                Err(RegistryError::Refused(Refusal::InvalidPayload { .. } | Refusal::TooDeep { .. }))
            );
            assert!(is_refused, "{refused:?}");
        }
        client.append_event(&id, note(1)).await.expect("an append");
    })
    .await;
}

/// When the registry ends before its server does, whoever waits reads once more and is told.
#[tokio::test]
async fn a_registry_that_ends_under_its_server_leaves_nobody_waiting() {
    bounded(async {
        let host = Host::start().await;
        let id = host.registered("p").await;
        let _server = host.serve(ServerOptions::default()).await;
        let client = host.connect().await;
        let source = client.change_source().expect("a source");
        let waiting = tokio::spawn({
            let (client, source) = (client.clone(), source.clone());
            async move {
                let wait = ProcessWait::outcome(id);
                source.wait(&client, &mut WaitReader::new(&wait), tokio::time::sleep).await
            }
        });
        while source.parked_waits() == 0 {
            tokio::task::yield_now().await;
        }
        host.registry.shut_down(PATIENCE).await;
        let waited = soon("an answer", waiting).await.expect("a task");
        assert!(matches!(waited, Err(WaitError::SourceClosed { .. })), "{waited:?}");
    })
    .await;
}

#[tokio::test]
async fn a_registry_that_does_not_tell_of_its_commits_is_not_listened_to_either() {
    bounded(async {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("socket");
        let log = Arc::new(MemoryLog::new("store"));
        let session = log.session().clone();
        let direct = Arc::new(DirectRegistry::new(log, Arc::new(ManualClock::default()), 1));
        let _server = RegistryServer::start(&path, direct, session, ServerOptions::default()).await.expect("a server");
        let client = RemoteRegistry::connect(&path, RemoteOptions::default()).await.expect("a client");
        assert!(client.change_source().is_none());
        assert_eq!(client.durability_tier(), DurabilityTier::Inline);
    })
    .await;
}

#[tokio::test]
async fn a_client_that_does_not_follow_is_told_nothing() {
    bounded(async {
        let host = Host::start().await;
        let id = host.registered("p").await;
        let _server = host.serve(ServerOptions::default()).await;
        let mut options = RemoteOptions::default();
        options.follow = false;
        let client = RemoteRegistry::connect(host.path(), options).await.expect("a client");
        assert!(client.change_source().is_none());
        let mut raw = host.greeted(false).await;
        client.append_event(&id, note(1)).await.expect("an append");
        raw.say(&read(1, &id)).await;
        assert_eq!(raw.hear().await.expect("an answer")["answer"]["id"], 1, "and nothing before it");
    })
    .await;
}

/// Callers, reads and waiters of several clients while servers come and go: what was acknowledged is there, once, and nobody
/// waits for ever.
#[tokio::test]
async fn clients_under_load_while_servers_come_and_go_lose_nothing_that_was_acknowledged() {
    bounded(async {
        const CALLERS: usize = 8;
        const CALLS: u64 = 30;
        let host = Host::start().await;
        let done = Arc::new(Semaphore::new(0));
        let mut server = host.serve(ServerOptions::default()).await;
        let mut callers = Vec::new();
        for caller in 0..CALLERS {
            let id = host.registered(&format!("p{caller}")).await;
            let (client, done) = (host.connect().await, Arc::clone(&done));
            callers.push(tokio::spawn(async move {
                let (mut acknowledged, mut unknown, mut refused) = (0, 0, 0);
                for number in 0..CALLS {
                    match client.append_event(&id, note(number)).await {
                        Ok(_) => acknowledged += 1,
                        Err(RegistryError::OutcomeUnknown { .. }) => unknown += 1,
                        Err(RegistryError::NotStored { .. }) => refused += 1,
                        Err(error) => panic!("{error:?}"),
                    }
                    done.add_permits(1);
                }
                (id, client, acknowledged, unknown, refused)
            }));
        }
        for _ in 0..10 {
            done.acquire_many(16).await.expect("open").forget();
            server.stop(Duration::ZERO).await;
            server = host.serve(ServerOptions::default()).await;
        }
        for caller in callers {
            let (id, client, acknowledged, unknown, refused) = soon("a caller", caller).await.expect("a task");
            assert_eq!(acknowledged + unknown + refused, CALLS);
            let there = client.events_after(&id, Sequence(0)).await.expect("events").len() as u64;
            assert!((acknowledged..=acknowledged + unknown).contains(&there), "{there} of {acknowledged}+{unknown}");
        }
    })
    .await;
}

/// Where the worker of the test below finds its host; set only in its own process.
const WORKER_SOCKET: &str = "PROCTOR_REMOTE_WORKER_SOCKET";

/// The worker: it takes the lease, says so by an event, and works until it is killed. Without a host it is a test of nothing.
#[tokio::test]
async fn worker_process() {
    let Some(path) = std::env::var_os(WORKER_SOCKET) else { return };
    let client = RemoteRegistry::connect(path, RemoteOptions::default()).await.expect("a client");
    let id = process_id("p");
    let owner = LeaseOwnerIdentity { owner_id: "worker".into(), incarnation_id: "1".into(), liveness: own_liveness() };
    let lease =
        client.claim_process_lease(&id, owner, 3_600_000).await.expect("an answer").acquired().expect("a lease");
    client.append_events_fenced(&id, vec![note(1)], lease.fence()).await.expect("it holds the lease");
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_worker_process_that_is_killed_is_provably_dead_and_its_work_is_taken_over() {
    bounded(async {
        let host = Host::start().await;
        let id = host.registered("p").await;
        let _server = host.serve(ServerOptions::default()).await;
        let source = host.registry.change_source().expect("a source");
        let mut worker = std::process::Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "worker_process"])
            .env(WORKER_SOCKET, host.path())
            .stdout(std::process::Stdio::null())
            .spawn()
            .expect("a process");
        let wait = ProcessWait::event(id.clone(), "note", Sequence(0));
        let started = source.wait(&host.registry, &mut WaitReader::new(&wait), tokio::time::sleep).await;
        assert!(matches!(started, Ok(WaitAnswer::Happened { .. })), "{started:?}");
        let held = host.registry.get_process_lease(&id).await.expect("a read").expect("a lease");
        let successor = || LeaseOwnerIdentity {
            owner_id: "successor".into(),
            incarnation_id: "1".into(),
            liveness: own_liveness(),
        };
        let client = host.connect().await;
        let early = client.reclaim_process_lease(&id, successor(), held.clone(), 1_000).await.expect("an answer");
        assert!(matches!(early, ProcessLeaseClaimOutcome::Busy { .. }), "it lives: {early:?}");
        worker.kill().expect("it is killed");
        worker.wait().expect("it is gone");
        let taken = client.reclaim_process_lease(&id, successor(), held.clone(), 1_000).await.expect("an answer");
        match taken {
            ProcessLeaseClaimOutcome::Acquired { lease, displaced } => {
                assert_eq!(lease.fencing_token, held.fencing_token.next());
                assert_eq!(displaced.as_deref(), Some(&held));
            }
            other => panic!("expected the lease, got {other:?}"),
        }
        let revenant = client.append_events_fenced(&id, vec![note(2)], held.fence()).await;
        assert_eq!(revenant, Err(RegistryError::Refused(Refusal::LeaseLost { process_id: id })));
    })
    .await;
}

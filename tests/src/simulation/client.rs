//! A client: a task that asks one thing after the other, as the seed says, and gives some of it up.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use registry_actor::domain::{
    AbandonRequest, ChangeCursor, Command, LeaseOwnerIdentity, LeaseOwnerLiveness, LeaseRelease, ProcessAwaitOutput,
    ProcessEventAppendRequest, ProcessEventType, ProcessExternalRef, ProcessFailureClass, ProcessHandleDescriptor,
    ProcessHandleGrant, ProcessId, ProcessInput, ProcessLease, ProcessLeaseClaimOutcome, ProcessListFilter,
    ProcessRegistration, ProcessSignal, ProcessStarted, ProcessTerminalSpec, ProcessTerminalState,
    ProcessValueSelector, ProcessWakeDedupeKey, ProcessWakeSpec, ProjectionWatermark, PruneFilter, Receipt,
    RecoveryDisposition, RegistryCommand, RegistryReceipt, ReplayKey, Sequence, SessionScope, WaitState,
    WriteAuthority,
};
use registry_actor::port::{Answer, Clock, ProcessChange, ProcessWait, Query, RegistryError};
use serde::Serialize;
use serde_json::json;
use tokio::time::{sleep, timeout};

use super::host::{Host, pause};
use super::invariants::Invariant;
use super::transcript::fingerprint;
use super::world::World;
use crate::seeded::Random;

/// Longer than everything that the registry may wait for.
const PATIENCE: Duration = Duration::from_secs(600);

/// A client.
pub struct Client {
    number: u32,
    name: String,
    world: Arc<World>,
    dice: Random,
    /// The last lease that it was told of, by process.
    leases: BTreeMap<ProcessId, ProcessLease>,
    /// Where it has read the feed to.
    cursor: Option<ChangeCursor>,
    /// What it read of the feed.
    projected: Vec<ProcessChange>,
    /// What it appended under keys, by process: it may send it again.
    keyed: BTreeMap<ProcessId, Vec<ProcessEventAppendRequest>>,
    notes: u64,
}

impl Client {
    /// A client that has done nothing yet.
    #[must_use]
    pub fn new(number: u32, world: Arc<World>) -> Self {
        let dice = world.dice(100 + u64::from(number));
        let name = format!("client{number}");
        let (leases, keyed) = (BTreeMap::new(), BTreeMap::new());
        Self { number, name, world, dice, leases, cursor: None, projected: Vec::new(), keyed, notes: 0 }
    }

    /// Takes so many steps; answers what it read of the feed.
    pub async fn run(mut self, steps: u64) -> Vec<ProcessChange> {
        for _ in 0..steps {
            pause(&mut self.dice, 8).await;
            self.step().await;
        }
        self.projected
    }

    async fn step(&mut self) {
        let host = self.world.host(self.dice.below(2));
        let id = self.world.ids[usize::try_from(self.dice.below(self.world.ids.len() as u64)).expect("few")].clone();
        match self.dice.below(64) {
            0..=6 => {
                let shape = u64::from(self.dice.below(12) == 0);
                let registration = Box::new(registration(&id, shape));
                self.execute(&host, &id, Command::Register { registration }).await;
            }
            7..=18 => {
                let events = (0..=self.dice.below(3)).map(|_| self.note(&id)).collect();
                self.append(&host, &id, events).await;
            }
            19..=24 => self.claim(&host, &id).await,
            25 | 26 => {
                if let Some(lease) = self.leases.get(&id).cloned() {
                    let ttl_ms = 5 + self.dice.below(60);
                    self.execute(&host, &id, Command::RenewLease { lease: Box::new(lease), ttl_ms }).await;
                }
            }
            27 => {
                if let Some(lease) = self.leases.get(&id).cloned() {
                    self.execute(&host, &id, Command::ReleaseLease { lease_token: lease.lease_token }).await;
                }
            }
            28 => self.reclaim(&host, &id).await,
            29 | 30 => {
                let owner = self.owner(&host);
                let started = ProcessStarted { owner, started_at_ms: self.world.clock.now().epoch_ms };
                let authority = self.authority(&id);
                self.execute(&host, &id, Command::RecordFirstStarted { started, authority }).await;
            }
            31 if self.dice.below(2) == 0 => {
                let finish = ProcessEventAppendRequest::new("finish", json!({ "by": self.dice.below(2) }));
                let key = ReplayKey::new(format!("finish {}", self.dice.below(2))).expect("a key");
                let finish = finish.with_replay_key(key);
                self.append(&host, &id, vec![finish.clone()]).await;
                if self.dice.below(2) == 0 {
                    self.send_again(&host, &id, finish).await;
                }
            }
            31..=34 => {
                let output = self.output();
                let authority = self.authority(&id);
                let lease = if self.dice.below(2) == 0 { LeaseRelease::Release } else { LeaseRelease::Keep };
                self.execute(&host, &id, Command::Complete { output, authority, lease }).await;
            }
            35 => {
                let request = AbandonRequest {
                    requested_by: self.name.clone(),
                    requested_at_ms: self.world.clock.now().epoch_ms,
                    reason: None,
                };
                self.execute(&host, &id, Command::RequestAbandon { request }).await;
            }
            36 => {
                let reason = (self.dice.below(2) == 0).then(|| "enough".to_owned());
                self.execute(&host, &id, Command::RequestCancel { reason }).await;
            }
            37 | 38 => {
                let wait = WaitState::signal(&id, &signal(), 1 + self.dice.below(2), 7);
                let authority = self.authority(&id);
                self.execute(&host, &id, Command::SetWait { wait, authority }).await;
            }
            39 => {
                let authority = self.authority(&id);
                self.execute(&host, &id, Command::ClearWait { authority }).await;
            }
            40 => {
                let external_ref = ProcessExternalRef {
                    backend: "backend".to_owned(),
                    id: format!("job {}", self.dice.below(2)),
                    metadata: None,
                };
                self.execute(&host, &id, Command::SetExternalRef { external_ref }).await;
            }
            41 => {
                let sequence = Sequence(self.dice.below(8));
                self.execute(&host, &id, Command::AckWake { sequence }).await;
            }
            42..=45 => {
                let command = self.across(&id);
                self.execute_across(&host, command).await;
            }
            46 | 51 => {
                let sent = self.keyed.get(&id).cloned().unwrap_or_default();
                if !sent.is_empty() {
                    let which = usize::try_from(self.dice.below(sent.len() as u64)).expect("few");
                    self.send_again(&host, &id, sent[which].clone()).await;
                }
            }
            47 | 48 => self.project(&host).await,
            49 | 50 => {
                let wait = if self.dice.below(2) == 0 {
                    ProcessWait::outcome(id)
                } else {
                    ProcessWait::event(id, "note", Sequence(self.dice.below(6)))
                };
                let within = Duration::from_millis(self.dice.below(120));
                self.world.transcript.line(&self.name, &format_args!("> waits {within:?} for {wait:?}"));
                let waiting = host.awaiter(&self.world.recorder, self.number);
                let answer = timeout(PATIENCE, waiting.wait(&wait, Some(within))).await;
                self.world.heard_of_a_wait(&self.name, &wait, &answer);
            }
            _ => {
                let query = self.query(&id);
                drop(self.ask(&host, query).await);
            }
        }
    }

    fn note(&mut self, id: &ProcessId) -> ProcessEventAppendRequest {
        match self.dice.below(8) {
            0 | 1 => {
                let key = self.dice.below(5);
                // Now and then somebody means something else by the same key.
                let meant = key + 100 * u64::from(self.dice.below(6) == 0);
                let request = ProcessEventAppendRequest::new("note", json!({ "key": meant }));
                request.with_replay_key(ReplayKey::new(format!("key {key}")).expect("a key"))
            }
            2 => ProcessEventAppendRequest::new("alarm", json!(format!("alarm {}", self.next_note()))),
            3 => signal().request(id, &format!("signal {}", self.dice.below(4)), json!({ "go": true })),
            _ => ProcessEventAppendRequest::new("note", json!({ "number": self.next_note() })),
        }
    }

    async fn append(&mut self, host: &Host, id: &ProcessId, events: Vec<ProcessEventAppendRequest>) {
        let keyed = events.iter().filter(|event| event.replay_key.is_some()).cloned();
        self.keyed.entry(id.clone()).or_default().extend(keyed);
        let authority = if self.dice.below(3) == 0 { self.authority(id) } else { WriteAuthority::Unfenced };
        self.execute(host, id, Command::Append { events, authority }).await;
    }

    /// Sends what it appended under a key again, or something else under that key, mostly to an actor that knows nothing
    /// of it.
    async fn send_again(&mut self, host: &Host, id: &ProcessId, mut event: ProcessEventAppendRequest) {
        // Killing it is left to the striker: an actor that has just answered, and to which a kill and a message come at one
        // moment, looks at either first by a random choice of its library.
        if self.dice.below(3) > 0 {
            sleep(Duration::from_millis(self.dice.below(120))).await;
        }
        if self.dice.below(3) == 0 {
            event.payload = json!({ "key": "something else" });
        }
        self.append(host, id, vec![event]).await;
    }

    /// No two notes of a run have the same number.
    const fn next_note(&mut self) -> u64 {
        self.notes += 1;
        self.number as u64 * 1_000_000 + self.notes
    }

    fn owner(&mut self, host: &Host) -> LeaseOwnerIdentity {
        let session = host.registry.session().clone();
        let incarnation_id = session.number.to_string();
        let liveness = match self.number % 2 {
            0 => LeaseOwnerLiveness::Opaque,
            _ => LeaseOwnerLiveness::StoreSession { session },
        };
        LeaseOwnerIdentity { owner_id: self.name.clone(), incarnation_id, liveness }
    }

    fn authority(&mut self, id: &ProcessId) -> WriteAuthority {
        match self.leases.get(id) {
            Some(lease) if self.dice.below(4) > 0 => WriteAuthority::Holder(lease.fence()),
            Some(_) | None => WriteAuthority::Unfenced,
        }
    }

    fn output(&mut self) -> ProcessAwaitOutput {
        match self.dice.below(3) {
            0 => ProcessAwaitOutput::success(json!({ "by": self.number })),
            1 => ProcessAwaitOutput::failure(ProcessFailureClass::Execution, "code", self.name.clone()),
            _ => ProcessAwaitOutput::cancelled("cancelled"),
        }
    }

    async fn claim(&mut self, host: &Host, id: &ProcessId) {
        let command = Command::ClaimLease { owner: self.owner(host), ttl_ms: 5 + self.dice.below(60) };
        self.execute(host, id, command).await;
    }

    async fn reclaim(&mut self, host: &Host, id: &ProcessId) {
        let Some(Answer::Lease(Some(observed))) = self.ask(host, Query::Lease { process_id: id.clone() }).await else {
            return;
        };
        let command = Command::ReclaimLease { owner: self.owner(host), observed, ttl_ms: 5 + self.dice.below(60) };
        self.execute(host, id, command).await;
    }

    fn across(&mut self, id: &ProcessId) -> RegistryCommand {
        let scope = |number: u64| SessionScope::session(format!("s{number}"));
        let (from, to) = (scope(self.dice.below(2)), scope(self.dice.below(2)));
        match self.dice.below(8) {
            0 | 1 => {
                let descriptor = ProcessHandleDescriptor { kind: None, label: Some(self.name.clone()) };
                RegistryCommand::GrantHandle { grant: ProcessHandleGrant::new(from, id.clone(), descriptor) }
            }
            2 => RegistryCommand::RevokeHandle { scope: from, process_id: id.clone() },
            3 => RegistryCommand::TransferHandleGrants { from, to, process_ids: vec![id.clone()] },
            4 => RegistryCommand::DeleteSession { session_id: format!("s{}", self.dice.below(2)) },
            _ => RegistryCommand::Prune {
                filter: PruneFilter::ended_before(u64::MAX),
                watermark: match &self.cursor {
                    Some(cursor) if self.dice.below(2) == 0 => ProjectionWatermark::UpTo(cursor.clone()),
                    Some(_) | None => ProjectionWatermark::NoProjector,
                },
                limit: 10,
            },
        }
    }

    fn query(&mut self, id: &ProcessId) -> Query {
        let process_id = id.clone();
        let after = Sequence(self.dice.below(6));
        match self.dice.below(11) {
            0 | 1 => Query::Process { process_id },
            2 => Query::Tombstone { process_id },
            3 => Query::RecentEvents { process_id, limit: 1 + u32::try_from(self.dice.below(4)).expect("few") },
            4 => Query::CountEventsThrough { process_id, event_type: "note".to_owned(), through: after },
            5 | 6 => Query::Events { process_id, after, limit: 1 + u32::try_from(self.dice.below(5)).expect("few") },
            7 => Query::FirstEventOfType { process_id, event_type: "note".to_owned(), after },
            8 => Query::Lease { process_id },
            9 => Query::PendingWakes { target: SessionScope::session("s0"), after: None, limit: 100 },
            _ => Query::Processes { filter: ProcessListFilter::any(), after: None, limit: 10 },
        }
    }

    /// Reads the feed on from where it stopped.
    async fn project(&mut self, host: &Host) {
        let limit = 1 + u32::try_from(self.dice.below(30)).expect("few");
        if let Some(Answer::Changes(page)) = self.ask(host, Query::Changes { after: self.cursor.clone(), limit }).await
        {
            self.cursor = Some(page.next.clone());
            self.projected.extend(page.into_changes());
        }
    }

    async fn execute(&mut self, host: &Host, id: &ProcessId, command: Command) {
        self.world
            .transcript
            .line(&self.name, &format_args!("> {} {id} #{:016x}", command.name(), fingerprint(&command)));
        let registry = host.recorded(&self.world.recorder, self.number);
        let Some(answer) = self.within_patience(registry.execute(id, command)).await else { return };
        if let Ok(Receipt { lease: Some(ProcessLeaseClaimOutcome::Acquired { lease, .. }), .. }) = &answer {
            self.leases.insert(id.clone(), lease.clone());
        }
        self.tell(&answer, |receipt| {
            let mut told = String::new();
            for event in &receipt.events {
                let how = if event.is_inserted() { "" } else { " again" };
                let _ = write!(told, "{} {}{how}, ", event.event().sequence.0, event.event().event_type);
            }
            match &receipt.lease {
                Some(ProcessLeaseClaimOutcome::Acquired { lease, .. }) => {
                    let _ = write!(told, "fence {}, ", lease.fencing_token.0);
                }
                Some(ProcessLeaseClaimOutcome::Busy { .. }) => told.push_str("busy, "),
                None => {}
            }
            told
        });
    }

    async fn execute_across(&mut self, host: &Host, command: RegistryCommand) {
        self.world.transcript.line(&self.name, &format_args!("> {} {}", command.name(), json!(command)));
        let registry = host.recorded(&self.world.recorder, self.number);
        if let Some(answer) = self.within_patience(registry.execute_across(command)).await {
            self.tell(&answer, |receipt: &RegistryReceipt| format!("{} ", json!(receipt)));
        }
    }

    async fn ask(&mut self, host: &Host, query: Query) -> Option<Answer> {
        self.world.transcript.line(&self.name, &format_args!("> {}", json!(query)));
        let registry = host.recorded(&self.world.recorder, self.number);
        let answer = self.within_patience(registry.query(query)).await?;
        self.tell(&answer, |answer| match answer {
            Answer::Events(page) => format!("{} events ", page.events.len()),
            Answer::Process(record) => {
                format!("{} ", record.as_ref().map_or("unknown", |record| record.status.label()))
            }
            _ => String::new(),
        });
        answer.ok()
    }

    /// Gives some calls up; `None` if this one was.
    async fn within_patience<T>(&mut self, call: impl Future<Output = T>) -> Option<T> {
        if self.dice.below(25) == 0 {
            let patience = Duration::from_millis(self.dice.below(10));
            let answer = timeout(patience, call).await.ok();
            if answer.is_none() {
                self.world.transcript.line(&self.name, &"gives it up");
            }
            return answer;
        }
        let answer = timeout(PATIENCE, call).await.ok();
        if answer.is_none() {
            self.world.broken(Invariant::EveryCallAnswered, format!("{} has no answer", self.name));
        }
        answer
    }

    fn tell<T: Serialize>(&self, answer: &Result<T, RegistryError>, text: impl Fn(&T) -> String) {
        let line = match answer {
            Ok(answer) => format!("< {}#{:016x}", text(answer), fingerprint(answer)),
            Err(error) => format!("< {error} #{:016x}", fingerprint(error)),
        };
        self.world.transcript.line(&self.name, &line);
    }
}

/// What all processes of a run are registered with; another shape conflicts.
#[must_use]
pub fn registration(id: &ProcessId, shape: u64) -> ProcessRegistration {
    let mut alarm = ProcessEventType::plain("alarm");
    alarm.semantics.wake = Some(ProcessWakeSpec {
        when: None,
        input: ProcessValueSelector::Payload,
        dedupe_key: ProcessWakeDedupeKey::EventIdentity,
    });
    let mut finish = ProcessEventType::plain("finish");
    finish.semantics.terminal = Some(ProcessTerminalSpec {
        state: ProcessTerminalState::Completed,
        await_output: Some(ProcessValueSelector::Payload),
    });
    let input = ProcessInput::external(json!({ "shape": shape }));
    let mut registration = ProcessRegistration::new(id.clone(), input, RecoveryDisposition::ExternallyOwned)
        .with_extra_event_types([
            ProcessEventType::plain("note"),
            ProcessEventType::plain(signal().event_type()),
            alarm,
            finish,
        ]);
    registration.wake_target = Some(SessionScope::session("s0"));
    registration
}

fn signal() -> ProcessSignal {
    ProcessSignal::new("go").expect("a name")
}

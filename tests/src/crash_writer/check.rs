//! What the store of a dead host holds, against what its callers were told.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use registry_actor::actor::{ActorRegistry, RegistryOptions};
use registry_actor::domain::{
    LeaseToken, ProcessAwaitOutput, ProcessEvent, ProcessId, ProcessLease, ProcessRecord, Sequence, SessionScope,
    Tombstone,
};
use registry_actor::log::{SqliteLog, SqliteOptions};
use registry_actor::port::{ProcessLog, ProcessRegistryExt};
use serde_json::json;

use super::fact::{Fact, Told};
use crate::example_process::{opaque_owner, process_id, registration};

/// How many processes are claimed anew, to see that their fences have not gone back. Each costs a sync.
const CLAIMED: usize = 4;
const TTL_MS: u64 = 3_600_000;
const TERMINALS: [&str; 4] = ["process.completed", "process.failed", "process.cancelled", "process.abandoned"];

/// What a check of a store found wrong; empty lists if nothing is.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct CrashFindings {
    /// Acknowledged facts that are not there, or are something else.
    pub lost: Vec<String>,
    /// What does not verify, is not dense, ended twice, or went back.
    pub damaged: Vec<String>,
}

/// A store that was opened after a crash.
#[derive(Debug)]
pub struct AfterCrash {
    /// What is wrong with it.
    pub findings: CrashFindings,
    /// From the first look at it to the first answered command.
    pub time_to_serve: Duration,
}

/// Opens the store that a dead child left, serves a command, and looks for everything that was acknowledged. What was
/// acknowledged when nothing could be durable any more, `too_late`, may be there or not. `run` has to be another for each check
/// of one store.
///
/// # Panics
/// If the store does not open, cannot be read, or does not serve.
pub async fn check(store: &Path, acknowledged: &[Told], too_late: &[Told], run: u64) -> AfterCrash {
    let began = Instant::now();
    let log = SqliteLog::open(store, SqliteOptions::default()).expect("the store opens after the crash");
    let log: Arc<dyn ProcessLog> = Arc::new(log);
    let registry = ActorRegistry::start(Arc::clone(&log), RegistryOptions::default()).await.expect("a registry starts");
    let probe = process_id(&format!("probe-{run}"));
    registry.register_process(registration(&probe)).await.expect("a command is answered");
    let time_to_serve = began.elapsed();
    let mut facts: BTreeMap<&ProcessId, Vec<&Fact>> = BTreeMap::new();
    for told in acknowledged {
        facts.entry(&told.id).or_default().push(&told.fact);
    }
    let mut findings = CrashFindings::default();
    for id in stored_ids(&*log).await {
        let verification = log.verify(&id).await.expect("the check can be made");
        findings.damaged.extend(verification.faults.iter().map(|fault| format!("{id}: {fault}")));
        let events = registry.events_after(&id, Sequence(0)).await.expect("the events can be read");
        if events.iter().map(|event| event.sequence.0).ne(1..=events.len() as u64) {
            findings.damaged.push(format!("{id}: the sequences are not dense"));
        }
        if events.iter().filter(|event| TERMINALS.contains(&&*event.event_type)).count() > 1 {
            findings.damaged.push(format!("{id}: it ended twice"));
        }
    }
    let unsure: BTreeSet<&ProcessId> = too_late.iter().map(|told| &told.id).collect();
    let mut claims = CLAIMED;
    for (id, facts) in facts {
        let stored = Stored::read(&registry, id).await;
        let mut expected = Expected::of(&facts);
        if unsure.contains(id) {
            expected.forget_what_passes();
        }
        findings.lost.extend(expected.missing(&stored).into_iter().map(|what| format!("{id}: {what}, of {facts:?}")));
        if claims > 0 && stored.lease.is_none() && stored.record.as_ref().is_some_and(|it| !it.status.is_terminal()) {
            claims -= 1;
            let claim = registry.claim_process_lease(id, opaque_owner("check"), TTL_MS).await.expect("a claim");
            let lease = claim.acquired().expect("it is free");
            if lease.fencing_token.0 <= expected.fence {
                let fence = lease.fencing_token.0;
                findings.damaged.push(format!("{id}: its fence went back from {} to {fence}", expected.fence));
            }
            registry.complete_process_lease(&lease).await.expect("it is given up");
        }
    }
    registry.shut_down(Duration::from_secs(30)).await;
    AfterCrash { findings, time_to_serve }
}

async fn stored_ids(log: &dyn ProcessLog) -> Vec<ProcessId> {
    let mut ids: Vec<ProcessId> = Vec::new();
    loop {
        let page = log.process_ids(ids.last().cloned(), 1_000).await.expect("the ids can be read");
        if page.is_empty() {
            return ids;
        }
        ids.extend(page);
    }
}

/// What the store has of a process.
struct Stored {
    record: Option<Arc<ProcessRecord>>,
    events: Vec<Arc<ProcessEvent>>,
    lease: Option<ProcessLease>,
    tombstone: Option<Tombstone>,
    granted: bool,
}

impl Stored {
    async fn read(registry: &ActorRegistry, id: &ProcessId) -> Self {
        let record = registry.get_process(id).await.expect("a record");
        let tombstone = registry.get_tombstone(id).await.expect("a tombstone");
        let (mut events, mut lease, mut granted) = (Vec::new(), None, false);
        if record.is_some() {
            events = registry.events_after(id, Sequence(0)).await.expect("the events");
            lease = registry.get_process_lease(id).await.expect("a lease");
            granted = registry.has_handle_grant(&SessionScope::session(id.as_str()), id).await.expect("a grant");
        }
        Self { record, events, lease, tombstone, granted }
    }

    fn has(&self, event_type: &str) -> bool {
        self.events.iter().any(|event| &*event.event_type == event_type)
    }
}

/// What the facts of a process come to.
#[derive(Default)]
struct Expected<'facts> {
    appended: Vec<(Sequence, u64)>,
    fence: u64,
    held: Option<(&'facts LeaseToken, u64)>,
    granted: bool,
    facts: BTreeSet<&'static str>,
    completed: Option<u64>,
    pruned: bool,
    last: Option<&'facts Fact>,
    /// More than one thing may have happened after the last fact.
    passes: bool,
}

impl<'facts> Expected<'facts> {
    fn of(facts: &[&'facts Fact]) -> Self {
        let mut expected = Self::default();
        for fact in facts {
            expected.last = Some(fact);
            match fact {
                Fact::Registered => {}
                Fact::Appended { sequence, number } => expected.appended.push((*sequence, *number)),
                Fact::Held { token, fence, expires_at_epoch_ms } => {
                    expected.fence = expected.fence.max(*fence);
                    expected.held = Some((token, *expires_at_epoch_ms));
                }
                Fact::Released => expected.held = None,
                Fact::Granted => expected.granted = true,
                Fact::Revoked => expected.granted = false,
                Fact::WaitSet => drop(expected.facts.insert("process.wait_set")),
                Fact::WaitCleared => drop(expected.facts.insert("process.wait_cleared")),
                Fact::Completed { number } => {
                    expected.completed = Some(*number);
                    expected.held = None;
                }
                Fact::Pruned => expected.pruned = true,
                Fact::LeftAlone => {}
            }
        }
        expected
    }

    /// Keeps what an event says: whatever else is true now may have been overtaken by something that nobody expects.
    fn forget_what_passes(&mut self) {
        self.passes = true;
    }

    /// What is not there. At most one thing more than the facts may have happened: what was under way.
    fn missing(&self, stored: &Stored) -> Vec<String> {
        let Some(record) = &stored.record else {
            // A prune follows an end.
            let is_pruned = stored.tombstone.is_some() && (self.completed.is_some() || self.passes);
            return if is_pruned { Vec::new() } else { vec!["it is gone".to_owned()] };
        };
        let mut missing = Vec::new();
        if self.pruned {
            missing.push("it was pruned and is back".to_owned());
        }
        for (sequence, number) in &self.appended {
            let index = usize::try_from(sequence.0 - 1).unwrap_or(usize::MAX);
            if stored.events.get(index).and_then(|event| event.payload["number"].as_u64()) != Some(*number) {
                missing.push(format!("note {number} is not at {sequence}"));
            }
        }
        for fact in &self.facts {
            if !stored.has(fact) {
                missing.push(format!("no {fact}"));
            }
        }
        if let Some(number) = self.completed
            && record.status.await_output() != Some(&ProcessAwaitOutput::success(json!(number)))
        {
            missing.push(format!("it ended with {number} and is {:?}", record.status));
        }
        if self.passes {
            return missing;
        }
        if self.facts.contains("process.wait_cleared") && record.wait.is_some() {
            missing.push("it waits again".to_owned());
        }
        // Unless it was left alone, clearing the wait may have been under way when the host died.
        let waits = self.facts.contains("process.wait_set") && !self.facts.contains("process.wait_cleared");
        if waits && matches!(self.last, Some(Fact::LeftAlone)) && record.wait.is_none() {
            missing.push("it does not wait".to_owned());
        }
        if let Some((token, expires)) = self.held {
            // What may have been under way when the host died: the release after a grant, the end after a second claim.
            let may_be_over = match self.last {
                Some(Fact::Granted) => true,
                Some(Fact::Held { fence, .. }) => *fence > 1,
                _ => false,
            };
            match &stored.lease {
                Some(lease) if lease.lease_token == *token && lease.expires_at_epoch_ms >= expires => {}
                None if may_be_over => {}
                lease => missing.push(format!("its lease is {lease:?}")),
            }
        } else if stored.lease.as_ref().is_some_and(|lease| lease.fencing_token.0 <= self.fence) {
            missing.push(format!("a lease that was given up is back: {:?}", stored.lease));
        }
        let revoke_under_way = matches!(self.last, Some(Fact::WaitCleared));
        if self.granted && !stored.granted && !revoke_under_way {
            missing.push("its grant is gone".to_owned());
        }
        if !self.granted && stored.granted && self.facts.contains("process.wait_cleared") {
            missing.push("a revoked grant is back".to_owned());
        }
        missing
    }
}

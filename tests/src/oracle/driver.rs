//! The driver: takes each step on the registry and on the model, and tells where they part.

use std::collections::BTreeMap;
use std::fmt::{Debug, Write as _};
use std::time::Duration;

use registry_actor::domain::{
    ChangeCursor, Command, Fence, LeaseFence, LeaseRelease, LeaseToken, ProcessEventAppendRequest,
    ProcessHandleDescriptor, ProcessHandleGrant, ProcessId, ProcessLease, ProcessLeaseClaimOutcome, ProcessStarted,
    ProjectionWatermark, PruneFilter, Receipt, RegistryCommand, RegistryReceipt, ReplayKey, Sequence, SessionScope,
    WakeCursor, WriteAuthority,
};
use registry_actor::port::{ProcessRegistry, ProcessRegistryExt, RegistryError};
use serde_json::json;

use super::gossip::{WakeIds, class, in_short};
use super::history::{Case, Deed, Draft, Key, Right, Step};
use super::model::{Hint, Model, No, Projected};
use super::scene;
use super::subject::Subject;
use crate::seeded::Random;

/// A history that was played to its end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Played {
    /// Its steps.
    pub steps: usize,
    /// Those that both refused.
    pub refused: usize,
}

/// Where registry and model part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Everything up to there, for people.
    pub story: String,
}

/// A step that takes longer hangs.
const BOUND: Duration = Duration::from_secs(20);

pub(super) struct Driver {
    pub(super) subject: Subject,
    pub(super) model: Model,
    pub(super) wake_ids: WakeIds,
    story: String,
    /// Every lease that a caller was told of, by process.
    leases: BTreeMap<ProcessId, Vec<ProcessLease>>,
    /// Cursors of the change feed, each with how many changes its reader had seen.
    pub(super) cursors: Vec<(ChangeCursor, usize)>,
    /// Cursors of pending wakes, each with the place of its wake.
    pub(super) wake_cursors: Vec<(SessionScope, WakeCursor, u64)>,
    played: Played,
}

/// Where they part, before the story is told.
pub(super) struct Parted(pub(super) String);

/// Plays a history on a store of its own.
///
/// # Errors
/// The first difference.
pub async fn play(case: &Case) -> Result<Played, Difference> {
    let subject = Subject::open(case.backend).await;
    let model = Model::new(subject.log().session().clone(), subject.now());
    let mut driver = Driver {
        subject,
        model,
        wake_ids: WakeIds::default(),
        story: String::new(),
        leases: BTreeMap::new(),
        cursors: Vec::new(),
        wake_cursors: Vec::new(),
        played: Played::default(),
    };
    let result = driver.play(&case.steps).await;
    driver.subject.close().await;
    match result {
        Ok(()) => Ok(driver.played),
        Err(Parted(how)) => Err(Difference { story: driver.story + &how }),
    }
}

impl Driver {
    async fn play(&mut self, steps: &[Step]) -> Result<(), Parted> {
        for step in steps {
            self.played.steps += 1;
            // No two steps happen in one instant.
            self.subject.pass(1);
            self.model.now = self.subject.now();
            write!(self.story, "{}. door {}: {:?}", self.played.steps, step.door, step.deed)
                .expect("a string takes it");
            let answered = tokio::time::timeout(BOUND, self.take_and_read(step)).await;
            answered.unwrap_or_else(|_| Err(Parted("\nDIFFERENCE: the registry hangs\n".to_owned())))?;
        }
        self.story.push_str("in the end\n");
        self.read_everything(&mut Random::new(steps.len() as u64)).await
    }

    async fn take_and_read(&mut self, step: &Step) -> Result<(), Parted> {
        let touched = self.take(step).await?;
        self.story.push('\n');
        self.read_after(step, touched.as_ref()).await
    }

    /// Holds both to one answer.
    pub(super) fn same<T: PartialEq + Debug>(what: &str, model: &T, registry: &T) -> Result<(), Parted> {
        if model == registry {
            return Ok(());
        }
        let (model, registry) = (format!("{model:#?}"), format!("{registry:#?}"));
        let (model, registry): (Vec<&str>, Vec<&str>) = (model.lines().collect(), registry.lines().collect());
        // What both say alike before and after is long and tells nothing, a few lines apart.
        let same =
            |pairs: &mut dyn Iterator<Item = (&&str, &&str)>| pairs.take_while(|(one, other)| one == other).count();
        let before = same(&mut model.iter().zip(&registry));
        let after = same(&mut model.iter().rev().zip(registry.iter().rev()));
        let after = after.min(model.len().min(registry.len()) - before);
        let part = |lines: &[&str]| lines[before.saturating_sub(4)..lines.len() - after].join("\n");
        let (model, registry) = (part(&model), part(&registry));
        Err(Parted(format!("\nDIFFERENCE in {what}\nthe model says\n{model}\nthe registry says\n{registry}\n")))
    }

    /// Takes the step on both; answers the process that it touched.
    async fn take(&mut self, step: &Step) -> Result<Option<ProcessId>, Parted> {
        let (id, command) = match &step.deed {
            Deed::Signal { process, signal_id, payload } => {
                let (id, signal_id) = (scene::process(*process), format!("s{signal_id}"));
                self.signal(step.door, &id, &signal_id, *payload).await?;
                return Ok(Some(id));
            }
            Deed::Grant { .. }
            | Deed::Revoke { .. }
            | Deed::Transfer { .. }
            | Deed::DeleteSession { .. }
            | Deed::Prune { .. } => {
                self.across(step.door, &step.deed).await?;
                return Ok(None);
            }
            Deed::Pass { .. }
            | Deed::Jump { .. }
            | Deed::KillProcess { .. }
            | Deed::KillShard { .. }
            | Deed::KillPublisher
            | Deed::Rest
            | Deed::Reopen => {
                self.disturb(step.door, &step.deed).await;
                return Ok(None);
            }
            deed => match self.command(deed) {
                Some(command) => command,
                None => return Ok(None),
            },
        };
        self.execute(step.door, &id, command).await?;
        Ok(Some(id))
    }

    async fn execute(&mut self, door: u8, id: &ProcessId, command: Command) -> Result<(), Parted> {
        let answer = self.subject.door(door).execute(id, command.clone()).await;
        let hint = hint_of(answer.as_ref().ok());
        let expected = self.model.execute(id, &command, &hint);
        let found = match &answer {
            Ok(receipt) => Ok(self.wake_ids.plain_receipt(&command, receipt)),
            Err(error) => Err(class(error)),
        };
        self.tell(expected.as_ref().map(in_short).map_err(Clone::clone));
        Self::same("the answer", &expected, &found)?;
        match answer.ok().and_then(|receipt| receipt.lease) {
            Some(
                ProcessLeaseClaimOutcome::Acquired { lease, .. } | ProcessLeaseClaimOutcome::Busy { holder: lease },
            ) => {
                self.leases.entry(id.clone()).or_default().push(lease);
            }
            None => {}
        }
        Ok(())
    }

    async fn signal(&mut self, door: u8, id: &ProcessId, signal_id: &str, payload: u8) -> Result<(), Parted> {
        let (signal, payload) = (scene::signal(), json!(payload));
        let answer = self.subject.door(door).signal_process(id, &signal, signal_id, payload.clone()).await;
        let key = format!("process:{id}:signal.go:{signal_id}").parse().expect("short ids");
        let request = ProcessEventAppendRequest::new("signal.go", payload).with_replay_key(key);
        let command = Command::Append { events: vec![request], authority: WriteAuthority::Unfenced };
        let expected = self.model.execute(id, &command, &hint_of(None)).map(|receipt| {
            let through = receipt.events[0].event().sequence;
            let events = self.model.events(id).expect("it was there a moment ago");
            let ordinal = events.iter().filter(|event| event.sequence <= through && *event.event_type == *"signal.go");
            let ordinal = ordinal.count() as u64;
            (receipt, ordinal, format!("process:{id}:signal.go:{ordinal}"))
        });
        let found = match answer {
            Ok(signalled) => {
                Ok((self.wake_ids.plain_receipt(&command, &signalled.receipt), signalled.ordinal, signalled.wait_key))
            }
            Err(error) => Err(class(&error)),
        };
        self.tell(
            expected.as_ref().map(|(receipt, _, key)| format!("{} {key}", in_short(receipt))).map_err(Clone::clone),
        );
        Self::same("the answer", &expected, &found)
    }

    async fn across(&mut self, door: u8, deed: &Deed) -> Result<(), Parted> {
        let mut projected = Projected::Everything;
        let command = match deed {
            Deed::Grant { scope, process, label } => RegistryCommand::GrantHandle {
                grant: ProcessHandleGrant {
                    scope: scene::scope(*scope),
                    process_id: scene::process(*process),
                    descriptor: ProcessHandleDescriptor { kind: None, label: label.map(|label| format!("l{label}")) },
                },
            },
            Deed::Revoke { scope, process } => {
                RegistryCommand::RevokeHandle { scope: scene::scope(*scope), process_id: scene::process(*process) }
            }
            Deed::Transfer { from, to, processes } => RegistryCommand::TransferHandleGrants {
                from: scene::scope(*from),
                to: scene::scope(*to),
                process_ids: processes.iter().copied().map(scene::process).collect(),
            },
            Deed::DeleteSession { scope } => {
                RegistryCommand::DeleteSession { session_id: scene::scope(*scope).session_id().to_owned() }
            }
            Deed::Prune { age_ms, state, kind, red, cursor, limit } => {
                let mut filter = PruneFilter::ended_before(self.model.now.epoch_ms.saturating_sub(*age_ms));
                filter.state = *state;
                filter.kind = kind.then(|| "job".to_owned());
                filter.tags.extend(red.then(|| "red".to_owned()));
                let seen = cursor.and_then(|nth| nth_last(&self.cursors, nth));
                let watermark = match seen {
                    None => ProjectionWatermark::NoProjector,
                    Some((cursor, seen)) => {
                        projected = Projected::Through(*seen);
                        ProjectionWatermark::UpTo(cursor.clone())
                    }
                };
                RegistryCommand::Prune { filter, watermark, limit: *limit }
            }
            other => panic!("{other:?} is no command across processes"),
        };
        let found = self.subject.door(door).execute_across(command.clone()).await;
        let expected = self.model.execute_across(&command, projected);
        self.tell(expected.as_ref().map(|receipt| format!("{receipt:?}")).map_err(Clone::clone));
        Self::same("the answer", &expected.map(counted), &found.map(counted).map_err(|error| class(&error)))
    }

    pub(super) const fn steps_taken(&self) -> usize {
        self.played.steps
    }

    /// Keeps a cursor of the feed, unless it is the latest one anyway.
    pub(super) fn remember(&mut self, cursor: ChangeCursor, seen: usize) {
        if self.cursors.last().is_none_or(|(latest, _)| *latest != cursor) {
            self.cursors.push((cursor, seen));
        }
    }

    async fn disturb(&mut self, door: u8, deed: &Deed) {
        match deed {
            Deed::Pass { ms } => self.subject.pass(*ms),
            Deed::Jump { ms } => self.subject.jump(*ms),
            Deed::KillProcess { process } => self.subject.kill_process(door, &scene::process(*process)),
            Deed::KillShard { process } => self.subject.kill_shard(door, &scene::process(*process)),
            Deed::KillPublisher => self.subject.kill_publisher(door, &scene::process(0)),
            Deed::Rest => self.subject.rest().await,
            Deed::Reopen => {
                self.subject.reopen().await;
                self.model.session = self.subject.log().session().clone();
            }
            other => panic!("{other:?} disturbs nobody"),
        }
        self.model.now = self.subject.now();
    }

    fn tell(&mut self, answer: Result<String, No>) {
        let told = match answer {
            Ok(text) => write!(self.story, "\n   {text}"),
            Err(no) => {
                self.played.refused += 1;
                write!(self.story, "\n   {no:?}")
            }
        };
        told.expect("a string takes it");
    }

    /// The command that a step means; none if it names a lease that nobody heard of.
    fn command(&self, deed: &Deed) -> Option<(ProcessId, Command)> {
        let session = &self.model.session;
        Some(match deed {
            Deed::Register { process, shape } => {
                let id = scene::process(*process);
                let registration = Box::new(scene::registration(id.clone(), *shape));
                (id, Command::Register { registration })
            }
            Deed::Append { process, drafts, right } => {
                let id = scene::process(*process);
                let events = drafts.iter().map(|draft| request(&id, draft)).collect();
                let authority = self.authority(&id, right);
                (id, Command::Append { events, authority })
            }
            Deed::Cancel { process, reason } => {
                let reason = reason.map(|reason| format!("r{reason}"));
                (scene::process(*process), Command::RequestCancel { reason })
            }
            Deed::Complete { process, outcome, right, release } => {
                let id = scene::process(*process);
                let authority = self.authority(&id, right);
                let lease = if *release { LeaseRelease::Release } else { LeaseRelease::Keep };
                (id, Command::Complete { output: scene::outcome(*outcome), authority, lease })
            }
            Deed::FirstStart { process, owner, right } => {
                let id = scene::process(*process);
                let authority = self.authority(&id, right);
                let owner = scene::owner(*owner, session);
                let started = ProcessStarted { owner, started_at_ms: self.model.now.epoch_ms };
                (id, Command::RecordFirstStarted { started, authority })
            }
            Deed::Begin { process, owner, lease } => {
                let id = scene::process(*process);
                let owner = scene::owner(*owner, session);
                let started = ProcessStarted { owner, started_at_ms: self.model.now.epoch_ms };
                let fence = self.fence(&id, *lease);
                (id, Command::BeginAttempt { started, fence })
            }
            Deed::Fail { process, failure, lease } => {
                let id = scene::process(*process);
                let fence = self.fence(&id, *lease);
                (id, Command::FailAttempt { failure: scene::failure(*failure), fence })
            }
            Deed::ExternalRef { process, which } => {
                let external_ref = scene::external_ref(*which);
                (scene::process(*process), Command::SetExternalRef { external_ref })
            }
            Deed::Abandon { process, which } => {
                (scene::process(*process), Command::RequestAbandon { request: scene::abandon_request(*which) })
            }
            Deed::SetWait { process, ordinal, since_ms, right } => {
                let id = scene::process(*process);
                let (wait, authority) = (scene::wait(&id, *ordinal, *since_ms), self.authority(&id, right));
                (id, Command::SetWait { wait, authority })
            }
            Deed::ClearWait { process, right } => {
                let id = scene::process(*process);
                let authority = self.authority(&id, right);
                (id, Command::ClearWait { authority })
            }
            Deed::AckWake { process, nth } => {
                let id = scene::process(*process);
                let sequence = *nth_last(&self.model.wakes_of(&id), *nth)?;
                (id, Command::AckWake { sequence })
            }
            Deed::AckSequence { process, sequence } => {
                (scene::process(*process), Command::AckWake { sequence: Sequence(u64::from(*sequence)) })
            }
            Deed::Claim { process, owner, ttl_ms } => {
                let owner = scene::owner(*owner, session);
                (scene::process(*process), Command::ClaimLease { owner, ttl_ms: *ttl_ms })
            }
            Deed::Reclaim { process, owner, observed, ttl_ms } => {
                let id = scene::process(*process);
                let observed = Box::new(self.lease(&id, *observed)?.clone());
                (id, Command::ReclaimLease { owner: scene::owner(*owner, session), observed, ttl_ms: *ttl_ms })
            }
            Deed::Renew { process, lease, ttl_ms } => {
                let id = scene::process(*process);
                let lease = Box::new(self.lease(&id, *lease)?.clone());
                (id, Command::RenewLease { lease, ttl_ms: *ttl_ms })
            }
            Deed::Release { process, lease } => {
                let id = scene::process(*process);
                let lease_token = self.lease(&id, *lease)?.lease_token.clone();
                (id, Command::ReleaseLease { lease_token })
            }
            other => panic!("{other:?} is no command of one process"),
        })
    }

    fn lease(&self, id: &ProcessId, nth: u8) -> Option<&ProcessLease> {
        nth_last(self.leases.get(id)?, nth)
    }

    fn authority(&self, id: &ProcessId, right: &Right) -> WriteAuthority {
        match right {
            Right::Unfenced => WriteAuthority::Unfenced,
            Right::Lease(nth) => WriteAuthority::Holder(self.fence(id, *nth)),
        }
    }

    fn fence(&self, id: &ProcessId, nth: u8) -> LeaseFence {
        let nobodys = || LeaseToken::new("nobody's").expect("a token");
        self.lease(id, nth)
            .map_or_else(|| LeaseFence { lease_token: nobodys(), fencing_token: Fence(1) }, ProcessLease::fence)
    }
}

/// The nth-last of a list, from 0.
pub(super) fn nth_last<T>(list: &[T], nth: u8) -> Option<&T> {
    list.len().checked_sub(1 + usize::from(nth)).map(|index| &list[index])
}

fn request(id: &ProcessId, draft: &Draft) -> ProcessEventAppendRequest {
    let event_type = scene::TYPES[usize::from(draft.event_type) % scene::TYPES.len()];
    let key = match draft.key {
        Key::Absent => None,
        Key::Numbered(number) => Some(format!("k{number}")),
        Key::Completion => Some(format!("process:{id}:terminal:{event_type}")),
        Key::Foreign(number) => {
            let facts = ["first_started", "wake_acknowledged:1", "terminal:process.cancelled", "cancel_requested:1"];
            Some(format!("process:{id}:{}", facts[usize::from(number) % facts.len()]))
        }
    };
    let mut request = ProcessEventAppendRequest::new(event_type, scene::payload(id, event_type, draft.payload));
    request.replay_key = key.map(|key| ReplayKey::new(key).expect("a short key"));
    request.wake_target_scope = draft.target.map(scene::scope);
    request
}

/// What stays is counted to the end only by a prune that comes to it.
fn counted(receipt: RegistryReceipt) -> RegistryReceipt {
    match receipt {
        RegistryReceipt::Pruned(mut report) if report.more => {
            (report.kept_leased, report.kept_unprojected) = (0, 0);
            RegistryReceipt::Pruned(report)
        }
        other => other,
    }
}

fn hint_of(receipt: Option<&Receipt>) -> Hint {
    let hash = receipt.and_then(|receipt| receipt.record.as_ref()).map(|record| record.registration_hash.clone());
    let token = match receipt.and_then(|receipt| receipt.lease.as_ref()) {
        Some(ProcessLeaseClaimOutcome::Acquired { lease, .. }) => Some(lease.lease_token.clone()),
        _ => None,
    };
    Hint { token, hash: hash.unwrap_or_else(|| serde_json::from_value(json!("none was told")).expect("any text")) }
}

/// An error of a read, as a class.
pub(super) fn refused<T>(answer: Result<T, RegistryError>) -> Result<T, No> {
    answer.map_err(|error| class(&error))
}

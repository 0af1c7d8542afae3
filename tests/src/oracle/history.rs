//! Histories: steps from a seed, and a failing one made short and kept in a file.
//!
//! A step names what it means by small numbers that are looked up when it is taken (the second-last lease that was
//! heard of, the third cursor), so that a history from which steps were left out still means something.

use std::fmt::Write as _;

use registry_actor::domain::ProcessTerminalState;
use serde::{Deserialize, Serialize};

use super::scene::{FAILURES, OUTCOMES, OWNERS, PROCESSES, RETRYING, SCOPES, SHAPES, TYPES};
use super::subject::Backend;
use crate::seeded::Random;

/// One step of a history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Through which of the two handles.
    pub door: u8,
    /// What is read after it.
    pub reads: u64,
    /// What happens.
    pub deed: Deed,
}

/// What happens in a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Deed {
    Register {
        process: u8,
        shape: u8,
    },
    Append {
        process: u8,
        drafts: Vec<Draft>,
        right: Right,
    },
    Cancel {
        process: u8,
        reason: Option<u8>,
    },
    Complete {
        process: u8,
        outcome: u8,
        right: Right,
        release: bool,
    },
    FirstStart {
        process: u8,
        owner: u8,
        right: Right,
    },
    Begin {
        process: u8,
        owner: u8,
        lease: u8,
    },
    Fail {
        process: u8,
        failure: u8,
        lease: u8,
    },
    ExternalRef {
        process: u8,
        which: u8,
    },
    Abandon {
        process: u8,
        which: u8,
    },
    SetWait {
        process: u8,
        ordinal: u8,
        since_ms: u64,
        right: Right,
    },
    ClearWait {
        process: u8,
        right: Right,
    },
    /// The nth wake of the process, or just this sequence.
    AckWake {
        process: u8,
        nth: u8,
    },
    AckSequence {
        process: u8,
        sequence: u8,
    },
    Signal {
        process: u8,
        signal_id: u8,
        payload: u8,
    },
    Claim {
        process: u8,
        owner: u8,
        ttl_ms: u64,
    },
    Reclaim {
        process: u8,
        owner: u8,
        observed: u8,
        ttl_ms: u64,
    },
    Renew {
        process: u8,
        lease: u8,
        ttl_ms: u64,
    },
    Release {
        process: u8,
        lease: u8,
    },
    Grant {
        scope: u8,
        process: u8,
        label: Option<u8>,
    },
    Revoke {
        scope: u8,
        process: u8,
    },
    Transfer {
        from: u8,
        to: u8,
        processes: Vec<u8>,
    },
    DeleteSession {
        scope: u8,
    },
    Prune {
        age_ms: u64,
        state: Option<ProcessTerminalState>,
        kind: bool,
        red: bool,
        cursor: Option<u8>,
        limit: u32,
    },
    Pass {
        ms: u64,
    },
    /// The wall clock alone.
    Jump {
        ms: i64,
    },
    KillProcess {
        process: u8,
    },
    KillShard {
        process: u8,
    },
    KillPublisher,
    Rest,
    Reopen,
}

/// An event to be appended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draft {
    /// Which type.
    pub event_type: u8,
    /// Which payload of that type.
    pub payload: u8,
    /// Under which key.
    pub key: Key,
    /// Whom it wakes.
    pub target: Option<u8>,
}

/// A replay key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Key {
    /// None.
    Absent,
    /// One of a few.
    Numbered(u8),
    /// The key that a completion of this event's type has.
    Completion,
    /// A key of a fact that is not this event's.
    Foreign(u8),
}

/// By what right a write is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Right {
    /// None.
    Unfenced,
    /// Under the nth-last lease of the process that was heard of.
    Lease(u8),
}

/// The steps of a seed.
#[must_use]
pub fn history(seed: u64, steps: usize) -> Vec<Step> {
    let mut random = Random::new(seed);
    // The fewer there are, the more happens to each.
    let processes = 1 + random.small(PROCESSES);
    let mut history: Vec<Step> = (0..processes).map(|process| opening(&mut random, process)).collect();
    history.extend((processes.into()..steps).map(|_| step(&mut random, processes)));
    history
}

/// Most processes exist from the beginning: without one, every step is refused alike.
fn opening(random: &mut Random, process: u8) -> Step {
    let deed = Deed::Register { process, shape: *random.one_of(&[0, 1, 2, 3, RETRYING, RETRYING]) };
    Step { door: random.small(2), reads: random.below(u64::MAX), deed }
}

fn step(random: &mut Random, processes: u8) -> Step {
    Step { door: random.small(2), reads: random.below(u64::MAX), deed: deed(random, processes) }
}

fn deed(random: &mut Random, processes: u8) -> Deed {
    let process = random.small(processes);
    let ttl_ms = *random.one_of(&[0, 1, 20, 200, 60_000, u64::MAX]);
    match random.below(111) {
        0..6 => {
            Deed::Register { process, shape: if random.one_in(4) { random.small(SHAPES) } else { random.small(5) } }
        }
        6..32 => {
            let drafts = if random.one_in(3) { random.below(4) } else { 1 };
            Deed::Append { process, drafts: (0..drafts).map(|_| draft(random)).collect(), right: right(random) }
        }
        32..34 => Deed::Cancel { process, reason: random.one_in(2).then(|| random.small(2)) },
        34..40 => {
            let outcome = random.small(OUTCOMES);
            Deed::Complete { process, outcome, right: right(random), release: random.one_in(2) }
        }
        40..43 => Deed::FirstStart { process, owner: random.small(OWNERS), right: right(random) },
        43..45 => Deed::ExternalRef { process, which: random.small(3) },
        45..47 => Deed::Abandon { process, which: random.small(2) },
        47..50 => {
            let (ordinal, since_ms) = (1 + random.small(2), random.below(2));
            Deed::SetWait { process, ordinal, since_ms, right: right(random) }
        }
        50..52 => Deed::ClearWait { process, right: right(random) },
        52..56 => Deed::AckWake { process, nth: random.small(4) },
        56..57 => Deed::AckSequence { process, sequence: random.small(12) },
        57..59 => Deed::Signal { process, signal_id: random.small(3), payload: random.small(2) },
        59..66 => Deed::Claim { process, owner: random.small(OWNERS), ttl_ms },
        66..69 => Deed::Reclaim { process, owner: random.small(OWNERS), observed: random.small(3), ttl_ms },
        69..72 => Deed::Renew { process, lease: random.small(3), ttl_ms },
        72..75 => Deed::Release { process, lease: random.small(2) },
        75..79 => {
            let scopes = if random.one_in(8) { SCOPES } else { 4 };
            Deed::Grant { scope: random.small(scopes), process, label: random.one_in(2).then(|| random.small(2)) }
        }
        79..80 => Deed::Revoke { scope: random.small(SCOPES), process },
        80..82 => {
            let processes = (0..random.below(4)).map(|_| random.small(processes)).collect();
            Deed::Transfer { from: random.small(4), to: random.small(SCOPES), processes }
        }
        82..84 => Deed::DeleteSession { scope: random.small(SCOPES) },
        84..89 => Deed::Prune {
            // Steps are a millisecond apart, so that small ages are the exact time of some ending.
            age_ms: if random.one_in(2) { random.below(8) } else { 0 },
            state: random.one_in(5).then(|| *random.one_of(&ProcessTerminalState::ALL)),
            kind: random.one_in(5),
            red: random.one_in(5),
            cursor: random.one_in(2).then(|| random.small(3)),
            limit: *random.one_of(&[0, 1, 1, 1_000, 1_000, u32::MAX]),
        },
        89..91 => Deed::Pass { ms: *random.one_of(&[1, 19, 200, 60_000]) },
        91..92 => Deed::Jump { ms: *random.one_of(&[-50, 50, -100_000, 100_000]) },
        92..95 => Deed::KillProcess { process },
        95..96 => Deed::KillShard { process },
        96..97 => Deed::KillPublisher,
        97..99 => Deed::Rest,
        99..100 => Deed::Reopen,
        100..106 => Deed::Begin { process, owner: random.small(OWNERS), lease: random.small(2) },
        _ => Deed::Fail { process, failure: random.small(FAILURES), lease: random.small(2) },
    }
}

fn right(random: &mut Random) -> Right {
    if random.one_in(2) { Right::Unfenced } else { Right::Lease(random.small(2)) }
}

fn draft(random: &mut Random) -> Draft {
    // Endings are rare, so that something happens before them.
    let types = if random.one_in(3) { TYPES.len() as u64 } else { 6 };
    let event_type = u8::try_from(random.below(types)).expect("few");
    let payload = random.small(8);
    let key = match random.below(8) {
        0..3 => Key::Absent,
        3..6 => Key::Numbered(random.small(6)),
        6 => Key::Completion,
        _ => Key::Foreign(random.small(4)),
    };
    let target = random.one_in(4).then(|| random.small(4));
    match key {
        // Mostly the same under the same key, so that most of them are replays and not conflicts.
        Key::Numbered(number) if !random.one_in(4) => Draft { event_type: number, payload: 5 * number, key, target },
        _ => Draft { event_type, payload, key, target },
    }
}

/// A history that fails or once failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// Over which log.
    pub backend: Backend,
    /// Its steps.
    pub steps: Vec<Step>,
}

/// The text of a kept case: what happened, as comments, and a step in each line.
#[must_use]
pub fn write_case(case: &Case, story: &str) -> String {
    let mut text = String::new();
    for line in story.lines() {
        writeln!(text, "# {line}").expect("a string takes it");
    }
    writeln!(text, "{:?}", case.backend).expect("a string takes it");
    for step in &case.steps {
        let line = serde_json::to_string(step).expect("a step has a JSON form");
        writeln!(text, "{line}").expect("a string takes it");
    }
    text
}

/// The case of a text.
///
/// # Panics
/// If it is none.
#[must_use]
pub fn read_case(text: &str) -> Case {
    let mut lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    let backend = match lines.next() {
        Some("Memory") => Backend::Memory,
        Some("Sqlite") => Backend::Sqlite,
        other => panic!("a case begins with its backend, got {other:?}"),
    };
    Case { backend, steps: lines.map(|line| serde_json::from_str(line).expect("a step")).collect() }
}

/// Leaves steps out for as long as it still fails: halves first, then ever smaller pieces, then one by one until no single
/// step can be spared.
pub fn shrink(steps: Vec<Step>, mut fails: impl FnMut(&[Step]) -> bool) -> Vec<Step> {
    let mut steps = steps;
    let mut piece = steps.len().div_ceil(2);
    loop {
        let before = steps.len();
        let mut at = 0;
        while at < steps.len() {
            let end = (at + piece).min(steps.len());
            let shorter = [&steps[..at], &steps[end..]].concat();
            if fails(&shorter) {
                steps = shorter;
            } else {
                at = end;
            }
        }
        if piece > 1 {
            piece = piece.div_ceil(2);
        } else if steps.len() == before {
            return steps;
        }
    }
}

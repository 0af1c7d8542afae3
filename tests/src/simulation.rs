//! A deterministic run of whole registries: one thread, virtual time, a log in memory, and an order that comes from a
//! seed.
//!
//! The runtime has one thread and a clock that stands still while anybody can run, so that what happens depends on its
//! inputs alone. The seed chooses these: what clients ask and when, how long the log takes for each answer, what fails,
//! what is killed, how the wall clock jumps, and when the hosts are restarted over the store. Whatever can be observed is
//! written to a [`Transcript`](transcript::Transcript); [`Invariant`] lists what must hold of every run.
//!
//! One order is not the seed's: ractor 0.16 keeps the children of an actor in a map with std's random hash keys, by
//! ids that are counted through the whole process, and several that die with their shard die in the order of that
//! map. It is the only one: with that map ordered, a hundred thousand seeds repeated themselves. A seed whose two
//! plays differ is therefore decided by a [`Player`]: two more plays, each in a process of its own, where ids begin
//! anew and hash keys are fixed. Any map with std's keys has one order there, ours too, so that whoever plays many
//! seeds has to bound how many are decided so.
//!
//! The sink here is told inline, by a wrapped registry: the mailbox of a sink has a thread of its own, which no seed
//! brings back.

pub mod client;
pub mod clock;
pub mod host;
mod invariants;
pub mod ledger;
pub mod log;
mod player;
pub mod transcript;
pub mod world;

pub use invariants::{Broken, Invariant};
pub use player::Player;
use serde::{Deserialize, Serialize};

use crate::seeded::Random;
use world::World;

/// The dimensions of a run.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// How many processes.
    pub processes: u64,
    /// How many clients.
    pub clients: u32,
    /// How many steps each of them takes.
    pub steps: u64,
    /// How many wait without a deadline.
    pub waiters: u32,
    /// How many registries write to the store.
    pub hosts: u64,
    /// How many shards each of them has.
    pub shards: usize,
    /// How soon an idle process comes to rest.
    pub passivate_after_ms: u64,
    /// Whether callers see a registry that does not tell of its commits.
    pub is_quiet: bool,
    /// How often the hosts may be restarted.
    pub restarts: u64,
    /// Strikes come at most so far apart.
    pub strike_every_ms: u64,
}

/// What became of a run.
#[derive(Debug, Serialize, Deserialize)]
pub struct Run {
    /// Its seed.
    pub seed: u64,
    /// Its transcript.
    pub transcript: String,
    /// What did not hold.
    pub broken: Vec<Broken>,
    /// What could not be decided: it did not hold, and it was not broken either.
    pub undecided: Vec<String>,
    /// Whether two plays in one process differed, so that two in processes of their own decided.
    pub is_from_own_process: bool,
    /// How many calls were recorded.
    pub calls: usize,
    /// How many events were stored.
    pub events: usize,
}

impl Plan {
    /// The dimensions that a seed chooses.
    #[must_use]
    pub const fn of_seed(seed: u64) -> Self {
        let mut dice = Random::new(seed ^ 0x0070_6c61_6e00);
        Self {
            processes: 1 + dice.below(3),
            clients: 2 + dice.below(3) as u32,
            steps: 8 + dice.below(14),
            waiters: 1 + dice.below(3) as u32,
            hosts: 1 + (dice.below(3) == 0) as u64,
            shards: 1 + dice.below(3) as usize,
            passivate_after_ms: [20, 60, 1_000][dice.below(3) as usize],
            is_quiet: dice.below(4) == 0,
            restarts: [0, 0, 1, 2][dice.below(4) as usize],
            strike_every_ms: [6, 15, 40][dice.below(3) as usize],
        }
    }
}

/// Whether a seed brings back the bytes of its transcript.
///
/// An actor whose ports are ready at one instant, such as those for a kill and for a message, takes one of them by tokio's
/// dice (ractor's `select!` has no order). Only a build with `--cfg tokio_unstable`, which `.cargo/config.toml` asks for, can
/// seed them; the environment variable `RUSTFLAGS` overrides that file.
pub const IS_REPEATABLE: bool = cfg!(tokio_unstable);

/// A runtime of one thread, whose clock stands still while anybody can run, and whose dice come from the seed.
fn runtime(seed: u64) -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true);
    #[cfg(tokio_unstable)]
    builder.rng_seed(tokio::runtime::RngSeed::from_bytes(&seed.to_le_bytes()));
    #[cfg(not(tokio_unstable))]
    let _ = seed;
    builder.build().expect("a runtime")
}

/// Plays a seed, on a runtime of its own.
///
/// # Panics
/// If no runtime can be built.
#[must_use]
pub fn play(seed: u64) -> Run {
    runtime(seed).block_on(async {
        let world = World::new(seed, Plan::of_seed(seed)).await;
        let broken = world.play().await;
        let (calls, events) = (world.recorder.calls().len(), world.ledger.entries().events.len());
        Run {
            seed,
            transcript: world.transcript.take(),
            broken,
            undecided: world.left_undecided(),
            is_from_own_process: false,
            calls,
            events,
        }
    })
}

/// Plays a seed twice: what holds of one play has to hold of the other, and, if [`IS_REPEATABLE`], their
/// transcripts are equal to the byte. Where they are not, two more plays by the player decide, and theirs have to
/// be equal.
///
/// # Panics
/// If the player cannot be started, or ends without telling what became of the run.
#[must_use]
pub fn play_twice(seed: u64, player: &Player) -> Run {
    let mut here = play(seed);
    let again = play(seed);
    here.broken.extend(again.broken);
    if !IS_REPEATABLE || here.transcript == again.transcript {
        return here;
    }
    let (mut first, second) = (player.play(seed), player.play(seed));
    first.is_from_own_process = true;
    first.broken.extend(second.broken.into_iter().chain(here.broken));
    if first.transcript != second.transcript {
        let what = match first.transcript.lines().zip(second.transcript.lines()).find(|(left, right)| left != right) {
            Some((left, right)) => format!("`{left}` once and `{right}` the other time"),
            None => "one transcript ends before the other".to_owned(),
        };
        first.broken.push(Broken { invariant: Invariant::Deterministic, what });
    }
    first
}

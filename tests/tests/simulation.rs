//! Whole registries in virtual time, from seeds: see [`registry_tests::simulation`].
//!
//! `PROCTOR_SIM_SEEDS` says how many seeds are played (500 unless it is set), `PROCTOR_SIM_FIRST` which is the first,
//! `PROCTOR_SIM_THREADS` on how many threads, each with a runtime of its own, and `PROCTOR_SIM_TWICE` how many of them are
//! played twice and compared, as one in so many (1, all of them, unless it is set). `PROCTOR_SIM_SEED` plays one seed and
//! says where its transcript is.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use registry_tests::scoreboard::{RunRecord, record};
use registry_tests::simulation::{IS_REPEATABLE, Invariant, Player, Run, play, play_twice};

/// How much of a transcript is printed.
const TAIL: usize = 40;
/// So many failing seeds are told of in full.
const TOLD: usize = 3;
/// One seed in so many may be too wide for the search for an order. More of them would be a check that is not made.
const UNDECIDED_IN: u64 = 1_000;
/// One seed in so many of those played twice, and a few, may be decided in processes of their own. There a map of ours
/// with random hash keys has one order too, so that more of them would hide it.
const DECIDED_APART_IN: u64 = 200;
const DECIDED_APART_ANYWAY: u64 = 5;
/// Seeds in which ractor chooses an order often: two plays of them in one process mostly differ.
const SHUFFLED: [u64; 3] = [651, 2067, 5507];

fn player() -> Player {
    Player::new(env!("CARGO_BIN_EXE_simulation-player"))
}

fn env(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn tell(run: &Run) -> String {
    let lines: Vec<&str> = run.transcript.lines().collect();
    let tail = lines[lines.len().saturating_sub(TAIL)..].join("\n");
    let broken: Vec<String> =
        run.broken.iter().map(|broken| format!("{:?}: {}", broken.invariant, broken.what)).collect();
    format!("seed {}:\n{}\n{tail}\n", run.seed, broken.join("\n"))
}

/// What all seeds came to.
#[derive(Default)]
struct Total {
    calls: AtomicU64,
    events: AtomicU64,
    failed: Mutex<Vec<Run>>,
    /// Seeds of which an invariant was left undecided.
    undecided: Mutex<Vec<u64>>,
    /// Seeds that were decided in processes of their own.
    decided_apart: Mutex<Vec<u64>>,
}

fn play_all(seeds: std::ops::Range<u64>, threads: u64, twice_in: u64) -> Total {
    let (total, next, enough) = (Total::default(), AtomicU64::new(seeds.start), AtomicBool::new(false));
    let player = player();
    let give_up_after = env("PROCTOR_SIM_FAILURES").unwrap_or(20);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || enough.load(Ordering::Relaxed) {
                        return;
                    }
                    let mut run = if seed.is_multiple_of(twice_in) { play_twice(seed, &player) } else { play(seed) };
                    total.calls.fetch_add(run.calls as u64, Ordering::Relaxed);
                    total.events.fetch_add(run.events as u64, Ordering::Relaxed);
                    if run.is_from_own_process {
                        total.decided_apart.lock().expect("nobody panics with it").push(seed);
                    }
                    if !run.undecided.is_empty() {
                        total.undecided.lock().expect("nobody panics with it").push(seed);
                    }
                    if !run.broken.is_empty() {
                        let mut failed = total.failed.lock().expect("nobody panics with it");
                        if failed.len() >= TOLD {
                            run.transcript.clear();
                        }
                        failed.push(run);
                        enough.fetch_or(failed.len() as u64 >= give_up_after, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    total
}

#[test]
fn every_seed_keeps_every_promise_and_repeats_itself() {
    if let Some(seed) = env("PROCTOR_SIM_SEED") {
        let run = play_twice(seed, &player());
        let file = std::env::temp_dir().join(format!("proctor-simulation-{seed}.txt"));
        std::fs::write(&file, &run.transcript).expect("the transcript can be written");
        println!("{} calls, {} events, transcript in {}", run.calls, run.events, file.display());
        run.undecided.iter().for_each(|what| println!("undecided: {what}"));
        assert!(run.broken.is_empty(), "{}", tell(&run));
        return;
    }
    let seeds = env("PROCTOR_SIM_SEEDS").unwrap_or(500);
    let first = env("PROCTOR_SIM_FIRST").unwrap_or(0);
    let threads = env("PROCTOR_SIM_THREADS").unwrap_or(2);
    let twice_in = env("PROCTOR_SIM_TWICE").unwrap_or(1).max(1);
    let comparison = if IS_REPEATABLE {
        "transcripts compared to the byte"
    } else {
        "transcripts not compared: built without --cfg tokio_unstable"
    };
    println!("{seeds} seeds from {first} on {threads} threads, one in {twice_in} twice, {comparison}");
    let begin = Instant::now();
    let total = play_all(first..first + seeds, threads, twice_in);
    let failed = total.failed.into_inner().expect("nobody panics with it");
    let mut undecided = total.undecided.into_inner().expect("nobody panics with it");
    undecided.sort_unstable();
    let mut decided_apart = total.decided_apart.into_inner().expect("nobody panics with it");
    decided_apart.sort_unstable();
    let (calls, events) = (total.calls.into_inner(), total.events.into_inner());
    println!(
        "{calls} calls, {events} events, {} seeds failed, {} undecided, {} decided in own processes, in {:.1} s",
        failed.len(),
        undecided.len(),
        decided_apart.len(),
        begin.elapsed().as_secs_f64()
    );
    if !undecided.is_empty() {
        println!("the search for an order was given up for the seeds {undecided:?}");
    }
    if !decided_apart.is_empty() {
        println!("decided in processes of their own: the seeds {decided_apart:?}");
    }
    for run in &failed {
        let broken: std::collections::BTreeSet<Invariant> = run.broken.iter().map(|broken| broken.invariant).collect();
        println!("seed {}: {broken:?}", run.seed);
    }
    let mut by_invariant: BTreeMap<Invariant, u64> = BTreeMap::new();
    for run in &failed {
        let broken: std::collections::BTreeSet<Invariant> = run.broken.iter().map(|broken| broken.invariant).collect();
        for invariant in broken {
            *by_invariant.entry(invariant).or_default() += 1;
        }
    }
    record(&RunRecord {
        name: "simulation".to_owned(),
        what:
            "whole registries on one thread in virtual time, with everything killed, delayed, lost and restarted as a \
               seed says; each transcript is compared with that of a second run, for one seed in some"
                .to_owned(),
        ran: seeds,
        unit: "seeds".to_owned(),
        seed: Some(first),
        violations: failed.len() as u64,
        measured: BTreeMap::from([
            ("calls".to_owned(), calls.to_string()),
            ("events".to_owned(), events.to_string()),
            ("seeds left undecided".to_owned(), undecided.len().to_string()),
            ("seeds decided in processes of their own".to_owned(), decided_apart.len().to_string()),
            ("played twice".to_owned(), format!("one in {twice_in}, {comparison}")),
        ]),
        not_run: None,
    });
    let played_twice = seeds.div_ceil(twice_in);
    let may_be_apart = played_twice / DECIDED_APART_IN + DECIDED_APART_ANYWAY;
    let stories: Vec<String> = failed.iter().take(TOLD).map(tell).collect();
    assert!(undecided.len() as u64 <= seeds / UNDECIDED_IN, "{} seeds are undecided", undecided.len());
    assert!(failed.is_empty(), "{by_invariant:?} in {} seeds\n{}", failed.len(), stories.join("\n"));
    assert!(
        decided_apart.len() as u64 <= may_be_apart,
        "{} of {played_twice} seeds differ between two plays of one process, expected at most {may_be_apart}",
        decided_apart.len()
    );
}

#[test]
fn a_seed_has_one_transcript_in_processes_of_its_own() {
    if !IS_REPEATABLE {
        return;
    }
    let player = player();
    for seed in SHUFFLED {
        let first = player.play(seed);
        assert!(first.broken.is_empty() && !first.transcript.is_empty(), "{}", tell(&first));
        for _ in 0..4 {
            assert!(player.play(seed).transcript == first.transcript, "seed {seed} has two transcripts");
        }
    }
}

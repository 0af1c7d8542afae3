//! Power cuts at every place of recorded loads: whatever was acknowledged is there, and what is there verifies.
//!
//! `PROCTOR_POWER_CUT_POINTS` says how many images are made, `PROCTOR_SEED` which ones. 100,000 of them:
//! `PROCTOR_POWER_CUT_POINTS=100000 cargo test -p registry-tests --release --test power_cut_points -- --nocapture`

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use registry_tests::crash_writer::Syncing;
use registry_tests::fault_vfs::{Files, Kept, Operation};
use registry_tests::recorded_power_cut::{Beginning, Recording, Violation, fast_directory, record};
use registry_tests::scoreboard::{self, RunRecord};
use registry_tests::seeded::{self, Random};

/// How many lives of a store follow each other: each begins with what a loss of power left of the one before.
const LIVES: u64 = 4;

/// What was done and found.
#[derive(Debug, Default)]
struct Tally {
    images: u64,
    lives: u64,
    operations: u64,
    checkpoints: u64,
    acknowledged: u64,
    lost: u64,
    broken: BTreeMap<String, u64>,
    first: Option<String>,
}

impl Tally {
    fn violations(&self) -> u64 {
        self.broken.values().sum()
    }

    fn note(&mut self, place: &str, violations: &[Violation]) {
        self.lost += violations.iter().filter(|violation| matches!(violation, Violation::Lost(_))).count() as u64;
        // One image is one violation, however much is wrong with it: the worst names it.
        let kind = match violations {
            all if all.iter().any(|one| matches!(one, Violation::Unopenable(_))) => "unopenable",
            all if all.iter().any(|one| matches!(one, Violation::Damaged(_))) => "damaged",
            all if all.iter().any(|one| matches!(one, Violation::Invented(_))) => "invented",
            _ => "lost",
        };
        *self.broken.entry(kind.to_owned()).or_default() += 1;
        self.first.get_or_insert_with(|| format!("{place}: {violations:?}"));
    }
}

/// Cuts the power at so many places, on as many threads as the machine has, two at most.
fn cut_at(points: u64, seed: u64, syncing: Syncing) -> Tally {
    let tally = Mutex::new(Tally::default());
    let (stores, left) = (AtomicU64::new(0), AtomicU64::new(points));
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get().min(2));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
                while left.load(Ordering::Relaxed) > 0 {
                    let store = stores.fetch_add(1, Ordering::Relaxed);
                    runtime.block_on(lives_of_a_store(seed, store, points, syncing, &left, &tally));
                }
            });
        }
    });
    tally.into_inner().expect("no thread panicked")
}

async fn lives_of_a_store(
    seed: u64,
    store: u64,
    points: u64,
    syncing: Syncing,
    left: &AtomicU64,
    tally: &Mutex<Tally>,
) {
    let mut random = Random::new(Random::new(seed.wrapping_add(store)).next());
    let directory = fast_directory();
    let mut beginning = Beginning::default();
    for life in 0..LIVES {
        let recording = record(beginning, random.next(), syncing).await;
        // A short run takes some places of several lives, a long one every place of many.
        let places = recording.history.len() as u64 + 1;
        let stride = (places * 8 / points).max(1);
        let first = random.below(stride);
        let next = random.below(places);
        beginning = Beginning::default();
        let mut disk = recording.disk(Kept::ByChance);
        {
            let mut tally = tally.lock().expect("no thread panicked");
            tally.lives += 1;
            tally.operations += places - 1;
            tally.acknowledged += recording.acknowledged() as u64;
            tally.checkpoints += checkpoints(&recording);
        }
        for cut in 0..places {
            let place = usize::try_from(cut).expect("a small number");
            if cut > 0 {
                disk.replay(&recording.history[place - 1], &mut random);
            }
            if cut % stride != first && cut != next {
                continue;
            }
            if left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_err() {
                return;
            }
            let files: Files = disk.after_power_cut(&mut random);
            let checked = recording.check(place, &files, directory.path()).await;
            let mut tally = tally.lock().expect("no thread panicked");
            tally.images += 1;
            match checked {
                Ok(found) if cut == next => beginning = found,
                Ok(_) => {}
                Err(violations) => {
                    tally.note(&format!("store {store}, life {life}, cut {cut} of {places}"), &violations)
                }
            }
        }
    }
}

/// How often the log file was moved into the database: its syncs beside those of the log file.
fn checkpoints(recording: &Recording) -> u64 {
    let synced = |operation: &&Operation| matches!(operation, Operation::Sync { file } if &**file == "store.db");
    recording.history.iter().filter(synced).count() as u64
}

#[test]
fn a_power_cut_at_any_place_loses_nothing_acknowledged() {
    let points = std::env::var("PROCTOR_POWER_CUT_POINTS").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000);
    let seed = seeded::seed();
    let begun = Instant::now();
    let tally = cut_at(points, seed, Syncing::Full);
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{} power cuts at places of {} recorded lives ({} operations, {} acknowledged facts, {} checkpoints) in {seconds:.0} s: \
         broken {:?}",
        tally.images, tally.lives, tally.operations, tally.acknowledged, tally.checkpoints, tally.broken
    );
    scoreboard::record(&RunRecord {
        name: "power-cut-points".to_owned(),
        what:
            "Power cuts at recorded writes and syncs, what was not synced kept, dropped or torn; each image opened for \
               writing, verified and held against what was acknowledged"
                .to_owned(),
        ran: tally.images,
        unit: "cut points".to_owned(),
        seed: Some(seed),
        violations: tally.violations(),
        measured: BTreeMap::from([
            ("recorded lives".to_owned(), tally.lives.to_string()),
            ("acknowledged facts".to_owned(), tally.acknowledged.to_string()),
            ("checkpoints".to_owned(), tally.checkpoints.to_string()),
        ]),
        not_run: None,
    });
    assert_eq!(tally.images, points);
    assert_eq!(tally.violations(), 0, "seed {seed}: {}", tally.first.unwrap_or_default());
    assert!(tally.checkpoints > 0 && tally.acknowledged > 0);
}

/// The control: the same load without a sync at each commit must be found out, or the test above shows nothing.
#[test]
fn a_store_that_does_not_sync_its_commits_is_found_out() {
    let seed = seeded::seed();
    let tally = cut_at(400, seed, Syncing::Normal);
    println!(
        "synchronous=NORMAL: {} of {} images lost {} acknowledged facts",
        tally.violations(),
        tally.images,
        tally.lost
    );
    assert!(tally.violations() * 20 > tally.images, "seed {seed}: only {tally:?}");
    assert_eq!(
        tally.broken.keys().collect::<Vec<_>>(),
        ["lost"],
        "it loses, but it damages nothing: {:?}",
        tally.first
    );
}

//! The n-th call of a store fails: everybody is answered, the store heals, and nothing acknowledged is lost.
//!
//! The load is run once to count its calls, and then once for each call that fails, in each way and for a while. Here some
//! of them; `PROCTOR_IO_ERRORS=all` takes every one, `PROCTOR_SEED` repeats the power cuts on the way.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use registry_tests::crash_writer::Syncing;
use registry_tests::fault_vfs::{CallKind, Failure, Fault, Span};
use registry_tests::io_errors::{IoRun, faults, run};
use registry_tests::scoreboard::{self, RunRecord};
use registry_tests::seeded;

/// How many calls of a kind, in each way, fail in the short run; every sync does.
const SOME: u64 = 12;

/// All runs together.
#[derive(Debug, Default)]
struct Tally {
    runs: u64,
    reached: u64,
    all: IoRun,
    broken: BTreeMap<String, u64>,
    violated: u64,
}

impl Tally {
    fn add(&mut self, fault: Option<Fault>, run: IoRun) {
        self.runs += 1;
        self.reached += u64::from(run.failed > 0);
        let all = &mut self.all;
        all.failed += run.failed;
        all.stored += run.stored;
        all.not_accepted += run.not_accepted;
        all.unknown_stored += run.unknown_stored;
        all.unknown_not_stored += run.unknown_not_stored;
        all.not_opened += run.not_opened;
        all.reads_meanwhile += run.reads_meanwhile;
        all.reads_failed += run.reads_failed;
        all.power_cuts += run.power_cuts;
        all.half_made += run.half_made;
        if !run.violations.is_empty() {
            self.violated += 1;
            let kind = fault.map_or_else(
                || "no fault".to_owned(),
                |fault| format!("{:?} {:?} {:?}", fault.kind, fault.failure, fault.span),
            );
            *self.broken.entry(kind).or_default() += 1;
            for violation in run.violations {
                all.violations.push(format!("{fault:?}: {violation}"));
            }
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime")
}

fn run_all(faults: &[Fault], seed: u64) -> Tally {
    let tally = Mutex::new(Tally::default());
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get().min(2));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((number, fault)) = {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    faults.get(number).map(|fault| (number, *fault))
                } {
                    let run = runtime().block_on(run(Some(fault), Syncing::Full, seed.wrapping_add(number as u64)));
                    tally.lock().expect("no thread panicked").add(Some(fault), run);
                }
            });
        }
    });
    tally.into_inner().expect("no thread panicked")
}

#[test]
fn a_failed_call_costs_nobody_an_answer_and_the_store_nothing_acknowledged() {
    let seed = seeded::seed();
    let begun = Instant::now();
    let whole = runtime().block_on(run(None, Syncing::Full, seed));
    assert_eq!(whole.violations, Vec::<String>::new(), "without a fault");
    assert!(whole.calls.values().all(|calls| *calls > 0), "the load makes calls of each kind: {:?}", whole.calls);
    let all = std::env::var("PROCTOR_IO_ERRORS").is_ok_and(|text| text == "all");
    let faults = faults(&whole.calls, if all { u64::MAX } else { SOME });
    let tally = run_all(&faults, seed);
    println!("calls of the load: {:?}", whole.calls);
    println!(
        "{} runs with a fault, {} reached it, {} calls failed, in {:.0} s: broken {:?}",
        tally.runs,
        tally.reached,
        tally.all.failed,
        begun.elapsed().as_secs_f64(),
        tally.broken
    );
    println!(
        "{} stored, {} not accepted, {} unknown and stored, {} unknown and not stored, {} openings failed, {} reads while the \
         store was not whole, {} reads failed by a call of their own, {} power cuts",
        tally.all.stored,
        tally.all.not_accepted,
        tally.all.unknown_stored,
        tally.all.unknown_not_stored,
        tally.all.not_opened,
        tally.all.reads_meanwhile,
        tally.all.reads_failed,
        tally.all.power_cuts
    );
    let number = |count: u64| count.to_string();
    scoreboard::record(&RunRecord {
        name: "io-errors".to_owned(),
        what: "One scripted load for each call that fails (EIO, ENOSPC, half a write, failed syncs), once, thrice and for a \
               while; then the store reopened, and after power cuts on the way"
            .to_owned(),
        ran: tally.runs,
        unit: "faults".to_owned(),
        seed: Some(seed),
        violations: tally.violated,
        measured: BTreeMap::from([
            ("faults reached".to_owned(), number(tally.reached)),
            ("answered as not accepted".to_owned(), number(tally.all.not_accepted)),
            ("unknown, found stored".to_owned(), number(tally.all.unknown_stored)),
            ("unknown, found not stored".to_owned(), number(tally.all.unknown_not_stored)),
            ("reads while the store was not whole".to_owned(), number(tally.all.reads_meanwhile)),
            ("power cuts on the way".to_owned(), number(tally.all.power_cuts)),
            ("power cuts that left half of a store that had not been opened yet".to_owned(), number(tally.all.half_made)),
        ]),
        not_run: (!all).then(|| format!("only {SOME} calls of a kind, but every sync: PROCTOR_IO_ERRORS=all takes every one")),
    });
    let first: Vec<_> = tally.all.violations.iter().take(5).collect();
    assert!(first.is_empty(), "seed {seed}: {} violations, the first are {first:#?}", tally.all.violations.len());
    assert!(tally.reached * 10 >= tally.runs * 9, "the load makes other calls each time: {tally:?}");
    assert!(tally.all.unknown_stored > 0 && tally.all.unknown_not_stored > 0 && tally.all.not_accepted > 0);
    assert!(tally.all.reads_meanwhile > 0);
}

/// SQLite tells the new journal mode before the change of it is committed. A store whose change had failed was once used
/// with a rollback journal whose removal nobody syncs: a loss of power brought it back, and it took back what had been
/// acknowledged.
#[test]
fn a_store_whose_journal_mode_did_not_change_is_not_opened() {
    for kind in [CallKind::Delete, CallKind::Sync] {
        for nth in 1..=8 {
            let fault = Fault { kind, nth, failure: Failure::InputOutput, span: Span::Calls(1) };
            let run = runtime().block_on(run(Some(fault), Syncing::Full, nth));
            assert_eq!(run.violations, Vec::<String>::new(), "{fault:?}");
            assert_eq!(run.not_opened > 0, run.failed > 0, "{fault:?}");
        }
    }
}

/// A full disk is a state: what is stored is read all the time, and when there is room again the store goes on by itself.
#[test]
fn a_full_disk_is_a_state_that_ends() {
    let whole = runtime().block_on(run(None, Syncing::Full, 1));
    // In the middle of the load, when there is something to read.
    let nth = whole.calls[&CallKind::Write] * 2 / 3;
    let fault = Fault { kind: CallKind::Write, nth, failure: Failure::NoSpace, span: Span::UntilCleared };
    let full = runtime().block_on(run(Some(fault), Syncing::Full, 1));
    assert_eq!(full.violations, Vec::<String>::new());
    assert!(full.failed > 0 && full.reads_meanwhile > 0 && full.reads_failed == 0, "{full:?}");
}

/// The control: a store that does not sync its commits loses what it acknowledged, and these runs see it.
#[test]
fn a_store_that_does_not_sync_its_commits_is_found_out() {
    let mut lost = 0;
    for seed in 0..10 {
        let run = runtime().block_on(run(None, Syncing::Normal, seed));
        lost += u64::from(run.violations.iter().any(|violation| violation.contains("Lost")));
    }
    println!("synchronous=NORMAL: {lost} of 10 runs lost what was acknowledged");
    assert!(lost > 0);
}

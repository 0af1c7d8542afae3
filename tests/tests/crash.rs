//! Hosts that are killed, and machines that lose power, in the middle of writing: whatever was acknowledged is there,
//! and what is there verifies.

use std::path::Path;

use registry_actor::port::FaultPoint;
use registry_tests::crash_writer::{CrashFindings, CrashWriter, Syncing, check};
use registry_tests::power_cut::CuttableDisk;
use registry_tests::scoreboard::{RunRecord, record};
use registry_tests::seeded::{Random, seed};
use rustix::process::Signal;

const WRITER: &str = env!("CARGO_BIN_EXE_crash-writer");

/// How often a test goes round; a longer run asks for more.
fn rounds(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// How many rounds use one store: each child opens what the one before it left in the middle of its work, and the store
/// stays small.
const ROUNDS_OF_A_STORE: u64 = 4;

#[tokio::test(flavor = "multi_thread")]
async fn a_host_killed_under_mixed_load_loses_no_acknowledged_fact() {
    let rounds = rounds("PROCTOR_KILL_ROUNDS", 20) as u64;
    let seed = seed();
    let mut random = Random::new(seed);
    let (mut directory, mut acknowledged) = (tempfile::tempdir().expect("a directory"), Vec::new());
    let (mut facts, mut served) = (0, Vec::new());
    for round in 0..rounds {
        if round % ROUNDS_OF_A_STORE == 0 {
            (directory, acknowledged) = (tempfile::tempdir().expect("a directory"), Vec::new());
        }
        let store = directory.path().join("store.db");
        let writer = CrashWriter::start(Path::new(WRITER), &store, Syncing::Full, round);
        writer.wait_for(usize::try_from(random.below(1_000)).expect("a small number"));
        let told = writer.kill();
        facts += told.len();
        acknowledged.extend(told);
        let after = check(&store, &acknowledged, &[], round).await;
        assert_eq!(after.findings, CrashFindings::default(), "seed {seed}, round {round}");
        served.push(after.time_to_serve);
    }
    served.sort_unstable();
    let at = |percent: usize| served[(served.len() - 1) * percent / 100];
    let (median, p99) = (format!("{:.1?}", at(50)), format!("{:.1?}", at(99)));
    println!("{rounds} kills: {facts} acknowledged facts, none lost, every chain verifies");
    println!("from the look at the store to the first answered command: median {median}, p99 {p99}");
    record(&RunRecord {
        name: "kill".to_owned(),
        what:
            "kill -9 of a host under mixed load; its store is opened, verified and searched for each acknowledged fact"
                .to_owned(),
        ran: rounds,
        unit: "kills".to_owned(),
        seed: Some(seed),
        violations: 0,
        measured: [
            ("acknowledged facts".to_owned(), facts.to_string()),
            ("median time to serve".to_owned(), median),
            ("p99 time to serve".to_owned(), p99),
        ]
        .into(),
        not_run: None,
    });
}

/// The points of the matrix of the supervised restarts, for the one way to die that takes the test with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_aborts_at_a_named_point_loses_no_acknowledged_fact() {
    let mut random = Random::new(seed());
    let points = FaultPoint::ALL.iter().map(|point| format!("{point:?}")).chain(["Restarting".to_owned()]);
    for (number, point) in points.enumerate() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = directory.path().join("store.db");
        let mut acknowledged = Vec::new();
        for run in 0..2 {
            let passage = 1 + random.below(if point == "Restarting" { 4 } else { 20 });
            let cell = format!("abort at {point}, passage {passage}, host {run}, point {number}");
            let writer = CrashWriter::start_to_abort(Path::new(WRITER), &store, run, &point, passage);
            let (signal, told) = writer.aborted();
            assert_eq!(signal, Some(Signal::ABORT.as_raw()), "{cell}");
            acknowledged.extend(told);
            assert_eq!(check(&store, &acknowledged, &[], run).await.findings, CrashFindings::default(), "{cell}");
        }
    }
}

/// One power cut while a host writes; answers what was acknowledged before it, and what the check found.
async fn cut(syncing: Syncing, random: &mut Random) -> Result<(usize, CrashFindings), String> {
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    let disk = CuttableDisk::create(directory.path(), 256)?;
    let store = disk.path().join("store.db");
    let writer = CrashWriter::start(Path::new(WRITER), &store, syncing, 0);
    writer.wait_for(usize::try_from(500 + random.below(4_000)).expect("a small number"));
    // Counted before the cut: what is acknowledged after it may be of a commit that the cut overtook.
    let acknowledged = writer.acknowledged();
    disk.cut_power()?;
    let all = writer.kill();
    disk.restore_power()?;
    let findings = check(&store, &acknowledged, &all[acknowledged.len()..], 0).await.findings;
    Ok((acknowledged.len(), findings))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_loses_no_acknowledged_fact_and_the_test_has_teeth() {
    let rounds = rounds("PROCTOR_POWER_CUT_ROUNDS", 5);
    let mut random = Random::new(seed());
    let mut kept = 0;
    for round in 0..rounds {
        match cut(Syncing::Full, &mut random).await {
            Ok((acknowledged, findings)) => {
                assert_eq!(findings, CrashFindings::default(), "round {round}");
                kept += acknowledged;
            }
            Err(reason) if round == 0 => {
                println!("power cuts NOT RUN on this machine: {reason}");
                return;
            }
            Err(reason) => panic!("round {round}: {reason}"),
        }
    }
    println!("{rounds} power cuts: {kept} acknowledged facts, none lost");
    // The same load on a store that does not sync its commits. Some cut in a few must show a loss, or the test above
    // shows nothing.
    for attempt in 1..=5 {
        let (acknowledged, findings) = cut(Syncing::Normal, &mut random).await.expect("it ran before");
        if !findings.lost.is_empty() {
            let lost = findings.lost.len();
            println!("synchronous=NORMAL: cut {attempt} lost {lost} of {acknowledged} acknowledged facts");
            return;
        }
    }
    panic!("five power cuts of a store with synchronous=NORMAL lost nothing: this test has no teeth");
}

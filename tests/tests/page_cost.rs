//! What a page costs does not depend on where it is: steps of SQLite's machine and pages read from the file are the same at
//! the beginning and at the end of a large store, and a walk along all of it needs no more memory than one page.
//!
//! `PROCTOR_PAGE_COST_PROCESSES` and `PROCTOR_PAGE_COST_EVENTS` set the size; the gate takes a small store.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use registry_actor::domain::{
    ChangeCursor, Command, ProcessEventAppendRequest, ProcessEventType, ProcessId, ProcessInput, ProcessListFilter,
    ProcessRegistration, ProcessStatusFilter, RecoveryDisposition, RegistrationCursor, Sequence, WriteAuthority,
};
use registry_actor::log::{SqliteLog, SqliteOptions, SqliteReader};
use registry_actor::port::{Answer, EventPage, ProcessLog, ProcessPage, Query};
use registry_tests::log_author::{Author, process_id, submit, submit_later};
use serde_json::json;

/// Events of a rare type stand this far apart: a multiple of what an index block holds, so that each search looks the same.
const MARK_EVERY: u64 = 2_560;
const MARK: &str = "mark";
const LINE: &str = "line";
const PAGE: u32 = 500;
const DEEP: &str = "zz-deep";

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

fn registration(id: ProcessId, number: u64) -> ProcessRegistration {
    let mut registration = ProcessRegistration::new(
        id,
        ProcessInput::external(json!({ "label": format!("label-{}", number % 7) })),
        RecoveryDisposition::ExternallyOwned,
    )
    .with_extra_event_types([ProcessEventType::plain(LINE), ProcessEventType::plain(MARK)])
    .with_tags([format!("tag-{}", number % 3)]);
    registration.identity.kind = format!("kind-{}", number % 5);
    registration
}

async fn fill(path: &Path, processes: u64, events: u64) {
    let log = SqliteLog::open(path, SqliteOptions::default()).expect("a store");
    let mut under_way = Vec::new();
    for number in 0..processes {
        let id = format!("p{number:08}");
        let registration = Box::new(registration(process_id(&id), number));
        under_way.push(submit_later(&log, Author::new(&id).batch(&[Command::Register { registration }])));
        if under_way.len() == 2_000 {
            for answered in under_way.drain(..) {
                answered.await.expect("an answer").expect("a registration");
            }
        }
    }
    for answered in under_way {
        answered.await.expect("an answer").expect("a registration");
    }
    let mut deep = Author::new(DEEP);
    let registration = Box::new(registration(process_id(DEEP), 0));
    deep.write(&log, Command::Register { registration }).await.expect("a registration");
    let mut written = 0;
    while written < events {
        let requests = (written + 1..=(written + 1_000).min(events)).map(|number| {
            let event_type = if number % MARK_EVERY == 0 { MARK } else { LINE };
            ProcessEventAppendRequest::new(
                event_type,
                json!({ "number": number, "text": "sixty characters of output, as a command would print it" }),
            )
        });
        let requests: Vec<_> = requests.collect();
        written += requests.len() as u64;
        let batch = deep.batch(&[Command::Append { events: requests, authority: WriteAuthority::Unfenced }]);
        let head = submit(&log, batch.clone()).await.expect("an append");
        deep.install(&batch, head);
    }
    log.close().await;
}

/// What one read costs, with nothing cached.
#[derive(Debug, Clone, Copy)]
struct Cost {
    steps: u64,
    pages: u64,
}

/// Bytes that this process has read, whoever asked and whether or not they came from the disk.
fn bytes_read() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").expect("the system tells");
    let line = io.lines().find_map(|line| line.strip_prefix("rchar: ")).expect("a line");
    line.trim().parse().expect("a number")
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("the system tells");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

async fn cost(path: &Path, query: Query) -> (Cost, Answer) {
    let steps = Arc::new(AtomicU64::new(0));
    let reader = SqliteReader::open_metered(path, Arc::clone(&steps)).expect("a reader");
    // Its first read opens the connection and reads the schema.
    reader.query(Query::Process { process_id: process_id("nobody") }).await.expect("an answer");
    let (steps_before, bytes_before) = (steps.load(Ordering::Relaxed), bytes_read());
    let answer = reader.query(query).await.expect("an answer");
    let bytes = bytes_read() - bytes_before;
    (Cost { steps: steps.load(Ordering::Relaxed) - steps_before, pages: bytes / 4_096 }, answer)
}

/// Costs of the same kind of read at several places.
struct Row {
    name: &'static str,
    costs: Vec<Cost>,
}

impl Row {
    /// Whether all places cost the same within a tenth, or within two pages where there are few.
    fn is_flat(&self) -> bool {
        let flat = |value: fn(&Cost) -> u64, slack: u64| {
            let (least, most) = self
                .costs
                .iter()
                .map(value)
                .fold((u64::MAX, 0), |(least, most), value| (least.min(value), most.max(value)));
            most - least <= (least / 10).max(slack)
        };
        flat(|cost| cost.steps, 8) && flat(|cost| cost.pages, 2)
    }
}

fn table(rows: &[Row]) -> String {
    let mut text = String::from("read                  VM steps at each place | pages read at each place\n");
    for row in rows {
        let steps: Vec<_> = row.costs.iter().map(|cost| cost.steps).collect();
        let pages: Vec<_> = row.costs.iter().map(|cost| cost.pages).collect();
        writeln!(text, "{:<22}{steps:?} | {pages:?}", row.name).expect("a string takes it");
    }
    text
}

/// Walks along the whole feed; answers cursors at the beginning, in the middle and before the end, and the growth in KiB.
async fn walk_feed(path: &Path) -> (Vec<Option<ChangeCursor>>, u64, u64) {
    let reader = SqliteReader::open(path).expect("a reader");
    let (mut cursors, mut changes, mut after) = (vec![None], 0, None);
    let mut resident = None;
    loop {
        let answer = reader.query(Query::Changes { after: after.clone(), limit: PAGE }).await.expect("a page");
        let Answer::Changes(page) = answer else { panic!("expected changes") };
        changes += page.entries.len() as u64;
        if !page.has_more {
            let first = resident.expect("more than one page");
            return (cursors, changes, resident_kib().saturating_sub(first));
        }
        cursors.push(Some(page.next.clone()));
        after = Some(page.next);
        if cursors.len() == 20 {
            resident = Some(resident_kib());
        }
    }
}

async fn walk_list(path: &Path) -> (u64, u64) {
    let reader = SqliteReader::open(path).expect("a reader");
    let (mut records, mut after, mut pages) = (0, None, 0);
    let mut resident = None;
    loop {
        let filter = ProcessListFilter::any();
        let answer = reader.query(Query::Processes { filter, after, limit: 100 }).await.expect("a page");
        let Answer::Processes(ProcessPage { records: page, has_more, .. }) = answer else { panic!("expected records") };
        records += page.len() as u64;
        pages += 1;
        if pages == 20 {
            resident = Some(resident_kib());
        }
        if !has_more {
            let first = resident.expect("enough pages");
            return (records, resident_kib().saturating_sub(first));
        }
        after = page.last().map(|record| record.id().clone());
    }
}

#[tokio::test]
async fn a_page_costs_the_same_wherever_it_is() {
    let processes = setting("PROCTOR_PAGE_COST_PROCESSES", 6_000);
    let events = setting("PROCTOR_PAGE_COST_EVENTS", 26_000);
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("store.db");
    fill(&path, processes, events).await;

    let mut rows = Vec::new();
    let filters = [
        ("list_page, all", ProcessListFilter::any()),
        ("list_page, running", ProcessListFilter::of_status(ProcessStatusFilter::Running)),
        ("list_page, kind", ProcessListFilter { kind: Some("kind-1".to_owned()), ..ProcessListFilter::any() }),
        ("list_page, label", ProcessListFilter { label: Some("label-1".to_owned()), ..ProcessListFilter::any() }),
        ("list_page, tag", ProcessListFilter { tags: ["tag-1".to_owned()].into(), ..ProcessListFilter::any() }),
    ];
    for (name, filter) in filters {
        let mut costs = Vec::new();
        // The last place from which every filter still fills a page: one process in seven has the label.
        let last = processes - 7 * u64::from(PAGE) - 100;
        for place in [0, last / 3, last / 2, last] {
            let after = Some(process_id(&format!("p{place:08}")));
            let query = Query::Processes { filter: filter.clone(), after, limit: PAGE };
            let (cost, answer) = cost(&path, query).await;
            assert!(
                matches!(answer, Answer::Processes(page) if page.records.len() == PAGE as usize),
                "{name} at {place}"
            );
            costs.push(cost);
        }
        rows.push(Row { name, costs });
    }
    for (name, filter) in [
        ("recent, all", ProcessListFilter::any()),
        ("recent, running", ProcessListFilter::of_status(ProcessStatusFilter::Running)),
        ("recent, label", ProcessListFilter { label: Some("label-1".to_owned()), ..ProcessListFilter::any() }),
        ("recent, tag", ProcessListFilter { tags: ["tag-1".to_owned()].into(), ..ProcessListFilter::any() }),
    ] {
        let mut costs = Vec::new();
        let first = 7 * u64::from(PAGE) + 100;
        // The store numbers its processes as they are registered. The last of all is deep, and read elsewhere.
        for place in [processes, processes - (processes - first) / 3, u64::midpoint(processes, first), first] {
            let before = Some(RegistrationCursor::new(place));
            let (cost, answer) =
                cost(&path, Query::RecentProcesses { filter: filter.clone(), before, limit: PAGE }).await;
            let Answer::RecentProcesses(page) = answer else { panic!("expected records") };
            assert_eq!((page.records.len(), page.next.is_some()), (PAGE as usize, true), "{name} before {place}");
            costs.push(cost);
        }
        rows.push(Row { name, costs });
    }

    let (cursors, changes, feed_growth) = walk_feed(&path).await;
    assert_eq!(changes, processes + events + 1, "registrations and events, none twice");
    let mut costs = Vec::new();
    // Registrations are larger than lines of output: places are compared with their like.
    let first_of_lines = usize::try_from(processes / u64::from(PAGE) + 2).expect("small");
    for place in [first_of_lines, usize::midpoint(first_of_lines, cursors.len()), cursors.len() - 2] {
        costs.push(cost(&path, Query::Changes { after: cursors[place].clone(), limit: PAGE }).await.0);
    }
    rows.push(Row { name: "changes_since, lines", costs });
    let mut costs = Vec::new();
    for place in [1, first_of_lines / 2, first_of_lines - 4] {
        costs.push(cost(&path, Query::Changes { after: cursors[place].clone(), limit: PAGE }).await.0);
    }
    rows.push(Row { name: "changes_since, begun", costs });

    let mut costs = Vec::new();
    for after in [1_000, events / 10, events / 2, events - u64::from(PAGE) - 1] {
        let query = Query::Events { process_id: process_id(DEEP), after: Sequence(after), limit: PAGE };
        let (cost, answer) = cost(&path, query).await;
        assert!(matches!(answer, Answer::Events(EventPage { events, .. }) if events.len() == PAGE as usize));
        costs.push(cost);
    }
    rows.push(Row { name: "events_page", costs });

    let mut costs = Vec::new();
    let marks = events / MARK_EVERY;
    for mark in [1, marks / 2, marks] {
        let sequence = mark * MARK_EVERY;
        let query = Query::FirstEventOfType {
            process_id: process_id(DEEP),
            event_type: MARK.to_owned(),
            after: Sequence(sequence - 1_000),
        };
        let (cost, answer) = cost(&path, query).await;
        assert!(matches!(answer, Answer::Event(Some(event)) if event.sequence.0 == sequence));
        costs.push(cost);
    }
    rows.push(Row { name: "first_event_of_type", costs });

    let (records, list_growth) = walk_list(&path).await;
    assert_eq!(records, processes + 1);
    println!("{processes} processes, {events} events\n{}", table(&rows));
    println!("memory after a walk along all: list +{list_growth} KiB, feed +{feed_growth} KiB");
    for row in &rows {
        assert!(row.is_flat(), "{} is not flat: {:?}", row.name, row.costs);
    }
    // The page caches of the readers' connections are 2 MB each.
    assert!(list_growth < 8 * 1_024 && feed_growth < 8 * 1_024, "list {list_growth} KiB, feed {feed_growth} KiB");
}

//! Cases about lists: 15, 21, W25, filters, and pages beside writers.

use std::collections::BTreeMap;

use registry_actor::domain::{
    InvalidFilter, OriginatorFilter, ProcessAwaitOutput, ProcessFailureClass, ProcessId, ProcessListFilter,
    ProcessOriginator, ProcessPruneReport, ProcessSignal, ProcessStatusFilter, ProjectionWatermark, PruneFilter,
    RegistrationCursor, Sequence, SessionScope, TimeRange, WaitState,
};
use registry_actor::port::{Clock, ProcessRegistryExt};
use serde_json::{Value, json};

use super::example::*;
use super::stage::{FoldChecked, Stage};

async fn shown(registry: &FoldChecked, filter: ProcessListFilter) -> Vec<String> {
    ids(&registry.list_processes(filter).await.expect("a list"))
}

/// 15.
pub async fn c15_list_processes_filters_by_status_and_waiting(stage: &mut Stage) {
    let registry = &stage.registry;
    for name in ["c", "a", "waiting", "failed", "cancelled"] {
        registered(registry, name).await;
    }
    registry.complete_process(&process_id("c"), success(1)).await.expect("an outcome");
    let failure = ProcessAwaitOutput::failure(ProcessFailureClass::Execution, "code", "text");
    registry.complete_process(&process_id("failed"), failure).await.expect("an outcome");
    let cancelled = ProcessAwaitOutput::cancelled("text");
    registry.complete_process(&process_id("cancelled"), cancelled).await.expect("an outcome");
    let id = process_id("waiting");
    let wait = WaitState::signal(&id, &ProcessSignal::new("go").expect("a signal"), 1, 1);
    registry.set_process_wait(&id, wait).await.expect("a wait");

    assert_eq!(shown(registry, any()).await, ["a", "c", "cancelled", "failed", "waiting"]);
    for (status, expected) in [
        (ProcessStatusFilter::Running, &["a", "waiting"][..]),
        (ProcessStatusFilter::Completed, &["c"]),
        (ProcessStatusFilter::Failed, &["failed"]),
        (ProcessStatusFilter::Cancelled, &["cancelled"]),
        (ProcessStatusFilter::Abandoned, &[]),
    ] {
        assert_eq!(shown(registry, of_status(status)).await, expected, "{status:?}");
    }
    let waiting = |status, waiting| ProcessListFilter { waiting: Some(waiting), ..of_status(status) };
    assert_eq!(shown(registry, waiting(ProcessStatusFilter::Running, true)).await, ["waiting"]);
    assert_eq!(shown(registry, waiting(ProcessStatusFilter::Running, false)).await, ["a"]);
    let idle = ["a", "c", "cancelled", "failed"];
    assert_eq!(shown(registry, waiting(ProcessStatusFilter::Any, false)).await, idle);
}

/// 21.
pub async fn c21_list_non_terminal_excludes_terminal_processes(stage: &mut Stage) {
    let registry = &stage.registry;
    for name in ["c", "b", "a", "d"] {
        registered(registry, name).await;
    }
    registry.complete_process(&process_id("b"), success(1)).await.expect("an outcome");
    assert_eq!(ids(&registry.list_non_terminal().await.expect("a list")), ["a", "c", "d"]);
}

/// W25: a filter that cannot be read is refused, and null leaves its part open.
pub async fn w25_filters_are_read_strictly(stage: &mut Stage) {
    let registry = &stage.registry;
    let id = process_id("p");
    let mut spec = registration(&id);
    spec.identity.definition = Some(json!({"name": "d"}));
    registry.register_process(spec).await.expect("a registration");
    registered(registry, "q").await;
    let decoded = |filter: Value| ProcessListFilter::decode(&filter);
    let open = decoded(json!({"definition": null, "status": "any"})).expect("a filter");
    assert_eq!(shown(registry, open).await, ["p", "q"]);
    let named = decoded(json!({"definition": {"name": "d"}})).expect("a filter");
    assert_eq!(shown(registry, named).await, ["p"]);
    let texts = [
        (json!([]), "expects a record of process filters"),
        (json!({"other": 1}), "unknown filter `other`"),
        (json!({"status": 7}), "status must be"),
        (json!({"status": "odd"}), "status must be"),
        (json!({"waiting": "yes"}), "must be a boolean"),
        (json!({"tags": "one"}), "must be a list of strings"),
        (json!({"created": {"since": 1}}), "must be a range"),
    ];
    for (filter, text) in texts {
        let invalid: InvalidFilter = decoded(filter.clone()).expect_err("no filter");
        assert!(invalid.to_string().contains(text), "{filter}: {invalid}");
    }
}

/// Each field of a filter narrows, and fields narrow together.
pub async fn every_field_of_a_filter_narrows_and_all_narrow_together(stage: &mut Stage) {
    let registry = &stage.registry;
    let start = stage.clock.now().epoch_ms;
    for (name, originator) in [
        ("host", ProcessOriginator::Host),
        ("session", ProcessOriginator::Session { scope: session("s") }),
        ("frame", ProcessOriginator::Session { scope: SessionScope::frame("s", "f") }),
        ("other", ProcessOriginator::Session { scope: session("t") }),
    ] {
        let id = process_id(name);
        let mut spec = registration(&id).with_tags(["all", name]);
        spec.identity.kind = format!("kind {name}");
        spec.identity.label = Some(format!("label {name}"));
        spec.identity.definition = Some(json!({"of": name}));
        spec.provenance.originator = originator;
        registry.register_process(spec).await.expect("a registration");
        stage.clock.advance_ms(10);
    }
    registry.append_event(&process_id("host"), note(1)).await.expect("an append");
    registry.complete_process(&process_id("other"), success(1)).await.expect("an outcome");

    let filter = |json: Value| {
        let mut fields = json!({"status": "any"});
        for (key, value) in json.as_object().expect("a record") {
            fields[key] = value.clone();
        }
        ProcessListFilter::decode(&fields).expect("a filter")
    };
    let cases = [
        (json!({}), &["frame", "host", "other", "session"][..]),
        (json!({"kind": "kind frame"}), &["frame"]),
        (json!({"label": "label host"}), &["host"]),
        (json!({"definition": {"of": "session"}}), &["session"]),
        (json!({"originator": "host"}), &["host"]),
        (json!({"originator": {"session": {"session_id": "s"}}}), &["frame", "session"]),
        (json!({"originator": {"session": {"session_id": "s", "agent_frame_id": "f"}}}), &["frame"]),
        (json!({"originator": {"session": {"session_id": "u"}}}), &[]),
        (json!({"tags": ["all"]}), &["frame", "host", "other", "session"]),
        (json!({"tags": ["all", "host"]}), &["host"]),
        (json!({"tags": ["host", "frame"]}), &[]),
        (json!({"created": {"from_ms": start + 10}}), &["frame", "other", "session"]),
        (json!({"created": {"until_ms": start + 10}}), &["host"]),
        (json!({"created": {"from_ms": start + 10, "until_ms": start + 30}}), &["frame", "session"]),
        (json!({"updated": {"from_ms": start + 40}}), &["host", "other"]),
        (json!({"updated": {"until_ms": start + 20}}), &["session"]),
        (json!({"status": "completed"}), &["other"]),
        (json!({"status": "running", "tags": ["all"], "created": {"from_ms": start + 10}}), &["frame", "session"]),
        (json!({"status": "running", "tags": ["other"]}), &[]),
        (json!({"kind": "kind frame", "label": "label host"}), &[]),
        (json!({"waiting": true}), &[]),
    ];
    for (fields, expected) in cases {
        assert_eq!(shown(registry, filter(fields.clone())).await, expected, "{fields}");
    }
    let inverted = TimeRange { from_ms: Some(u64::MAX), until_ms: Some(0) };
    assert!(shown(registry, ProcessListFilter { created: inverted, ..any() }).await.is_empty());
    let widest = TimeRange { from_ms: Some(0), until_ms: Some(u64::MAX) };
    assert_eq!(shown(registry, ProcessListFilter { created: widest, updated: widest, ..any() }).await.len(), 4);
    let host = ProcessListFilter { originator: Some(OriginatorFilter::Host), ..any() };
    assert_eq!(shown(registry, host).await, ["host"]);
}

/// Between two pages processes come and end: none that was there throughout is missed or shown twice.
pub async fn pages_of_processes_beside_writers_miss_nothing_and_double_nothing(stage: &mut Stage) {
    let registry = &stage.registry;
    for number in 0..20 {
        registered(registry, &format!("p{number:02}")).await;
    }
    for filter in [any(), ProcessListFilter::default()] {
        let before = shown(registry, filter.clone()).await;
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        let (mut after, mut round): (Option<ProcessId>, u32) = (None, 0);
        loop {
            let page = registry.list_page(filter.clone(), after.clone(), 3).await.expect("a page");
            let names = ids(&page.records);
            assert!(names.is_sorted() && names.len() <= 3);
            assert!(!page.has_more || names.len() == 3, "a page that is not the last is full");
            after = page.records.last().map(|record| record.id().clone()).or(after);
            for name in names {
                *seen.entry(name).or_default() += 1;
            }
            if !page.has_more {
                break;
            }
            // Behind and ahead of the cursor, and one ends on either side.
            registered(registry, &format!("a{round:02}-{}", before.len())).await;
            registered(registry, &format!("p{:02}-new-{}", 2 + round * 4, before.len())).await;
            for name in [format!("p{:02}", round * 2), format!("p{:02}", 19 - round)] {
                registry.complete_process(&process_id(&name), success(1)).await.expect("an outcome");
            }
            round += 1;
        }
        assert!(round > 3, "there were pages to come between");
        assert!(seen.values().all(|times| *times == 1), "{seen:?}");
        let there_throughout = shown(registry, filter).await.into_iter().filter(|name| before.contains(name));
        for name in there_throughout {
            assert!(seen.contains_key(&name), "{name} was missed");
        }
    }
}

/// Newest first, whatever the ids are: by registration and not by time, through ends, filters, prunes and second lives.
pub async fn recent_processes_come_newest_first_and_go_on_where_they_ended(stage: &mut Stage) {
    async fn walk(registry: &FoldChecked, filter: &ProcessListFilter, limit: u32) -> Vec<String> {
        let (mut names, mut before): (Vec<String>, _) = (Vec::new(), None);
        loop {
            let page = registry.recent_processes(filter.clone(), before, limit).await.expect("a page");
            assert!(page.next.is_none() || page.records.len() == limit as usize, "a page that is not the last is full");
            assert!(page.next.is_none_or(|next| before.is_none_or(|before| next < before)), "it goes back");
            names.extend(ids(&page.records));
            before = page.next;
            if before.is_none() {
                return names;
            }
        }
    }
    let registry = &stage.registry;
    for name in ["m", "z", "b", "y", "a", "c"] {
        let mut spec = registration(&process_id(name)).with_tags(["all", if name < "m" { "low" } else { "high" }]);
        spec.identity.label = Some(if name == "y" { "rare" } else { "common" }.to_owned());
        registry.register_process(spec).await.expect("a registration");
    }
    for name in ["z", "a"] {
        registry.complete_process(&process_id(name), success(1)).await.expect("an outcome");
    }
    let running = ProcessListFilter::default;
    let tagged = |tags: &[&str]| ProcessListFilter { tags: tags.iter().map(|&tag| tag.into()).collect(), ..any() };
    let labelled = |label: &str| ProcessListFilter { label: Some(label.into()), ..any() };
    for limit in [1, 2, 3, 6, 100] {
        for (filter, expected) in [
            (any(), &["c", "a", "y", "b", "z", "m"][..]),
            (running(), &["c", "y", "b", "m"]),
            (of_status(ProcessStatusFilter::Completed), &["a", "z"]),
            (of_status(ProcessStatusFilter::Failed), &[]),
            (tagged(&["low"]), &["c", "a", "b"]),
            (tagged(&["all", "high"]), &["y", "z", "m"]),
            (ProcessListFilter { tags: tagged(&["low"]).tags, ..running() }, &["c", "b"]),
            (labelled("common"), &["c", "a", "b", "z", "m"]),
            (labelled("rare"), &["y"]),
            (ProcessListFilter { waiting: Some(true), ..any() }, &[]),
        ] {
            assert_eq!(walk(registry, &filter, limit).await, expected, "{filter:?} by {limit}");
        }
    }

    // What is registered meanwhile stands before the reader, and a later life where it was registered.
    let first = registry.recent_processes(any(), None, 2).await.expect("a page");
    registered(registry, "n").await;
    stage.clock.advance_ms(10);
    let until = ProcessPruneReport { pruned_processes: 2, pruned_events: 2, ..ProcessPruneReport::default() };
    let filter = PruneFilter::ended_before(stage.clock.now().epoch_ms);
    let pruned = registry.prune_terminal_processes(filter, ProjectionWatermark::NoProjector).await;
    assert_eq!(pruned.expect("a prune"), until);
    registered(registry, "z").await;
    assert_eq!(ids(&first.records), ["c", "a"]);
    let rest = registry.recent_processes(any(), first.next, 100).await.expect("a page");
    assert_eq!((ids(&rest.records), rest.next), (vec!["y".into(), "b".into(), "m".into()], None));
    assert_eq!(walk(registry, &any(), 2).await, ["z", "n", "c", "y", "b", "m"]);
    // A cursor of nobody is a place like any other.
    for (place, expected) in [(0, 0), (u64::MAX, 6)] {
        let page = registry.recent_processes(any(), Some(RegistrationCursor::new(place)), 100).await.expect("a page");
        assert_eq!(page.records.len(), expected, "before {place}");
    }
}

/// W14: events come in pages, and the first of a type is found however long the log is.
pub async fn w14_events_come_in_pages_and_the_first_of_a_type_is_found(stage: &mut Stage) {
    let registry = &stage.registry;
    let id = pinging(registry, "p", &session("s")).await;
    for round in 0..3 {
        registry.append_events(&id, (0..200).map(|number| note(round * 200 + number)).collect()).await.expect("notes");
        registry.append_event(&id, ping("a")).await.expect("a wake");
    }
    let mut seen = Vec::new();
    loop {
        let after = seen.last().copied().unwrap_or(0);
        let page = registry.events_page(&id, Sequence(after), 100).await.expect("a page");
        seen.extend(sequences(&page.events));
        if seen.len() == 300 {
            registry.append_event(&id, note(0)).await.expect("an append beside the reader");
        }
        if !page.has_more {
            break;
        }
    }
    assert_eq!(seen, (1..=604).collect::<Vec<_>>());
    for (after, expected) in [(0, Some(201)), (200, Some(201)), (201, Some(402)), (402, Some(603)), (603, None)] {
        let found = registry.first_event_of_type(&id, "ping", Sequence(after)).await.expect("a read");
        assert_eq!(found.map(|event| event.sequence.0), expected, "after {after}");
    }
    assert_eq!(registry.first_event_of_type(&id, "undeclared", Sequence(0)).await.expect("a read"), None);
    let first = registry.wake_events_after(&id, Sequence(0), 2).await.expect("wakes");
    assert_eq!((sequences(&first.events), first.has_more), (vec![201, 402], true));
    let rest = registry.wake_events_after(&id, Sequence(402), 2).await.expect("wakes");
    assert_eq!((sequences(&rest.events), rest.has_more), (vec![603], false));
}

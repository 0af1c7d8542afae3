//! List filters: what they read, what they show, what they refuse.

use registry_actor::domain::{
    AbandonEvidence, AbandonWriter, InvalidFilter, Limits, OriginatorFilter, ProcessAwaitOutput, ProcessFailureClass,
    ProcessListFilter, ProcessOriginator, ProcessStatusFilter, Refusal, SessionScope, TimeRange,
};
use serde_json::{Value, json};

use crate::world::*;

fn decoded(json: &Value) -> ProcessListFilter {
    ProcessListFilter::decode(json).unwrap_or_else(|invalid| panic!("{json}: {invalid}"))
}

fn wrong(key: &str, value: &Value, found: &str) {
    let json = json!({ key: value });
    let invalid = ProcessListFilter::decode(&json).expect_err("no filter");
    let InvalidFilter::WrongValue { key: of, found: shown, .. } = &invalid else { panic!("{invalid:?}") };
    assert_eq!((of.as_str(), shown.as_str()), (key, found), "{json}");
    assert!(serde_json::from_value::<ProcessListFilter>(json).is_err(), "as JSON it is none either");
}

fn nested(levels: usize) -> Value {
    (0..levels).fold(json!(0), |inner, _| json!([inner]))
}

#[test]
fn a_filter_that_says_nothing_shows_what_runs() {
    assert_eq!(decoded(&json!({})), ProcessListFilter::default());
    assert_eq!(ProcessListFilter::default().status, ProcessStatusFilter::Running);
    let nulls = json!({
        "status": null, "kind": null, "label": null, "definition": null, "originator": null, "waiting": null,
        "created": null, "updated": null, "tags": null,
    });
    assert_eq!(decoded(&nulls), ProcessListFilter::default(), "a null leaves its part open");
}

#[test]
fn each_key_is_read() {
    let json = json!({
        "status": "failed",
        "kind": "tool",
        "label": "build",
        "definition": {"v": [1, null]},
        "originator": {"session": {"session_id": "s", "agent_frame_id": "f"}},
        "waiting": false,
        "created": {"from_ms": 1, "until_ms": 2},
        "updated": {"from_ms": 3},
        "tags": ["b", "a", "b"],
    });
    let expected = ProcessListFilter {
        status: ProcessStatusFilter::Failed,
        kind: Some("tool".into()),
        label: Some("build".into()),
        definition: Some(json!({"v": [1, null]})),
        originator: Some(OriginatorFilter::Session(SessionScope::frame("s", "f"))),
        waiting: Some(false),
        created: TimeRange { from_ms: Some(1), until_ms: Some(2) },
        updated: TimeRange { from_ms: Some(3), until_ms: None },
        tags: ["a".to_owned(), "b".to_owned()].into(),
    };
    assert_eq!(decoded(&json), expected);
    assert_eq!(
        decoded(&serde_json::to_value(&expected).expect("has a JSON form")),
        expected,
        "it reads what it writes"
    );
    assert_eq!(decoded(&json!({"originator": "host"})).originator, Some(OriginatorFilter::Host));
    for (word, status) in [
        ("running", ProcessStatusFilter::Running),
        ("completed", ProcessStatusFilter::Completed),
        ("failed", ProcessStatusFilter::Failed),
        ("cancelled", ProcessStatusFilter::Cancelled),
        ("abandoned", ProcessStatusFilter::Abandoned),
        ("any", ProcessStatusFilter::Any),
    ] {
        assert_eq!(decoded(&json!({"status": word})), ProcessListFilter::of_status(status));
    }
    assert_eq!(ProcessListFilter::any(), ProcessListFilter::of_status(ProcessStatusFilter::Any));
}

#[test]
fn what_is_no_record_of_filters_is_refused() {
    for (json, found) in [
        (json!(null), "null"),
        (json!("running"), "\"running\""),
        (json!(7), "7"),
        (json!(true), "true"),
        (json!(["status"]), "a list"),
    ] {
        let invalid = ProcessListFilter::decode(&json).expect_err("no filter");
        assert_eq!(invalid, InvalidFilter::NotARecord { found: found.into() });
        assert!(invalid.to_string().starts_with("process list expects a record of process filters"), "{invalid}");
    }
    let long = ProcessListFilter::decode(&json!("é".repeat(1_000))).expect_err("no filter");
    assert_eq!(long, InvalidFilter::NotARecord { found: format!("\"{}", "é".repeat(79)) });
}

/// The peer read a filter with an unknown key as one that shows everything else it says: a misspelt `status` listed what
/// nobody had asked for.
#[test]
fn a_key_that_no_filter_has_is_refused_with_those_that_are_known() {
    for key in ["stauts", "Status", "", "definition.kind", "created_at_ms"] {
        let json = json!({"status": "any", key: 1});
        let invalid = ProcessListFilter::decode(&json).expect_err("no filter");
        let InvalidFilter::UnknownKey { key: found, known } = &invalid else { panic!("{invalid:?}") };
        assert_eq!(found, key);
        for key in ["status", "kind", "label", "definition", "originator", "waiting", "created", "updated", "tags"] {
            assert!(known.split(", ").any(|known| known == key), "{key} is not among {known}");
        }
        assert!(invalid.to_string().starts_with(&format!("unknown filter `{key}`")), "{invalid}");
        assert!(serde_json::from_value::<ProcessListFilter>(json).is_err(), "as JSON it is none either");
    }
    let invalid = ProcessListFilter::decode(&json!({ "k".repeat(1_000): 1 })).expect_err("no filter");
    assert!(matches!(invalid, InvalidFilter::UnknownKey { key, .. } if key == "k".repeat(80)));
}

/// The peer took a status that was no string for none, and showed what runs.
#[test]
fn a_value_that_its_key_does_not_take_is_refused() {
    wrong("status", &json!(7), "7");
    wrong("status", &json!("done"), "\"done\"");
    wrong("status", &json!("Running"), "\"Running\"");
    wrong("status", &json!(["running"]), "a list");
    let invalid = ProcessListFilter::decode(&json!({"status": 7})).expect_err("no filter").to_string();
    assert!(
        invalid.contains("status must be one of running, completed, failed, cancelled, abandoned, any"),
        "{invalid}"
    );
    for key in ["kind", "label"] {
        wrong(key, &json!(7), "7");
        wrong(key, &json!(["a"]), "a list");
    }
    wrong("originator", &json!("guest"), "\"guest\"");
    wrong("originator", &json!({"session": {}}), "a record");
    wrong("originator", &json!({"session": "s"}), "a record");
    wrong("originator", &json!({"session": {"session_id": "s"}, "host": null}), "a record");
    wrong("waiting", &json!("true"), "\"true\"");
    wrong("waiting", &json!(0), "0");
    for key in ["created", "updated"] {
        wrong(key, &json!(7), "7");
        wrong(key, &json!({"from": 1}), "a record");
        wrong(key, &json!({"from_ms": -1}), "a record");
        wrong(key, &json!({"from_ms": 1.5}), "a record");
        wrong(key, &json!({"from_ms": "1"}), "a record");
        wrong(key, &json!({"from_ms": 1, "to_ms": 2}), "a record");
    }
    wrong("tags", &json!("ci"), "\"ci\"");
    wrong("tags", &json!(["ci", 7]), "a list");
    wrong("tags", &json!({"ci": true}), "a record");
}

#[test]
fn what_nests_too_deep_is_refused_and_not_read() {
    for key in ["status", "originator", "tags"] {
        let json = json!({ key: nested(Limits::JSON_LEVELS + 1) });
        let invalid = ProcessListFilter::decode(&json).expect_err("no filter");
        let too_deep = format!("nested deeper than {} levels", Limits::JSON_LEVELS);
        assert!(matches!(invalid, InvalidFilter::WrongValue { found, .. } if found == too_deep));
    }
}

#[test]
fn a_filter_is_checked_before_anything_is_read() {
    let ok = |filter: ProcessListFilter| assert_eq!(filter.check(), Ok(()));
    let long = "x".repeat(Limits::NAME_BYTES);
    let too_long = "x".repeat(Limits::NAME_BYTES + 1);
    let any = ProcessListFilter::any;
    ok(any());
    ok(ProcessListFilter { kind: Some(long.clone()), label: Some(long.clone()), ..any() });
    for (what, filter) in [
        ("kind", ProcessListFilter { kind: Some(too_long.clone()), ..any() }),
        ("label", ProcessListFilter { label: Some(too_long.clone()), ..any() }),
        ("tag", ProcessListFilter { tags: [too_long.clone()].into(), ..any() }),
        (
            "session id",
            ProcessListFilter { originator: Some(OriginatorFilter::Session(SessionScope::session(too_long))), ..any() },
        ),
    ] {
        assert_eq!(filter.check(), Err(too_large(what, Limits::NAME_BYTES, Limits::NAME_BYTES + 1)));
    }
    assert_eq!(
        ProcessListFilter { kind: Some(" ".into()), ..any() }.check(),
        Err(Refusal::EmptyName { what: "kind".into() })
    );
    let tags = |count: usize| (0..count).map(|number| format!("t{number}")).collect();
    ok(ProcessListFilter { tags: tags(Limits::TAGS), ..any() });
    assert_eq!(
        ProcessListFilter { tags: tags(Limits::TAGS + 1), ..any() }.check(),
        Err(too_many("tags", Limits::TAGS, Limits::TAGS + 1))
    );
    let of = |levels| ProcessListFilter { definition: Some(nested(levels)), ..any() };
    ok(of(Limits::JSON_LEVELS));
    assert_eq!(
        of(Limits::JSON_LEVELS + 1).check(),
        Err(Refusal::InvalidFilter(InvalidFilter::WrongValue {
            key: "definition".into(),
            expected: format!("must nest at most {} levels", Limits::JSON_LEVELS),
            found: format!("nested deeper than {} levels", Limits::JSON_LEVELS),
        }))
    );
}

#[test]
fn a_status_shows_processes_of_that_status() {
    let outcomes = [
        (ProcessStatusFilter::Completed, ProcessAwaitOutput::success(json!(1))),
        (
            ProcessStatusFilter::Failed,
            ProcessAwaitOutput::Failure {
                class: ProcessFailureClass::Timeout,
                code: "c".into(),
                message: "m".into(),
                raw: None,
                control: None,
            },
        ),
        (ProcessStatusFilter::Cancelled, ProcessAwaitOutput::cancelled("asked")),
        (
            ProcessStatusFilter::Abandoned,
            ProcessAwaitOutput::abandoned(AbandonEvidence {
                writer: AbandonWriter::Sweep,
                owner: None,
                epoch_ms: 1,
                detail: None,
            }),
        ),
    ];
    let mut worlds = vec![(ProcessStatusFilter::Running, World::registered())];
    for (status, output) in outcomes {
        let mut world = World::registered();
        world.run(complete(&output));
        worlds.push((status, world));
    }
    let statuses: Vec<_> = worlds.iter().map(|(status, _)| *status).collect();
    for (status, world) in &worlds {
        for filter in &statuses {
            let shown = ProcessListFilter::of_status(*filter).matches(world.record());
            assert_eq!(shown, filter == status, "{filter:?} over {status:?}");
        }
        assert!(ProcessListFilter::any().matches(world.record()));
    }
}

/// A process that has everything that a filter asks for.
fn labelled() -> World {
    let mut registration = registration().with_tags(["ci", "nightly"]);
    registration.identity.kind = "tool".into();
    registration.identity.label = Some("build".into());
    registration.identity.definition = Some(json!({"v": 1}));
    registration.provenance.originator = ProcessOriginator::Session { scope: SessionScope::frame("s", "f") };
    World::of(registration)
}

#[test]
fn each_part_of_a_filter_has_to_be_met() {
    let world = labelled();
    let any = ProcessListFilter::any;
    let session = |scope| Some(OriginatorFilter::Session(scope));
    let cases = [
        (ProcessListFilter { kind: Some("tool".into()), ..any() }, true),
        (ProcessListFilter { kind: Some("too".into()), ..any() }, false),
        (ProcessListFilter { label: Some("build".into()), ..any() }, true),
        (ProcessListFilter { label: Some("Build".into()), ..any() }, false),
        (ProcessListFilter { definition: Some(json!({"v": 1})), ..any() }, true),
        (ProcessListFilter { definition: Some(json!({"v": 1, "w": 2})), ..any() }, false),
        (ProcessListFilter { definition: Some(json!({})), ..any() }, false),
        (ProcessListFilter { originator: Some(OriginatorFilter::Host), ..any() }, false),
        (ProcessListFilter { originator: session(SessionScope::session("s")), ..any() }, true),
        (ProcessListFilter { originator: session(SessionScope::frame("s", "f")), ..any() }, true),
        (ProcessListFilter { originator: session(SessionScope::frame("s", "g")), ..any() }, false),
        (ProcessListFilter { originator: session(SessionScope::session("t")), ..any() }, false),
        (ProcessListFilter { waiting: Some(false), ..any() }, true),
        (ProcessListFilter { waiting: Some(true), ..any() }, false),
        (ProcessListFilter { tags: ["ci".to_owned()].into(), ..any() }, true),
        (ProcessListFilter { tags: ["ci".to_owned(), "nightly".to_owned()].into(), ..any() }, true),
        (ProcessListFilter { tags: ["ci".to_owned(), "weekly".to_owned()].into(), ..any() }, false),
        // All parts together: one that is not met is enough.
        (
            ProcessListFilter { kind: Some("tool".into()), label: Some("build".into()), waiting: Some(true), ..any() },
            false,
        ),
    ];
    for (filter, shown) in cases {
        assert_eq!(filter.matches(world.record()), shown, "{filter:?}");
    }
}

#[test]
fn a_filter_for_what_a_process_does_not_have_does_not_show_it() {
    let world = World::registered();
    let any = ProcessListFilter::any;
    for filter in [
        ProcessListFilter { label: Some("build".into()), ..any() },
        ProcessListFilter { definition: Some(json!({})), ..any() },
        ProcessListFilter { originator: Some(OriginatorFilter::Session(SessionScope::session("s"))), ..any() },
        ProcessListFilter { tags: ["ci".to_owned()].into(), ..any() },
    ] {
        assert!(!filter.matches(world.record()), "{filter:?}");
    }
    assert!(ProcessListFilter { originator: Some(OriginatorFilter::Host), ..any() }.matches(world.record()));
}

#[test]
fn waiting_is_asked_of_the_record() {
    let mut world = World::registered();
    let waiting = |wanted| ProcessListFilter { waiting: Some(wanted), ..ProcessListFilter::default() };
    world.run(set_wait(&wait(1)));
    assert!(waiting(true).matches(world.record()) && !waiting(false).matches(world.record()));
    world.run(clear_wait());
    assert!(!waiting(true).matches(world.record()) && waiting(false).matches(world.record()));
}

#[test]
fn a_range_begins_with_its_first_instant_and_ends_before_its_last() {
    let range = |from_ms, until_ms| TimeRange { from_ms, until_ms };
    let cases = [
        (range(None, None), [true, true, true, true]),
        (range(Some(10), None), [false, true, true, true]),
        (range(None, Some(11)), [true, true, false, false]),
        (range(Some(10), Some(11)), [false, true, false, false]),
        (range(Some(11), Some(10)), [false; 4]),
        (range(Some(10), Some(10)), [false; 4]),
    ];
    for (range, contained) in cases {
        assert_eq!([9, 10, 11, 12].map(|at_ms| range.contains(at_ms)), contained, "{range:?}");
        assert_eq!(range.is_unbounded(), contained == [true; 4]);
    }
    assert!(range(Some(u64::MAX), None).contains(u64::MAX));
    assert!(!range(None, Some(u64::MAX)).contains(u64::MAX));
}

#[test]
fn created_and_updated_are_two_times() {
    let mut world = World::registered();
    world.advance(50);
    world.run(append(note(json!(1))));
    let since = |from_ms| TimeRange { from_ms: Some(from_ms), until_ms: None };
    let created = |range| ProcessListFilter { created: range, ..ProcessListFilter::default() }.matches(world.record());
    let updated = |range| ProcessListFilter { updated: range, ..ProcessListFilter::default() }.matches(world.record());
    assert_eq!([EPOCH, EPOCH + 1].map(|at| created(since(at))), [true, false]);
    assert_eq!([EPOCH + 50, EPOCH + 51].map(|at| updated(since(at))), [true, false]);
}

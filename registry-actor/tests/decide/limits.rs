//! Limits: what is as large as it may be is taken, and one more is refused with the limit and what was found.

use registry_actor::domain::{
    Command, InvalidIdentifier, LeaseOwnerIdentity, LeaseOwnerLiveness, LeaseToken, Limits, ProcessAwaitOutput,
    ProcessEnvRef, ProcessEventAppendRequest, ProcessEventSemanticsSpec, ProcessEventType, ProcessId,
    ProcessListFilter, ProcessRegistration, ProcessTerminalSpec, ProcessTerminalState, ProcessValueSelector,
    ProcessWakeDedupeKey, ProcessWakeSpec, Refusal, ReplayKey, Sequence, SessionScope, WriteAuthority,
};
use registry_actor::port::{EventPage, ProcessPage, Query};
use serde_json::{Value, json};

use crate::world::*;

fn text(bytes: usize) -> String {
    "x".repeat(bytes)
}

fn nested(levels: usize) -> Value {
    (0..levels).fold(json!(0), |inner, _| json!([inner]))
}

fn with(change: impl FnOnce(&mut ProcessRegistration)) -> ProcessRegistration {
    let mut registration = registration();
    change(&mut registration);
    registration
}

/// Taken at the limit, refused one beyond it.
fn bounded(what: &str, limit: usize, registration: impl Fn(usize) -> ProcessRegistration) {
    World::of(registration(limit));
    let refusal = World::empty().refusal(register(registration(limit + 1)));
    let bytes = too_large(what, limit, limit + 1);
    let items = too_many(what, limit, limit + 1);
    assert!(refusal == bytes || refusal == items, "{refusal:?}");
    assert!(refusal.to_string().contains(&format!("at most {limit} ")), "{refusal}");
    assert!(refusal.to_string().ends_with(&format!("got {}", limit + 1)), "{refusal}");
}

#[test]
fn identifiers() {
    let (at, beyond) = (text(Limits::IDENTIFIER_BYTES), text(Limits::IDENTIFIER_BYTES + 1));
    let too_long = |what| InvalidIdentifier::TooLong {
        what,
        limit_bytes: Limits::IDENTIFIER_BYTES,
        found_bytes: Limits::IDENTIFIER_BYTES + 1,
    };
    assert!(ProcessId::new(at.as_str()).is_ok() && ReplayKey::new(at.as_str()).is_ok());
    assert!(LeaseToken::new(at.as_str()).is_ok());
    assert_eq!(ProcessId::new(beyond.as_str()), Err(too_long("process id")));
    assert_eq!(ReplayKey::new(beyond.as_str()), Err(too_long("event replay key")));
    assert_eq!(LeaseToken::new(beyond.as_str()), Err(too_long("lease token")));
    let multibyte = "é".repeat(Limits::IDENTIFIER_BYTES / 2);
    assert!(ProcessId::new(multibyte.as_str()).is_ok(), "bytes are counted, not characters");
    assert!(ProcessId::new(format!("{multibyte}x")).is_err());
}

#[test]
fn names_of_a_registration() {
    let name = Limits::NAME_BYTES;
    bounded("input kind", name, |bytes| with(|registration| registration.input.kind = text(bytes)));
    bounded("identity kind", name, |bytes| with(|registration| registration.identity.kind = text(bytes)));
    bounded("label", name, |bytes| with(|registration| registration.identity.label = Some(text(bytes))));
    bounded("env ref", name, |bytes| with(|registration| registration.env_ref = Some(ProcessEnvRef(text(bytes)))));
    bounded("tag", name, |bytes| registration().with_tags([text(bytes)]));
    bounded("event type", name, |bytes| {
        with(|registration| registration.event_types.push(ProcessEventType::plain(text(bytes))))
    });
    bounded("session id", name, |bytes| {
        with(|registration| registration.wake_target = Some(SessionScope::session(text(bytes))))
    });
    bounded("agent frame id", name, |bytes| {
        with(|registration| registration.wake_target = Some(SessionScope::frame("s", text(bytes))))
    });
}

#[test]
fn a_name_is_neither_blank_nor_does_it_hold_control_characters() {
    type Set = fn(&mut ProcessRegistration, &str);
    let cases: [(&str, Set); 5] = [
        ("identity kind", |registration, name| registration.identity.kind = name.into()),
        ("label", |registration, name| registration.identity.label = Some(name.into())),
        ("env ref", |registration, name| registration.env_ref = Some(ProcessEnvRef(name.into()))),
        ("tag", |registration, name| {
            registration.tags.insert(name.into());
        }),
        ("session id", |registration, name| registration.wake_target = Some(SessionScope::session(name))),
    ];
    for (what, set) in cases {
        for blank in ["", " ", "\u{3000}"] {
            let refusal = World::empty().refusal(register(with(|registration| set(registration, blank))));
            assert_eq!(refusal, Refusal::EmptyName { what: what.into() });
        }
        let refusal = World::empty().refusal(register(with(|registration| set(registration, "a\u{1b}[2J"))));
        assert_eq!(refusal, Refusal::ControlCharacter { what: what.into(), found: '\u{1b}' });
    }
    for set in [
        (|registration: &mut ProcessRegistration| registration.input.kind = "a\u{1b}".into()) as fn(&mut _),
        |registration| registration.event_types.push(ProcessEventType::plain("a\u{1b}")),
    ] {
        let refusal = World::empty().refusal(register(with(set)));
        assert!(matches!(refusal, Refusal::ControlCharacter { found: '\u{1b}', .. }), "{refusal:?}");
    }
}

#[test]
fn tags_and_event_types_of_a_registration() {
    bounded("tags", Limits::TAGS, |count| registration().with_tags((0..count).map(|number| format!("t{number}"))));
    // The core types count: they are stored with the rest.
    let declared = registration().event_types.len();
    bounded("event types", Limits::EVENT_TYPES, |count| {
        with(|registration| {
            registration
                .event_types
                .extend((declared..count).map(|number| ProcessEventType::plain(format!("t{number}"))));
        })
    });
}

#[test]
fn bytes_of_a_registration() {
    let around = serde_json::to_string(&with(|registration| registration.input.payload = json!("")))
        .expect("has a JSON form")
        .len();
    bounded("registration", Limits::PAYLOAD_BYTES, |bytes| {
        with(|registration| registration.input.payload = json!(text(bytes - around)))
    });
}

#[test]
fn bytes_of_a_payload_are_those_of_its_json() {
    let mut world = World::registered();
    let refused = too_large("payload", Limits::PAYLOAD_BYTES, Limits::PAYLOAD_BYTES + 1);
    let plain = |bytes: usize| note(json!(text(bytes - 2)));
    world.clone().run(append(plain(Limits::PAYLOAD_BYTES)));
    assert_eq!(world.refusal(append(plain(Limits::PAYLOAD_BYTES + 1))), refused);
    // A control character takes six bytes.
    let escaped = |bytes: usize| note(json!(format!("{}{}", "\u{1}".repeat((bytes - 2) / 6), text((bytes - 2) % 6))));
    world.clone().run(append(escaped(Limits::PAYLOAD_BYTES)));
    assert_eq!(world.refusal(append(escaped(Limits::PAYLOAD_BYTES + 1))), refused);
}

#[test]
fn bytes_of_an_outcome_are_those_of_its_event() {
    let mut world = World::registered();
    let success = |value: Value| ProcessAwaitOutput::success(value);
    let around = success(json!("")).to_event_payload().to_string().len();
    let of_size = |bytes: usize| complete(&success(json!(text(bytes - around))));
    world.clone().run(of_size(Limits::PAYLOAD_BYTES));
    assert_eq!(
        world.refusal(of_size(Limits::PAYLOAD_BYTES + 1)),
        too_large("payload", Limits::PAYLOAD_BYTES, Limits::PAYLOAD_BYTES + 1)
    );
}

#[test]
fn levels_of_a_payload() {
    let mut world = World::registered();
    world.run(append(note(nested(Limits::JSON_LEVELS))));
    assert_eq!(
        world.refusal(append(note(nested(Limits::JSON_LEVELS + 1)))),
        Refusal::InvalidPayload {
            event_type: "note".into(),
            reason: format!("nested deeper than {} levels", Limits::JSON_LEVELS)
        }
    );
}

#[test]
fn events_of_one_command() {
    let mut world = World::registered();
    let of = |count: usize| append_all((0..count).map(|_| note(Value::Null)));
    assert_eq!(
        world.refusal(of(Limits::EVENTS_PER_COMMAND + 1)),
        too_many("an append", Limits::EVENTS_PER_COMMAND, Limits::EVENTS_PER_COMMAND + 1)
    );
    assert_eq!(world.run(of(Limits::EVENTS_PER_COMMAND)).events.len(), Limits::EVENTS_PER_COMMAND);
}

#[test]
fn a_displaced_writer_hears_of_its_loss_before_it_hears_of_a_limit() {
    let mut world = World::registered();
    let old = world.claim(&owner("a"), 0);
    world.claim(&owner("b"), 100);
    let events = vec![ProcessEventAppendRequest::new("note", Value::Null); Limits::EVENTS_PER_COMMAND + 1];
    let command = Command::Append { events, authority: WriteAuthority::Holder(old.fence()) };
    assert_eq!(world.refusal(command), lease_lost());
}

#[test]
fn a_page_holds_at_least_one_entry() {
    let scope = || SessionScope::session("s");
    let pages = |limit: u32| {
        [
            Query::Events { process_id: id(), after: Sequence(0), limit },
            Query::RecentEvents { process_id: id(), limit },
            Query::WakeEvents { process_id: id(), after: Sequence(0), limit },
            Query::Processes { filter: ProcessListFilter::any(), after: None, limit },
            Query::RecentProcesses { filter: ProcessListFilter::any(), before: None, limit },
            Query::HandleGrants { scope: scope(), live_only: false, after: None, limit },
            Query::GrantsOfProcess { process_id: id(), after: None, limit },
            Query::PendingWakes { target: scope(), after: None, limit },
            Query::Changes { after: None, limit },
        ]
    };
    for query in pages(0) {
        assert_eq!(query.check(), Err(Refusal::EmptyPage), "{query:?}");
    }
    // A larger page is cut, and says that more follows.
    for query in pages(1).into_iter().chain(pages(u32::MAX)) {
        assert_eq!(query.check(), Ok(()), "{query:?}");
    }
    assert_eq!((EventPage::MAX_LIMIT, ProcessPage::MAX_LIMIT), (Limits::EVENTS_PER_PAGE, Limits::RECORDS_PER_PAGE));
}

#[test]
fn a_list_is_refused_for_its_filter() {
    let filter = ProcessListFilter { kind: Some(text(Limits::NAME_BYTES + 1)), ..ProcessListFilter::any() };
    for query in [
        Query::Processes { filter: filter.clone(), after: None, limit: 1 },
        Query::RecentProcesses { filter, before: None, limit: 1 },
    ] {
        assert_eq!(query.check(), Err(too_large("kind", Limits::NAME_BYTES, Limits::NAME_BYTES + 1)));
    }
}

#[test]
fn names_of_an_owner() {
    let named =
        |owner_id: String, incarnation_id: String| LeaseOwnerIdentity { owner_id, incarnation_id, ..owner("a") };
    let name = Limits::NAME_BYTES;
    let refused = [
        (named(text(name + 1), text(1)), too_large("owner id", name, name + 1)),
        (named(text(1), text(name + 1)), too_large("incarnation id", name, name + 1)),
        (named(String::new(), text(1)), Refusal::EmptyName { what: "owner id".into() }),
        (named(text(1), " ".into()), Refusal::EmptyName { what: "incarnation id".into() }),
        (named("a\n".into(), text(1)), Refusal::ControlCharacter { what: "owner id".into(), found: '\n' }),
    ];
    for (owner, refusal) in refused {
        let mut world = World::registered();
        let observed = lease(&owner, 1, 1, 1);
        assert_eq!(world.refusal(claim(&owner, 1)), refusal);
        assert_eq!(world.refusal(reclaim(&owner, &observed, 1)), refusal);
        assert_eq!(world.refusal(first_started(&owner, WriteAuthority::Unfenced)), refusal);
    }
    let mut world = World::registered();
    let longest = named(text(name), text(name));
    world.run(first_started(&longest, WriteAuthority::Unfenced));
    world.claim(&longest, 1);
}

#[test]
fn bytes_of_an_owner() {
    let of = |host_id: String| LeaseOwnerIdentity {
        liveness: LeaseOwnerLiveness::LocalProcess {
            host_id,
            boot_id: "b".into(),
            pid: 1,
            process_start: "1".into(),
            pid_namespace: None,
        },
        ..owner("a")
    };
    let around = serde_json::to_string(&of(String::new())).expect("has a JSON form").len();
    let mut world = World::registered();
    assert_eq!(
        world.refusal(claim(&of(text(Limits::PAYLOAD_BYTES + 1 - around)), 1)),
        too_large("lease owner", Limits::PAYLOAD_BYTES, Limits::PAYLOAD_BYTES + 1)
    );
    world.claim(&of(text(Limits::PAYLOAD_BYTES - around)), 1);
}

#[test]
fn bytes_that_templates_put_together() {
    let template = |template: &str| {
        serde_json::from_value::<ProcessValueSelector>(
            json!({"template": {"template": template, "fields": {"a": "payload"}}}),
        )
        .expect("a selector")
    };
    let huge = "{a}".repeat(Limits::PAYLOAD_BYTES / 4);
    let waking = |when: Option<&str>, input: &str, dedupe_key: &str| ProcessEventType {
        semantics: ProcessEventSemanticsSpec {
            terminal: None,
            wake: Some(ProcessWakeSpec {
                when: when.map(template),
                input: template(input),
                dedupe_key: ProcessWakeDedupeKey::Selector(template(dedupe_key)),
            }),
        },
        ..ProcessEventType::plain("big")
    };
    let ending = ProcessEventType {
        semantics: ProcessEventSemanticsSpec {
            terminal: Some(ProcessTerminalSpec {
                state: ProcessTerminalState::Completed,
                await_output: Some(template(&huge)),
            }),
            wake: None,
        },
        ..ProcessEventType::plain("big")
    };
    let big = || append(ProcessEventAppendRequest::new("big", json!(text(100_000))).with_replay_key(key("k")));
    for declared in [waking(Some(&huge), "", ""), waking(None, &huge, ""), waking(None, "", &huge), ending] {
        let refusal = World::declaring([declared]).refusal(big());
        let Refusal::LimitExceeded { what, limit, found, .. } = &refusal else { panic!("{refusal:?}") };
        assert_eq!((what.as_str(), *limit), ("templates of event type `big`", 4 * 1024 * 1024));
        assert!(*found > *limit);
    }
    World::declaring([waking(Some("{a}"), "{a}", "{a}")]).run(big());
}

/// The documentation names each limit with its number, and no other.
#[test]
fn the_documented_numbers_are_the_constants() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/limits.md");
    let page = std::fs::read_to_string(path).expect("docs/limits.md can be read");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")).map(|row| {
        let (name, rest) = row.split_once("` | ").expect("a name");
        let (value, _) = rest.split_once(" |").expect("a value");
        (name.to_owned(), value.parse::<usize>().expect("a number"))
    });
    let documented: std::collections::BTreeMap<_, _> = rows.collect();
    let items = |count: u32| usize::try_from(count).expect("it fits");
    let constants = [
        ("IDENTIFIER_BYTES", Limits::IDENTIFIER_BYTES),
        ("NAME_BYTES", Limits::NAME_BYTES),
        ("PAYLOAD_BYTES", Limits::PAYLOAD_BYTES),
        ("TEMPLATE_BYTES", Limits::TEMPLATE_BYTES),
        ("JSON_LEVELS", Limits::JSON_LEVELS),
        ("EVENT_TYPES", Limits::EVENT_TYPES),
        ("TAGS", Limits::TAGS),
        ("EVENTS_PER_COMMAND", Limits::EVENTS_PER_COMMAND),
        ("GRANTS_PER_TRANSFER", Limits::GRANTS_PER_TRANSFER),
        ("PRUNED_PER_COMMAND", items(Limits::PRUNED_PER_COMMAND)),
        ("PRUNED_EVENTS_PER_COMMAND", usize::try_from(Limits::PRUNED_EVENTS_PER_COMMAND).expect("it fits")),
        ("PRUNE_EXEMPTIONS", Limits::PRUNE_EXEMPTIONS),
        ("EVENTS_PER_PAGE", items(Limits::EVENTS_PER_PAGE)),
        ("RECORDS_PER_PAGE", items(Limits::RECORDS_PER_PAGE)),
    ];
    assert_eq!(documented, constants.map(|(name, value)| (name.to_owned(), value)).into());
    // A limit that is added has to be documented: the source is asked for the names.
    let source = include_str!("../../src/domain/limits.rs");
    let declared = source.lines().filter_map(|line| line.trim().strip_prefix("pub const ")?.split_once(':'));
    let declared: std::collections::BTreeSet<_> = declared.map(|(name, _)| name.to_owned()).collect();
    assert_eq!(declared, documented.into_keys().collect());
    assert!(page.contains(&format!("at most {} bytes\nlong", Limits::NAME_BYTES - "signal.".len())));
    assert!(page.contains(&format!("nested deeper than {} levels", Limits::JSON_LEVELS)));
}

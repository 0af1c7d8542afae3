//! Commands across processes: what each does to one process, and what it says of all of them.

use registry_actor::domain::{
    ChangeCursor, Decision, LeaseRow, Limits, ProcessAwaitOutput, ProcessEvent, ProcessHandleDescriptor,
    ProcessHandleGrant, ProcessId, ProcessSessionDeleteReport, ProcessTerminalState, ProjectionWatermark,
    PruneExemption, PruneFilter, PruneVerdict, Refusal, RegistryCommand, RevokedGrant, SessionScope, Tombstone,
    check_across, clear_wake_target, prune_verdict, session_report,
};
use serde_json::json;

use crate::world::*;

fn named(name: &str) -> ProcessId {
    ProcessId::new(name).expect("an id")
}

// What is refused before anything is read.

fn grant(scope: SessionScope, kind: Option<&str>, label: Option<&str>) -> RegistryCommand {
    let descriptor = ProcessHandleDescriptor { kind: kind.map(str::to_owned), label: label.map(str::to_owned) };
    RegistryCommand::GrantHandle { grant: ProcessHandleGrant::new(scope, id(), descriptor) }
}

fn s() -> SessionScope {
    SessionScope::session("s")
}

fn prune(filter: PruneFilter, limit: u32) -> RegistryCommand {
    RegistryCommand::Prune { filter, watermark: ProjectionWatermark::NoProjector, limit }
}

#[test]
fn a_grant_names_its_scope_and_describes_in_bounds() {
    let (longest, too_long) = ("x".repeat(Limits::NAME_BYTES), "x".repeat(Limits::NAME_BYTES + 1));
    assert_eq!(check_across(&grant(s(), None, None)), Ok(()));
    assert_eq!(check_across(&grant(s(), Some(&longest), Some(&longest))), Ok(()));
    for (what, command) in [
        ("kind", grant(s(), Some(&too_long), None)),
        ("label", grant(s(), None, Some(&too_long))),
        ("session id", grant(SessionScope::session(too_long.clone()), None, None)),
        ("agent frame id", grant(SessionScope::frame("s", too_long.clone()), None, None)),
    ] {
        assert_eq!(check_across(&command), Err(too_large(what, Limits::NAME_BYTES, Limits::NAME_BYTES + 1)));
    }
    let empty = |what: &str| Err(Refusal::EmptyName { what: what.into() });
    assert_eq!(check_across(&grant(s(), Some(""), None)), empty("kind"));
    assert_eq!(check_across(&grant(s(), None, Some(" "))), empty("label"));
    assert_eq!(check_across(&grant(SessionScope::session(""), None, None)), empty("session id"));
}

#[test]
fn a_revocation_is_never_refused_without_reading() {
    let scope = SessionScope::session("");
    assert_eq!(check_across(&RegistryCommand::RevokeHandle { scope, process_id: id() }), Ok(()));
}

#[test]
fn a_transfer_names_so_many_processes_and_a_scope_that_takes_them() {
    let transfer = |to: SessionScope, count: usize| RegistryCommand::TransferHandleGrants {
        from: s(),
        to,
        process_ids: vec![id(); count],
    };
    let to = || SessionScope::frame("t", "f");
    assert_eq!(check_across(&transfer(to(), 0)), Ok(()));
    assert_eq!(check_across(&transfer(to(), Limits::GRANTS_PER_TRANSFER)), Ok(()));
    assert_eq!(
        check_across(&transfer(to(), Limits::GRANTS_PER_TRANSFER + 1)),
        Err(too_many("a transfer", Limits::GRANTS_PER_TRANSFER, Limits::GRANTS_PER_TRANSFER + 1))
    );
    assert_eq!(
        check_across(&transfer(SessionScope::session(" "), 1)),
        Err(Refusal::EmptyName { what: "session id".into() })
    );
}

#[test]
fn a_deletion_names_a_session() {
    let delete = |session_id: &str| RegistryCommand::DeleteSession { session_id: session_id.to_owned() };
    assert_eq!(check_across(&delete(&"x".repeat(Limits::NAME_BYTES))), Ok(()));
    assert_eq!(check_across(&delete("")), Err(Refusal::EmptyName { what: "session id".into() }));
    assert_eq!(
        check_across(&delete("a\nb")),
        Err(Refusal::ControlCharacter { what: "session id".into(), found: '\n' })
    );
    assert_eq!(
        check_across(&delete(&"x".repeat(Limits::NAME_BYTES + 1))),
        Err(too_large("session id", Limits::NAME_BYTES, Limits::NAME_BYTES + 1))
    );
}

#[test]
fn a_prune_removes_at_least_one_and_asks_for_tags_that_exist() {
    let tags = |count: usize| PruneFilter {
        tags: (0..count).map(|number| format!("t{number}")).collect(),
        ..PruneFilter::ended_before(1)
    };
    assert_eq!(check_across(&prune(tags(0), 0)), Err(Refusal::EmptyPage));
    assert_eq!(check_across(&prune(tags(0), 1)), Ok(()));
    assert_eq!(check_across(&prune(tags(0), u32::MAX)), Ok(()), "it is cut, and the report says that more is left");
    assert_eq!(check_across(&prune(tags(Limits::TAGS), 1)), Ok(()));
    assert_eq!(check_across(&prune(tags(Limits::TAGS + 1), 1)), Err(too_many("tags", Limits::TAGS, Limits::TAGS + 1)));
    let blank = PruneFilter { tags: [" ".to_owned()].into(), ..PruneFilter::ended_before(1) };
    assert_eq!(check_across(&prune(blank, 1)), Err(Refusal::EmptyName { what: "tag".into() }));
    let except = |count: usize, tag: &str| PruneFilter {
        except: vec![PruneExemption { tags: [tag.to_owned()].into(), ..PruneExemption::default() }; count],
        ..PruneFilter::ended_before(1)
    };
    let most = Limits::PRUNE_EXEMPTIONS;
    assert_eq!(check_across(&prune(except(most, "t"), 1)), Ok(()));
    assert_eq!(check_across(&prune(except(most + 1, "t"), 1)), Err(too_many("exemptions of a prune", most, most + 1)));
    assert_eq!(check_across(&prune(except(1, " "), 1)), Err(Refusal::EmptyName { what: "tag".into() }));
}

#[test]
fn each_command_is_tagged_with_its_name() {
    let cursor = ChangeCursor::new("store".into(), 1, 2, [3; 8]);
    let commands = [
        grant(s(), None, None),
        RegistryCommand::RevokeHandle { scope: s(), process_id: id() },
        RegistryCommand::TransferHandleGrants { from: s(), to: s(), process_ids: vec![id()] },
        RegistryCommand::DeleteSession { session_id: "s".into() },
        RegistryCommand::Prune {
            filter: PruneFilter::ended_before(1),
            watermark: ProjectionWatermark::UpTo(cursor),
            limit: 1,
        },
    ];
    for command in commands {
        let json = serde_json::to_value(&command).expect("a command has a JSON form");
        assert_eq!(json["command"], command.name());
        assert_eq!(serde_json::from_value::<RegistryCommand>(json).expect("it reads back"), command);
    }
}

/// A prune without a watermark would drop what nobody has projected: there is no default.
#[test]
fn a_prune_that_does_not_say_how_far_projections_have_come_does_not_read() {
    let json = json!({"command": "prune", "filter": {"terminal_before_ms": 1}, "limit": 1});
    assert!(serde_json::from_value::<RegistryCommand>(json).is_err());
    let unknown_key = json!({"terminal_before_ms": 1, "kinds": ["tool"]});
    assert!(serde_json::from_value::<PruneFilter>(unknown_key).is_err(), "nor does a filter with an unknown key");
}

// A wake target that goes with its session.

fn targeted() -> World {
    let mut registration = registration();
    registration.wake_target = Some(SessionScope::frame("s", "f"));
    World::of(registration)
}

fn cleared(sequence: u64) -> ProcessEvent {
    ProcessEvent {
        replay_key: Some(key("process:p:wake_target_cleared")),
        ..event(sequence, "process.wake_target_cleared", json!({}))
    }
}

#[test]
fn a_wake_target_is_taken_away_once() {
    let mut world = targeted();
    world.advance(4);
    let decision = clear_wake_target(&world.state, &world.context);
    let expected = ProcessEvent { occurred_at_ms: EPOCH + 4, ..cleared(1) };
    assert_eq!(decision, inserts([expected]));
    world.install(&decision);
    assert_eq!(world.record().wake_target, None);
    assert_eq!(world.record().registration.wake_target, Some(SessionScope::frame("s", "f")), "what was declared stays");
    assert_eq!((world.record().updated_at_ms, world.state.body_sequence.0), (EPOCH + 4, 1));
    assert_eq!(clear_wake_target(&world.state, &world.context), Decision::default());
    world.reopen();
    assert_eq!(clear_wake_target(&world.state, &world.context), Decision::default());
}

#[test]
fn there_may_be_none_to_take_away() {
    let unregistered = World::empty();
    assert_eq!(clear_wake_target(&unregistered.state, &unregistered.context), Decision::default());
    let without = World::registered();
    assert_eq!(clear_wake_target(&without.state, &without.context), Decision::default());
}

#[test]
fn an_ended_process_loses_its_target_as_well() {
    let mut world = targeted();
    world.run(complete(&ProcessAwaitOutput::success(json!(1))));
    let decision = clear_wake_target(&world.state, &world.context);
    assert_eq!(decision, inserts([ProcessEvent { late: true, ..cleared(2) }]));
    world.install(&decision);
    assert_eq!(world.record().wake_target, None);
}

#[test]
fn every_internal_event_of_an_ended_process_is_marked_late() {
    let mut world = targeted();
    world.run(complete(&ProcessAwaitOutput::success(json!(1))));
    world.run(set_external_ref(&external_ref("7")));
    let decision = clear_wake_target(&world.state, &world.context);
    world.install(&decision);
    let lateness: Vec<_> = world.log.iter().map(|event| event.late).collect();
    assert_eq!(lateness, [false, false, true, true]);
}

// What the deletion of a session reports.

#[test]
fn a_deletion_tells_orphans_from_those_that_others_can_address() {
    let grant = |name: &str, ended: bool, shared: bool| RevokedGrant { process_id: named(name), ended, shared };
    let revoked = [
        grant("d", false, true),
        grant("c", false, false),
        grant("a", false, false),
        grant("ended", true, false),
        grant("ended-shared", true, true),
        grant("b", false, true),
        // A frame of the session had a grant of its own.
        grant("a", false, false),
    ];
    let expected = ProcessSessionDeleteReport {
        damaged_process_ids: Vec::new(),
        session_id: "s".into(),
        revoked_handle_count: 7,
        deleted_wake_count: 3,
        orphaned_process_ids: vec![named("a"), named("c")],
        preserved_process_ids: vec![named("b"), named("d")],
    };
    assert_eq!(session_report("s", &revoked, 3), expected);
}

#[test]
fn the_deletion_of_a_session_that_had_nothing_is_a_report_of_nothing() {
    let expected = ProcessSessionDeleteReport { session_id: "s".into(), ..ProcessSessionDeleteReport::default() };
    assert_eq!(session_report("s", &[], 0), expected);
}

// Which processes a prune takes.

const ENDED: u64 = EPOCH + 30;

/// A process of kind `job` with two tags that ended well.
fn ended() -> World {
    let mut world = World::of(registration().with_tags(["ci", "nightly"]));
    world.advance(30);
    world.run(complete(&ProcessAwaitOutput::success(json!(1))));
    world.advance(1_000);
    world
}

fn verdict(world: &World, filter: &PruneFilter, projected: Option<u64>) -> PruneVerdict {
    prune_verdict(world.record(), &world.row(), 10, filter, projected, &world.context)
}

fn pruned() -> PruneVerdict {
    PruneVerdict::Prune(Tombstone {
        process_id: id(),
        generation: 1,
        terminal_state: ProcessTerminalState::Completed,
        created_at_ms: EPOCH,
        terminal_at_ms: ENDED,
        pruned_at_ms: EPOCH + 1_030,
    })
}

fn all() -> PruneFilter {
    PruneFilter::ended_before(u64::MAX)
}

#[test]
fn what_ended_before_the_cutoff_goes_and_what_ended_at_it_stays() {
    let world = ended();
    assert_eq!(verdict(&world, &PruneFilter::ended_before(ENDED), None), PruneVerdict::NotMeant);
    assert_eq!(verdict(&world, &PruneFilter::ended_before(ENDED + 1), None), pruned());
    assert_eq!(verdict(&world, &PruneFilter::ended_before(0), None), PruneVerdict::NotMeant);
}

#[test]
fn a_process_that_runs_is_never_meant() {
    let mut world = World::registered();
    world.run(request_abandon(&abandon_request("a")));
    assert_eq!(verdict(&world, &all(), None), PruneVerdict::NotMeant);
}

/// The time of the end counts: the peer went by the last change, so that a late acknowledgement kept a process for ever.
#[test]
fn what_happens_after_the_end_does_not_keep_a_process() {
    let mut world = ended();
    world.run(append(note(json!("late"))));
    assert!(world.record().updated_at_ms > ENDED + 1);
    assert!(matches!(verdict(&world, &PruneFilter::ended_before(ENDED + 1), None), PruneVerdict::Prune(_)));
}

#[test]
fn each_part_of_a_prune_filter_has_to_be_met() {
    let world = ended();
    for state in ProcessTerminalState::ALL {
        let expected = if state == ProcessTerminalState::Completed { pruned() } else { PruneVerdict::NotMeant };
        assert_eq!(verdict(&world, &PruneFilter { state: Some(state), ..all() }, None), expected);
    }
    let kind = |kind: &str| PruneFilter { kind: Some(kind.into()), ..all() };
    assert_eq!(verdict(&world, &kind("job"), None), pruned());
    assert_eq!(verdict(&world, &kind("jobs"), None), PruneVerdict::NotMeant);
    let tags = |tags: &[&str]| PruneFilter { tags: tags.iter().map(|tag| (*tag).to_owned()).collect(), ..all() };
    assert_eq!(verdict(&world, &tags(&["ci"]), None), pruned());
    assert_eq!(verdict(&world, &tags(&["ci", "nightly"]), None), pruned());
    assert_eq!(verdict(&world, &tags(&["ci", "weekly"]), None), PruneVerdict::NotMeant);
}

/// An exemption has to be met in all of its parts, and then nothing else of the filter counts.
#[test]
fn an_exempt_process_is_not_meant() {
    let world = ended();
    let except = |exemption: PruneExemption| PruneFilter { except: vec![exemption], ..all() };
    let tagged = |tags: &[&str]| PruneExemption {
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        ..PruneExemption::default()
    };
    let of = |state, kind: &str| PruneExemption { state: Some(state), kind: Some(kind.into()), ..tagged(&["ci"]) };
    for met in [
        PruneExemption::default(),
        tagged(&["ci"]),
        tagged(&["ci", "nightly"]),
        of(ProcessTerminalState::Completed, "job"),
    ] {
        assert_eq!(verdict(&world, &except(met.clone()), None), PruneVerdict::NotMeant, "{met:?}");
    }
    for missed in [
        tagged(&["ci", "weekly"]),
        of(ProcessTerminalState::Failed, "job"),
        of(ProcessTerminalState::Completed, "jobs"),
    ] {
        assert_eq!(verdict(&world, &except(missed.clone()), None), pruned(), "{missed:?}");
    }
    let any = PruneFilter { except: vec![tagged(&["weekly"]), tagged(&["ci"])], ..all() };
    assert_eq!(verdict(&world, &any, None), PruneVerdict::NotMeant);
}

#[test]
fn a_lease_in_force_keeps_an_ended_process() {
    let mut world = World::registered();
    let lease = world.claim(&owner("a"), 100);
    world.run(complete_as(
        &lease.fence(),
        &ProcessAwaitOutput::success(json!(1)),
        registry_actor::domain::LeaseRelease::Keep,
    ));
    let is_pruned = |world: &World| matches!(verdict(world, &all(), None), PruneVerdict::Prune(_));
    world.advance(99);
    assert_eq!(verdict(&world, &all(), None), PruneVerdict::Leased);
    let mut lapsed = world.clone();
    lapsed.advance(1);
    assert!(is_pruned(&lapsed));
    world.run(release(&lease));
    assert!(is_pruned(&world));
    // A lease of an earlier session of the store goes by the wall clock.
    let mut before = lapsed.clone();
    before.context.session = session(2);
    before.context.epoch_ms = EPOCH + 99;
    assert_eq!(verdict(&before, &all(), None), PruneVerdict::Leased);
    before.context.epoch_ms = EPOCH + 100;
    assert!(is_pruned(&before));
}

#[test]
fn what_the_projector_has_not_seen_stays() {
    let world = ended();
    assert_eq!(verdict(&world, &all(), Some(9)), PruneVerdict::Unprojected);
    assert_eq!(verdict(&world, &all(), Some(10)), pruned());
    assert_eq!(verdict(&world, &all(), None), pruned());
}

#[test]
fn a_lagging_projector_is_reported_before_a_lease_and_the_filter_before_both() {
    let mut world = World::registered();
    world.claim(&owner("a"), 100_000);
    world.context.unfenced_writes = registry_actor::domain::UnfencedWrites::Allowed;
    world.run(complete(&ProcessAwaitOutput::success(json!(1))));
    assert_eq!(verdict(&world, &all(), Some(0)), PruneVerdict::Unprojected);
    assert_eq!(verdict(&world, &all(), None), PruneVerdict::Leased);
    assert_eq!(verdict(&world, &PruneFilter::ended_before(EPOCH), Some(0)), PruneVerdict::NotMeant);
}

#[test]
fn a_tombstone_says_which_life_of_the_id_it_was() {
    let mut world = World::empty();
    world.state.pruned_generations = 4;
    world.run(register(registration()));
    world.run(complete(&ProcessAwaitOutput::cancelled("asked")));
    let PruneVerdict::Prune(tombstone) = verdict(&world, &all(), None) else { panic!("it is pruned") };
    assert_eq!((tombstone.generation, tombstone.terminal_state), (5, ProcessTerminalState::Cancelled));
}

/// Only a log that an older version wrote, or a damaged one, holds such a record.
#[test]
fn an_ended_record_without_a_time_of_its_end_is_not_meant() {
    let world = ended();
    let mut record = world.record().clone();
    record.terminal_at_ms = None;
    let verdict = prune_verdict(&record, &LeaseRow::default(), 10, &all(), None, &world.context);
    assert_eq!(verdict, PruneVerdict::NotMeant);
}

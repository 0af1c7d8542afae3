//! Cases about registration and what is set once: 1–3, 12–14, 19, 32, 35.

use std::sync::Arc;

use awaiter::watch_process_registry;
use registry_actor::domain::{
    AbandonEvidence, AbandonRequest, AbandonWriter, LeaseOwnerLiveness, ProcessAwaitOutput, ProcessEventAppendRequest,
    ProcessEventType, ProcessExternalRef, ProcessHandleDescriptor, ProcessListFilter, ProcessSignal, ProcessStarted,
    ProcessStatusFilter, ProjectionWatermark, PruneFilter, RecoveryDisposition, Refusal, Sequence, WaitState,
};
use registry_actor::port::{ProcessRegistry, ProcessRegistryExt};
use serde_json::json;

use super::example::*;
use super::stage::{Stage, assert_unknown, refusal};

/// 1.
pub async fn c01_process_registry_reports_declared_durability(stage: &mut Stage) {
    let registry = &stage.registry;
    registered(registry, "p").await;
    assert_eq!(registry.durability_tier(), stage.expected_durability());
}

/// Case 2. Here the order in which event types are declared does not count (W19).
pub async fn c02_registration_is_idempotent_and_hash_conflicts_fail(stage: &mut Stage) {
    let registry = &stage.registry;
    let id = process_id("p");
    let first = registry.register_process(declaring(&id, [ProcessEventType::plain("a")])).await.expect("registered");
    stage.clock.advance_ms(5);
    let second = registry.register_process(declaring(&id, [ProcessEventType::plain("a")])).await.expect("the same");
    assert_eq!(second, first, "nothing changed, not even the time");
    let mut reordered = declaring(&id, [ProcessEventType::plain("a")]);
    reordered.event_types.reverse();
    assert_eq!(
        registry.register_process(reordered).await.expect("the same").registration_hash,
        first.registration_hash
    );

    let other = declaring(&id, [ProcessEventType::plain("a"), ProcessEventType::plain("b")]);
    let refused = refusal(registry.register_process(other).await);
    assert!(matches!(&refused, Refusal::RegistrationConflict { stored, offered, .. }
        if *stored == first.registration_hash && offered != stored));
    assert!(refused.to_string().contains("registration hash conflict"), "{refused}");
    assert_eq!(registry.get_process(&id).await.expect("a read"), Some(first));

    registry.complete_process(&id, success(1)).await.expect("an outcome");
    let again = registry.register_process(declaring(&id, [ProcessEventType::plain("a")])).await.expect("whatever");
    assert!(again.status.is_terminal(), "the stored record, whatever its status");
}

/// 3.
pub async fn c03_external_refs_and_handle_grant_membership_round_trip(stage: &mut Stage) {
    let registry = &stage.registry;
    let reference = |id: &str, metadata| ProcessExternalRef { backend: "b".into(), id: id.into(), metadata };
    let first = reference("1", Some(json!({"a": 1})));
    let unknown = process_id("unknown");
    assert_unknown(registry.set_external_ref(&unknown, first.clone()).await, &unknown);

    let id = registered(registry, "p").await;
    stage.clock.advance_ms(5);
    let set = registry.set_external_ref(&id, first.clone()).await.expect("the first one");
    assert_eq!(set.external_ref.as_deref(), Some(&first));
    stage.clock.advance_ms(5);
    let again = registry.set_external_ref(&id, first.clone()).await.expect("the same one");
    assert_eq!(serde_json::to_string(&again).expect("JSON"), serde_json::to_string(&set).expect("JSON"));
    for other in [reference("2", Some(json!({"a": 1}))), reference("1", Some(json!({"a": 2}))), reference("1", None)] {
        let refused = refusal(registry.set_external_ref(&id, other).await);
        assert!(matches!(&refused, Refusal::ExternalRefConflict { stored, .. } if **stored == first), "{refused:?}");
        assert!(refused.to_string().contains("external ref conflict"), "{refused}");
    }
    assert_eq!(registry.get_process(&id).await.expect("a read").as_ref(), Some(&set));

    let scope = session("s");
    assert!(!registry.has_handle_grant(&scope, &id).await.expect("a read"));
    assert_unknown(registry.grant_handle(scope.clone(), &unknown, labelled("l")).await, &unknown);
    let granted = registry.grant_handle(scope.clone(), &id, labelled("l")).await.expect("a grant");
    assert_eq!(granted.descriptor, labelled("l"));
    assert!(registry.has_handle_grant(&scope, &id).await.expect("a read"));
    registry.grant_handle(scope.clone(), &id, labelled("m")).await.expect("a new descriptor");
    let listed = registry.list_handle_grants(&scope).await.expect("grants");
    assert_eq!(listed.len(), 1);
    assert_eq!((&listed[0].0.descriptor, &listed[0].1), (&labelled("m"), &set), "a grant is no change of the process");
    assert!(registry.revoke_handle(scope.clone(), &id).await.expect("an end"));
    assert!(!registry.has_handle_grant(&scope, &id).await.expect("a read"));
    assert!(registry.list_handle_grants(&scope).await.expect("grants").is_empty());
    assert!(!registry.revoke_handle(scope.clone(), &id).await.expect("no end"), "there was none");
    assert!(!registry.revoke_handle(scope, &unknown).await.expect("no end"));
}

/// 12.
pub async fn c12_disposition_first_started_and_abandon_request_persist(stage: &mut Stage) {
    let registry = &stage.registry;
    let started = |name: &str, at| ProcessStarted { owner: opaque_owner(name), started_at_ms: at };
    let request = |by: &str| AbandonRequest { requested_by: by.into(), requested_at_ms: 7, reason: Some("r".into()) };
    let unknown = process_id("unknown");
    assert_unknown(registry.record_first_started(&unknown, started("a", 1)).await, &unknown);
    assert_unknown(registry.request_process_abandon(&unknown, request("a")).await, &unknown);
    assert_eq!(registry.get_process_lease(&unknown).await.expect("a read"), None);

    for (name, disposition) in [
        ("rerunnable", RecoveryDisposition::Rerunnable),
        ("bound", RecoveryDisposition::OwnerBound),
        ("external", RecoveryDisposition::ExternallyOwned),
    ] {
        let id = process_id(name);
        let record = registry.register_process(disposed(&id, disposition)).await.expect("a registration");
        assert_eq!(record.registration.disposition, disposition);
        assert_eq!(registry.get_process_lease(&id).await.expect("a read"), None);
        registry.record_first_started(&id, started("a", 1)).await.expect("the first");
        let kept = registry.record_first_started(&id, started("b", 2)).await.expect("a later one changes nothing");
        assert_eq!(kept.first_started.as_deref(), Some(&started("a", 1)));
        registry.request_process_abandon(&id, request("a")).await.expect("the first");
        let kept = registry.request_process_abandon(&id, request("b")).await.expect("a later one changes nothing");
        assert_eq!(kept.abandon_request.as_deref(), Some(&request("a")));
        assert!(!kept.status.is_terminal(), "it ends nothing by itself");

        let lease = claimed(registry, &id, opaque_owner("a"), 1_000).await;
        let read = registry.get_process_lease(&id).await.expect("a read").expect("a lease");
        assert_eq!(read, lease);
        assert!(read.expires_at_epoch_ms > read.claimed_at_epoch_ms);
        let record = registry.get_process(&id).await.expect("a read").expect("a record");
        assert_eq!(record.registration.disposition, disposition);
        assert_eq!(record.first_started.as_deref(), Some(&started("a", 1)));
        assert_eq!(record.abandon_request.as_deref(), Some(&request("a")));
    }
}

/// 13.
pub async fn c13_abandoned_terminal_round_trips_and_pins_writer_rules(stage: &mut Stage) {
    let registry = &stage.registry;
    let id = registered(registry, "p").await;
    let outcome = ProcessAwaitOutput::abandoned(AbandonEvidence {
        writer: AbandonWriter::Sweep,
        owner: Some(dead_owner("gone")),
        epoch_ms: 7,
        detail: Some(json!({"proof": "pid"})),
    });
    registry.complete_process(&id, outcome.clone()).await.expect("an outcome");
    let record = registry.get_process(&id).await.expect("a read").expect("a record");
    assert_eq!(record.status.await_output(), Some(&outcome));
    let abandoned = registry.list_processes(of_status(ProcessStatusFilter::Abandoned)).await.expect("a list");
    assert_eq!(abandoned, [Arc::clone(&record)]);

    let late = refusal(registry.complete_process(&id, success(1)).await);
    assert_eq!(late, Refusal::AlreadyTerminal { process_id: id.clone(), existing: Box::new(outcome.clone()) });
    let request = AbandonRequest { requested_by: "a".into(), requested_at_ms: 1, reason: None };
    let refused = refusal(registry.request_process_abandon(&id, request).await);
    assert_eq!(refused, Refusal::AbandonOfTerminal { process_id: id.clone(), existing: Box::new(outcome) });
    assert!(refused.to_string().contains("cannot accept an abandon request"), "{refused}");
    assert_eq!(registry.get_process(&id).await.expect("a read").as_ref(), Some(&record));

    // The largest cutoff that the peer's callers have.
    let filter = PruneFilter::ended_before(i64::MAX.cast_unsigned());
    let report = registry.prune_terminal_processes(filter, ProjectionWatermark::NoProjector).await.expect("a prune");
    assert_eq!(report.pruned_processes, 1);
}

/// 14.
pub async fn c14_wait_state_round_trips_filters_and_clears_on_terminal(stage: &mut Stage) {
    let registry = &stage.registry;
    let go = ProcessSignal::new("go").expect("a signal");
    let unknown = process_id("unknown");
    assert_unknown(registry.set_process_wait(&unknown, WaitState::signal(&unknown, &go, 1, 1)).await, &unknown);
    assert_unknown(registry.clear_process_wait(&unknown).await, &unknown);

    let id = registered(registry, "p").await;
    let wait = WaitState::signal(&id, &go, 1, 1);
    let waiting = |waiting| ProcessListFilter { waiting: Some(waiting), ..ProcessListFilter::default() };
    let set = registry.set_process_wait(&id, wait.clone()).await.expect("a wait");
    assert_eq!(set.wait.as_deref(), Some(&wait));
    assert_eq!(registry.get_process(&id).await.expect("a read").as_ref(), Some(&set));
    assert_eq!(ids(&registry.list_processes(waiting(true)).await.expect("a list")), ["p"]);
    assert!(registry.list_processes(waiting(false)).await.expect("a list").is_empty());

    stage.clock.advance_ms(1);
    let same = registry.set_process_wait(&id, wait.clone()).await.expect("the same wait");
    assert_eq!(same, set, "nothing changed, and nothing was touched");
    assert_eq!(registry.events_after(&id, Sequence(0)).await.expect("events").len(), 1);

    let second = WaitState::signal(&id, &go, 2, 2);
    let replaced = registry.set_process_wait(&id, second.clone()).await.expect("another wait");
    assert_eq!(replaced.wait.as_deref(), Some(&second));
    let cleared = registry.clear_process_wait(&id).await.expect("no wait");
    assert_eq!(cleared.wait, None);
    assert_eq!(ids(&registry.list_processes(waiting(false)).await.expect("a list")), ["p"]);
    // A run that starts over waits again for what it waited for before.
    let again = registry.set_process_wait(&id, wait.clone()).await.expect("a wait");
    assert_eq!(again.wait.as_deref(), Some(&wait));

    // What a runner appends by hand clears and sets the wait as well.
    let by_hand = |name: &str, payload| ProcessEventAppendRequest::new(name, payload);
    let resumed = registry.append_event(&id, by_hand("process.resumed", json!({}))).await.expect("an append");
    assert_eq!(resumed.record.expect("a record").wait, None);
    let payload = serde_json::to_value(&second).expect("a wait has a JSON form");
    let entered = registry.append_event(&id, by_hand("process.waiting", payload)).await.expect("an append");
    assert_eq!(entered.record.expect("a record").wait.as_deref(), Some(&second));
    assert_eq!(ids(&registry.list_processes(waiting(true)).await.expect("a list")), ["p"]);

    let ended = registry.complete_process(&id, success(1)).await.expect("an outcome");
    assert_eq!(ended.wait, None);
    let refused = refusal(registry.set_process_wait(&id, wait).await);
    assert!(matches!(refused, Refusal::WaitOfTerminal { .. }), "{refused:?}");
    assert!(refused.to_string().contains("cannot enter a wait state"), "{refused}");
    let kept = registry.clear_process_wait(&id).await.expect("nothing to clear");
    assert_eq!(kept, ended);
}

/// 19.
pub async fn c19_processes_can_exist_with_zero_grants(stage: &mut Stage) {
    let registry = &stage.registry;
    let id = registered(registry, "p").await;
    assert!(registry.handle_grants_for_process(&id).await.expect("a read").is_empty());
    registry.append_event(&id, note(1)).await.expect("an append");
    registry.complete_process(&id, success(1)).await.expect("an outcome");
    assert!(registry.handle_grants_for_process(&id).await.expect("a read").is_empty());
}

/// Case 32. Watched, it is the same registry: no operation is lost, and each ticks what it changed.
pub async fn c32_watched_decorator_preserves_registry_semantics(stage: &mut Stage) {
    let raw = &stage.registry;
    let (wrapped, hub) = watch_process_registry(stage.port());
    assert_eq!(wrapped.durability_tier(), raw.durability_tier());
    let id = process_id("p");
    let mut ticked = hub.subscribe(&id);
    let target = session("s");
    let mut spec = declaring(&id, [waking("ping"), ProcessEventType::plain("signal.go")]);
    spec.wake_target = Some(target.clone());
    let record = wrapped.register_process(spec).await.expect("a registration");
    assert_eq!(raw.get_process(&id).await.expect("a read"), Some(record));
    ticked.ticked().await.expect("a tick");

    let appended = wrapped.append_events(&id, vec![note(1), ping("hello")]).await.expect("an append");
    let events: Vec<_> = appended.events.iter().map(|event| Arc::clone(event.event())).collect();
    assert_eq!(raw.events_after(&id, Sequence(0)).await.expect("events"), events);
    let pending = wrapped.pending_wakes(&target, None, 10).await.expect("wakes");
    assert_eq!(pending, raw.pending_wakes(&target, None, 10).await.expect("wakes"));
    assert_eq!(pending.wakes.len(), 1);
    wrapped.ack_wake(&id, Sequence(2)).await.expect("an acknowledgement");
    assert!(raw.pending_wakes(&target, None, 10).await.expect("wakes").wakes.is_empty());

    let go = ProcessSignal::new("go").expect("a signal");
    let sent = wrapped.signal_process(&id, &go, "1", json!(1)).await.expect("a signal");
    assert_eq!(sent.ordinal, raw.count_events_through(&id, "signal.go", Sequence(u64::MAX)).await.expect("a count"));

    wrapped.grant_handle(target.clone(), &id, labelled("l")).await.expect("a grant");
    assert_eq!(raw.handle_grants_for_process(&id).await.expect("grants")[0].descriptor, labelled("l"));
    assert_eq!(wrapped.list_live_handle_grants(&target).await.expect("grants").len(), 1);
    let moved = wrapped.transfer_handle_grants(target.clone(), session("t"), vec![id.clone()]).await.expect("moved");
    assert_eq!(moved[0].scope, session("t"));
    assert!(raw.has_handle_grant(&session("t"), &id).await.expect("a read"));

    let lease = wrapped.claim_process_lease(&id, opaque_owner("a"), MINUTE_MS).await.expect("an answer");
    let lease = lease.acquired().expect("a lease");
    assert_eq!(raw.get_process_lease(&id).await.expect("a read"), Some(lease.clone()));
    let renewed = wrapped.renew_process_lease(lease, 2 * MINUTE_MS).await.expect("a renewal");
    assert_eq!(raw.get_process_lease(&id).await.expect("a read"), Some(renewed.clone()));
    let started = ProcessStarted { owner: opaque_owner("a"), started_at_ms: 1 };
    wrapped.record_first_started_fenced(&id, started, renewed.fence()).await.expect("a start");
    let release = registry_actor::domain::LeaseRelease::Release;
    wrapped.complete_process_fenced(&id, success(1), renewed.fence(), release).await.expect("an outcome");
    let raw_record = raw.get_process(&id).await.expect("a read").expect("a record");
    assert_eq!(raw_record.status.await_output(), Some(&success(1)));
    assert_eq!(raw.get_process_lease(&id).await.expect("a read"), None);
    assert_eq!(wrapped.list_processes(any()).await.expect("a list"), [raw_record]);
    assert_eq!(
        wrapped.changes_since(None, 100).await.expect("changes"),
        raw.changes_since(None, 100).await.expect("changes")
    );
    stage.clock.advance_ms(1);
    let filter = PruneFilter::ended_before(u64::MAX);
    let report = wrapped.prune_terminal_processes(filter, ProjectionWatermark::NoProjector).await.expect("a prune");
    assert_eq!(report.pruned_processes, 1);
    assert_eq!(raw.get_process(&id).await.expect("a read"), None);
    assert!(wrapped.get_tombstone(&id).await.expect("a read").is_some());
    assert_unknown(wrapped.events_after(&id, Sequence(0)).await, &id);
}

/// Case 35. The memory log plays it too: its store outlives its session, though not its host.
pub async fn c35_process_registry_survives_reopen(stage: &mut Stage) {
    let id = process_id("p");
    let reference = ProcessExternalRef { backend: "b".into(), id: "1".into(), metadata: Some(json!(null)) };
    let target = session("s");
    let mut spec = declaring(&id, [waking("ping")]);
    spec.wake_target = Some(target.clone());
    spec.tags.insert("nightly".into());
    let registry = Arc::clone(&stage.registry);
    registry.register_process(spec.clone()).await.expect("a registration");
    registry.set_external_ref(&id, reference.clone()).await.expect("a reference");
    registry.append_event(&id, keyed("note", json!({"number": 1}), "k")).await.expect("an append");
    registry.append_events(&id, vec![ping("one"), ping("two")]).await.expect("wakes");
    registry.ack_wake(&id, Sequence(3)).await.expect("an acknowledgement");
    registry.grant_handle(target.clone(), &id, labelled("l")).await.expect("a grant");
    let mut owner = opaque_owner("a");
    owner.liveness = LeaseOwnerLiveness::StoreSession { session: stage.log().session().clone() };
    let lease = claimed(&registry, &id, owner.clone(), MINUTE_MS).await;
    let gone = completed(&registry, "gone").await;
    stage.clock.advance_ms(1);
    let filter = PruneFilter::ended_before(u64::MAX);
    registry.prune_terminal_processes(filter, ProjectionWatermark::NoProjector).await.expect("a prune");
    let record = registry.get_process(&id).await.expect("a read").expect("a record");
    let events = registry.events_after(&id, Sequence(0)).await.expect("events");
    let grants = registry.handle_grants_for_process(&id).await.expect("grants");
    let wakes = registry.pending_wakes(&target, None, 10).await.expect("wakes");
    let tombstone = registry.get_tombstone(&gone).await.expect("a read").expect("a tombstone");
    let changes = registry.changes_since(None, 100).await.expect("changes");
    drop(registry);

    stage.reopen().await;
    let registry = &stage.registry;
    assert_eq!(registry.durability_tier(), stage.expected_durability());
    assert_eq!(registry.get_process(&id).await.expect("a read"), Some(record.clone()));
    assert_eq!(registry.events_after(&id, Sequence(0)).await.expect("events"), events);
    assert_eq!(registry.handle_grants_for_process(&id).await.expect("grants"), grants);
    assert_eq!(grants[0].descriptor, ProcessHandleDescriptor { kind: None, label: Some("l".into()) });
    assert_eq!(registry.pending_wakes(&target, None, 10).await.expect("wakes"), wakes);
    assert_eq!(wakes.wakes.len(), 1);
    assert_eq!(registry.get_tombstone(&gone).await.expect("a read"), Some(tombstone));
    assert_eq!(registry.changes_since(None, 100).await.expect("changes"), changes);
    assert_eq!(registry.get_process_lease(&id).await.expect("a read").as_ref(), Some(&lease));

    assert_eq!(registry.register_process(spec).await.expect("the same"), record);
    assert_eq!(registry.set_external_ref(&id, reference).await.expect("the same"), record);
    let other = ProcessExternalRef { backend: "b".into(), id: "1".into(), metadata: None };
    assert!(matches!(refusal(registry.set_external_ref(&id, other).await), Refusal::ExternalRefConflict { .. }));
    let again = registry.append_event(&id, keyed("note", json!({"number": 1}), "k")).await.expect("a replay");
    assert!(!again.events[0].is_inserted());
    assert_eq!(
        again.events[0].event(),
        &events.iter().find(|event| event.replay_key == Some(replay_key("k"))).cloned().expect("it")
    );
    let conflict = registry.append_event(&id, keyed("note", json!({"number": 2}), "k")).await;
    assert_eq!(refusal(conflict), Refusal::ReplayConflict { replay_key: replay_key("k") });

    // The new session proves that the holder, which lived in the old one, is dead.
    let mut successor = opaque_owner("b");
    successor.liveness = LeaseOwnerLiveness::StoreSession { session: stage.log().session().clone() };
    let reclaimed = registry.reclaim_process_lease(&id, successor, lease.clone(), MINUTE_MS).await.expect("an answer");
    assert_eq!(reclaimed.acquired().expect("a lease").fencing_token, lease.fencing_token.next());
}

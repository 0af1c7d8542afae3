//! Cases about appended events, wakes and outcomes: 4–11, 16.

use std::time::Duration;

use awaiter::ProcessAwaiter;
use registry_actor::domain::{
    CausalRef, PayloadSchema, ProcessAwaitOutput, ProcessEventAppendRequest, ProcessEventSemanticsSpec,
    ProcessEventType, ProcessRegistration, ProcessValueSelector, ProcessWakeDedupeKey, ProcessWakeSpec, Refusal,
    RuntimeSubject, Sequence, SessionScope,
};
use registry_actor::port::ProcessRegistryExt;
use serde_json::json;

use super::example::*;
use super::stage::{Stage, assert_unknown, refusal};

/// 4.
pub async fn c04_validates_custom_events_and_materializes_wakes(stage: &mut Stage) {
    let registry = &stage.registry;
    let id = process_id("p");
    let line = ProcessEventType {
        payload_schema: PayloadSchema::object(json!({"line": {"type": "string"}}), &["line"]),
        ..waking_with("line", pointer("/line"), ProcessWakeDedupeKey::EventIdentity)
    };
    let spec = ProcessRegistration { wake_target: Some(session("s")), ..declaring(&id, [line]) };
    registry.register_process(spec).await.expect("a registration");

    let receipt = registry
        .append_event(&id, ProcessEventAppendRequest::new("line", json!({"line": "ready"})))
        .await
        .expect("an append");
    let event = receipt.events[0].event();
    assert_eq!(event.sequence, Sequence(1), "the registration is sequence 0");
    assert_eq!(event.semantics.wake.as_ref().expect("a wake").input, "ready");
    assert_eq!(receipt.deliveries[0].input, "ready");
    let wakes = registry.wake_events_after(&id, Sequence(0), 10).await.expect("wakes");
    assert_eq!(wakes.events, std::slice::from_ref(event));
    registry.ack_wake(&id, Sequence(1)).await.expect("an acknowledgement");
    registry.ack_wake(&id, Sequence(1)).await.expect("the same one");
    assert!(registry.wake_events_after(&id, Sequence(0), 10).await.expect("wakes").events.is_empty());

    let refused = refusal(registry.append_event(&id, ProcessEventAppendRequest::new("line", json!({}))).await);
    assert!(matches!(&refused, Refusal::InvalidPayload { event_type, .. } if event_type == "line"), "{refused:?}");
    assert!(refused.to_string().contains("invalid `line` payload"), "{refused}");
    let undeclared = refusal(registry.append_event(&id, ProcessEventAppendRequest::new("other", json!({}))).await);
    assert!(undeclared.to_string().contains("emitted undeclared event type `other`"), "{undeclared}");
    let unknown = process_id("unknown");
    assert_unknown(registry.append_event(&unknown, note(1)).await, &unknown);
    assert_unknown(registry.ack_wake(&unknown, Sequence(1)).await, &unknown);
    assert_eq!(sequences(&registry.events_after(&id, Sequence(0)).await.expect("events")), [1, 2], "and the ack");
}

/// 5.
pub async fn c05_custom_wake_events_preserve_typed_provenance_and_replay(stage: &mut Stage) {
    let registry = &stage.registry;
    let id = process_id("proc");
    let caused_by = CausalRef::Turn { session_id: "s".into(), turn_id: "t".into() };
    let target = SessionScope::frame("s", "f");
    let mut spec = declaring(&id, [waking("ping")]);
    spec.wake_target = Some(target.clone());
    spec.provenance.caused_by = Some(caused_by.clone());
    registry.register_process(spec).await.expect("a registration");

    let request = keyed("ping", json!({"text": "hello"}), "k");
    let first = registry.append_event(&id, request.clone()).await.expect("an append");
    let event = first.events[0].event();
    let invocation = event.invocation();
    assert_eq!(invocation.scope.session_id, "runtime");
    assert_eq!(
        invocation.subject,
        RuntimeSubject::ProcessEvent { process_id: id.clone(), sequence: Sequence(1), event_type: "ping".into() }
    );
    assert_eq!(invocation.caused_by, Some(CausalRef::Process { process_id: id.clone() }));
    assert_eq!(invocation.replay, Some(replay_key("k")));
    let [delivery] = &first.deliveries[..] else { panic!("one delivery, got {:?}", first.deliveries) };
    assert_eq!(delivery.target, target);
    assert_eq!(delivery.target_session_id, "s");
    assert_eq!(delivery.target_scope_id.as_str(), "session:s/frame:f");
    assert_eq!(delivery.process_caused_by, Some(caused_by));
    assert_eq!((delivery.dedupe_key.as_str(), delivery.input.as_str()), ("proc:1", "hello"));
    // SHA-256 of `["session:s/frame:f","proc:1"]`: receivers of other hosts compute the same.
    assert_eq!(delivery.wake_id, "wake:544cf92f95fdc245374ce8fe07f59a38ae3782962edb3b592af12083e6940491");
    assert_eq!((delivery.sequence, delivery.event_type.as_str()), (Sequence(1), "ping"));
    assert_eq!(delivery.created_at_ms, event.occurred_at_ms);

    stage.clock.advance_ms(5);
    let again = registry.append_event(&id, request).await.expect("a replay");
    assert_eq!(again.events[0].event(), event);
    assert!(first.events[0].is_inserted() && !again.events[0].is_inserted());
    assert_eq!(again.deliveries, first.deliveries, "the same wake id");
    assert_eq!(registry.events_after(&id, Sequence(0)).await.expect("events").len(), 1);
}

/// 6.
pub async fn c06_event_streams_filter_order_and_wait_without_leaking_old_events(stage: &mut Stage) {
    stage.stop_time();
    let registry = &stage.registry;
    let id = pinging(registry, "p", &session("s")).await;
    registry.append_event(&id, note(1)).await.expect("an append");
    registry.append_event(&id, ping("a")).await.expect("an append");
    registry.append_event(&id, note(2)).await.expect("an append");
    assert_eq!(sequences(&registry.events_after(&id, Sequence(0)).await.expect("events")), [1, 2, 3]);
    assert_eq!(sequences(&registry.events_after(&id, Sequence(1)).await.expect("events")), [2, 3]);
    assert!(registry.events_after(&id, Sequence(3)).await.expect("events").is_empty());
    assert!(registry.events_after(&id, Sequence(u64::MAX)).await.expect("events").is_empty());
    let wakes = registry.wake_events_after(&id, Sequence(0), 10).await.expect("wakes");
    assert_eq!(sequences(&wakes.events), [2]);
    assert!(registry.wake_events_after(&id, Sequence(2), 10).await.expect("wakes").events.is_empty());
    let unknown = process_id("unknown");
    assert_unknown(registry.events_after(&unknown, Sequence(0)).await, &unknown);
    assert_unknown(registry.wake_events_after(&unknown, Sequence(0), 10).await, &unknown);

    let awaiter = ProcessAwaiter::attached(stage.port());
    let historical = awaiter.await_event(&id, "note", Sequence(1)).await.expect("it is there");
    assert_eq!(historical.sequence, Sequence(3));
    let future = tokio::spawn({
        let (awaiter, id) = (awaiter.clone(), id.clone());
        async move { awaiter.await_event(&id, "note", Sequence(3)).await }
    });
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert!(!future.is_finished(), "nothing after the cursor yet");
    registry.append_event(&id, note(3)).await.expect("an append");
    assert_eq!(future.await.expect("a task").expect("an event").sequence, Sequence(4));
}

/// Case 7. Deliveries of one wake id are one (W36); the wake events are all listed.
pub async fn c07_wake_semantics_matrix_materializes_declared_wakes(stage: &mut Stage) {
    let registry = &stage.registry;
    let id = process_id("p");
    let target = session("s");
    let own = ProcessWakeDedupeKey::EventIdentity;
    let template = ProcessValueSelector::Template {
        template: "line done #{n}".into(),
        fields: [("n".to_owned(), pointer("/n"))].into(),
    };
    let conditional = ProcessEventType {
        semantics: ProcessEventSemanticsSpec {
            terminal: None,
            wake: Some(ProcessWakeSpec {
                when: Some(pointer("/urgent")),
                input: ProcessValueSelector::Payload,
                dedupe_key: own.clone(),
            }),
        },
        ..ProcessEventType::plain("conditional")
    };
    let types = [
        conditional,
        waking_with("whole", ProcessValueSelector::Payload, own.clone()),
        waking_with("fixed", ProcessValueSelector::Const(json!("fixed text")), own.clone()),
        waking_with("rendered", template, own),
        waking_with("by-value", pointer("/n"), ProcessWakeDedupeKey::Selector(pointer("/job"))),
        waking_with("by-name", pointer("/n"), ProcessWakeDedupeKey::Const("once".into())),
    ];
    let spec = ProcessRegistration { wake_target: Some(target.clone()), ..declaring(&id, types) };
    registry.register_process(spec).await.expect("a registration");
    let appends = [
        ("conditional", json!({"urgent": false})),
        ("whole", json!({"a": 1})),
        ("fixed", json!({})),
        ("rendered", json!({"n": 7})),
        ("by-value", json!({"n": 1, "job": "j"})),
        ("by-value", json!({"n": 2, "job": "j"})),
        ("by-name", json!({"n": 3})),
        ("by-name", json!({"n": 4})),
    ];
    let mut deliveries = Vec::new();
    for (event_type, payload) in appends {
        let receipt =
            registry.append_event(&id, ProcessEventAppendRequest::new(event_type, payload)).await.expect("an append");
        deliveries.extend(receipt.deliveries);
    }
    let wakes = registry.wake_events_after(&id, Sequence(0), 100).await.expect("wakes").events;
    assert_eq!(sequences(&wakes), [2, 3, 4, 5, 6, 7, 8]);
    let inputs: Vec<_> = deliveries.iter().map(|delivery| delivery.input.as_str()).collect();
    assert_eq!(inputs, ["{\"a\":1}", "fixed text", "line done #7", "1", "2", "3", "4"]);
    let wake_ids: Vec<_> = deliveries.iter().map(|delivery| delivery.wake_id.as_str()).collect();
    assert_eq!((wake_ids[3], wake_ids[5]), (wake_ids[4], wake_ids[6]), "stable across events");
    let mut distinct = wake_ids.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), 5);

    let pending = registry.pending_wakes(&target, None, 100).await.expect("wakes").wakes;
    let pending: Vec<_> = pending.iter().map(|wake| wake.delivery.sequence.0).collect();
    assert_eq!(pending, [2, 3, 4, 5, 7], "the first of each wake id");
}

/// 8.
pub async fn c08_keyed_events_materialize_idempotent_wakes(stage: &mut Stage) {
    let registry = &stage.registry;
    let target = session("s");
    let id = pinging(registry, "p", &target).await;
    let request = keyed("ping", json!({"text": "a"}), "k");
    let first = registry.append_event(&id, request.clone()).await.expect("an append");
    registry.append_event(&id, note(1)).await.expect("an append");
    let again = registry.append_event(&id, request.clone()).await.expect("a replay");
    assert_eq!(again.events[0].event().sequence, first.events[0].event().sequence);
    assert_eq!(again.deliveries, first.deliveries);
    // A replay tells its caller of a delivery, and stores none: not beside a fresh event either.
    let elsewhere = session("elsewhere");
    let beside = vec![note(2), request.with_wake_target_scope(elsewhere.clone())];
    let replayed = registry.append_events(&id, beside).await.expect("an append and a replay");
    assert_eq!(replayed.deliveries[0].target, elsewhere);
    assert!(registry.pending_wakes(&elsewhere, None, 10).await.expect("wakes").wakes.is_empty());
    let refused = refusal(registry.append_event(&id, keyed("ping", json!({"text": "b"}), "k")).await);
    assert_eq!(refused, Refusal::ReplayConflict { replay_key: replay_key("k") });
    assert_eq!(refused.to_string(), "event replay key `k` conflicts with an existing event");
    let refused = refusal(registry.append_event(&id, keyed("note", json!({"text": "a"}), "k")).await);
    assert_eq!(refused, Refusal::ReplayConflict { replay_key: replay_key("k") }, "one key space for all types");
    assert_eq!(registry.events_after(&id, Sequence(0)).await.expect("events").len(), 3);
    assert_eq!(registry.pending_wakes(&target, None, 10).await.expect("wakes").wakes.len(), 1);
}

/// 9.
pub async fn c09_wake_semantic_events_without_target_record_without_delivery(stage: &mut Stage) {
    let registry = &stage.registry;
    let id = process_id("p");
    registry.register_process(declaring(&id, [waking("ping")])).await.expect("a registration");
    let receipt = registry.append_event(&id, ping("a")).await.expect("an append");
    assert!(receipt.deliveries.is_empty());
    assert!(receipt.events[0].event().semantics.wake.is_some());
    assert_eq!(sequences(&registry.wake_events_after(&id, Sequence(0), 10).await.expect("wakes").events), [1]);
    let own = session("of the request");
    let receipt = registry.append_event(&id, ping("b").with_wake_target_scope(own.clone())).await.expect("an append");
    assert_eq!(receipt.deliveries[0].target, own);
    let pending = registry.pending_wakes(&own, None, 10).await.expect("wakes").wakes;
    assert_eq!(pending.len(), 1);
    assert_eq!(pending[0].delivery, receipt.deliveries[0]);
}

/// 10.
pub async fn c10_terminal_and_cancel_events_require_keys(stage: &mut Stage) {
    let registry = &stage.registry;
    let id = registered(registry, "p").await;
    let outcome = ProcessAwaitOutput::cancelled("stopped");
    for (event_type, payload) in
        [("process.cancel_requested", json!({"reason": null})), ("process.cancelled", outcome.to_event_payload())]
    {
        let unkeyed = ProcessEventAppendRequest::new(event_type, payload);
        let refused = refusal(registry.append_event(&id, unkeyed).await);
        assert_eq!(refused, Refusal::ReplayKeyRequired { event_type: event_type.to_owned() });
        assert!(refused.to_string().contains("requires a deterministic replay key"), "{refused}");
    }
    registry.append_event(&id, ProcessEventAppendRequest::cancel_requested(&id, Some("r"))).await.expect("a request");
    let running = registry.get_process(&id).await.expect("a read").expect("a record");
    assert!(!running.status.is_terminal(), "a request is cooperative");
    registry.complete_process(&id, outcome.clone()).await.expect("an outcome");
    let record = registry.get_process(&id).await.expect("a read").expect("a record");
    assert_eq!(record.status.await_output(), Some(&outcome));
    assert_eq!(record.status.label(), "cancelled");
}

/// 11.
pub async fn c11_await_reads_terminal_materialized_output(stage: &mut Stage) {
    stage.stop_time();
    let registry = &stage.registry;
    let id = registered(registry, "p").await;
    let outcome = ProcessAwaitOutput::Success { value: json!({"a": [1, null]}), control: Some(json!(null)) };
    registry.complete_process(&id, outcome.clone()).await.expect("an outcome");
    let awaiter = ProcessAwaiter::attached(stage.port());
    assert_eq!(awaiter.await_terminal(&id).await.expect("an outcome"), outcome);
    let record = registry.get_process(&id).await.expect("a read").expect("a record");
    assert_eq!(record.status.await_output(), Some(&outcome));
}

/// 16.
pub async fn c16_count_and_recent_events_match_the_log(stage: &mut Stage) {
    let registry = &stage.registry;
    let unknown = process_id("unknown");
    assert_unknown(registry.count_events_through(&unknown, "note", Sequence(9)).await, &unknown);
    assert_unknown(registry.recent_events(&unknown, 9).await, &unknown);

    let id = pinging(registry, "p", &session("s")).await;
    registry.append_events(&id, vec![note(1), ping("a"), note(2), note(3)]).await.expect("an append");
    for (event_type, through, expected) in [
        ("note", 4, 3),
        ("note", 3, 2),
        ("note", 2, 1),
        ("note", u64::MAX, 3),
        ("ping", 1, 0),
        ("undeclared", 4, 0),
        ("note", 0, 0),
        ("process.registered", u64::MAX, 0),
    ] {
        let count = registry.count_events_through(&id, event_type, Sequence(through)).await.expect("a count");
        assert_eq!(count, expected, "{event_type} through {through}");
    }
    let all = registry.events_after(&id, Sequence(0)).await.expect("events");
    assert_eq!(registry.recent_events(&id, 2).await.expect("events"), all[2..]);
    assert_eq!(registry.recent_events(&id, 4).await.expect("events"), all);
    assert_eq!(registry.recent_events(&id, u32::MAX).await.expect("events"), all);
}

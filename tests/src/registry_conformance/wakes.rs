//! Cases about pending wakes: W20, W24, W36.

use registry_actor::domain::{
    ProcessEventAppendRequest, ProcessEventSemanticsSpec, ProcessEventType, ProcessRegistration, ProcessValueSelector,
    ProcessWakeDedupeKey, ProcessWakeSpec, Refusal, Sequence, SessionScope,
};
use registry_actor::port::ProcessRegistryExt;
use serde_json::json;

use super::example::*;
use super::stage::{FoldChecked, Stage, refusal};

async fn pending(registry: &FoldChecked, target: &SessionScope) -> Vec<String> {
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = registry.pending_wakes(target, after, 2).await.expect("a page");
        assert!(page.wakes.len() <= 2);
        assert!(page.wakes.iter().all(|wake| after.is_none_or(|after| after < wake.cursor)));
        after = page.wakes.last().map(|wake| wake.cursor).or(after);
        let tell = |wake: &registry_actor::port::PendingWake| {
            assert_eq!(wake.delivery.target, *target);
            format!("{} {} {}", wake.delivery.process_id, wake.delivery.sequence, wake.delivery.input)
        };
        seen.extend(page.wakes.iter().map(tell));
        if !page.has_more {
            return seen;
        }
    }
}

/// W20: a template is rendered in one pass, and a `when` that points at nothing wakes nobody.
pub async fn w20_templates_are_rendered_once_and_a_missing_condition_wakes_nobody(stage: &mut Stage) {
    let registry = &stage.registry;
    let id = process_id("p");
    let input = ProcessValueSelector::Template {
        template: "{a} and {b} and {c}".into(),
        fields: [("a".to_owned(), pointer("/a")), ("b".to_owned(), pointer("/b"))].into(),
    };
    let rendered = ProcessEventType {
        semantics: ProcessEventSemanticsSpec {
            terminal: None,
            wake: Some(ProcessWakeSpec {
                when: Some(pointer("/when")),
                input,
                dedupe_key: ProcessWakeDedupeKey::EventIdentity,
            }),
        },
        ..ProcessEventType::plain("rendered")
    };
    let spec = ProcessRegistration { wake_target: Some(session("s")), ..declaring(&id, [rendered]) };
    registry.register_process(spec).await.expect("a registration");
    let append = |payload| registry.append_event(&id, ProcessEventAppendRequest::new("rendered", payload));
    let receipt = append(json!({"when": 0, "a": "{b}", "b": "{a}"})).await.expect("an append");
    assert_eq!(receipt.deliveries[0].input, "{b} and {a} and {c}", "and the number 0 is a condition that holds");
    for quiet in [json!({}), json!({"when": null}), json!({"when": false}), json!({"when": ""}), json!({"when": []})] {
        let receipt = append(quiet.clone()).await.expect("stored all the same");
        assert!(receipt.deliveries.is_empty(), "{quiet}");
    }
    let refused = refusal(append(json!({"when": true, "a": 1})).await);
    assert!(matches!(&refused, Refusal::SelectorMissed { .. }), "{refused:?}");
    assert!(refused.to_string().contains("payload pointer `/b` did not match"), "{refused}");
    assert_eq!(pending(registry, &session("s")).await.len(), 1);
}

/// W24: an acknowledgement names a wake that exists, and settles it; wakes are stored with their events, so that a dead
/// appender loses none.
pub async fn w24_an_acknowledgement_names_a_wake_and_settles_it(stage: &mut Stage) {
    let target = session("s");
    let id = pinging(&stage.registry, "p", &target).await;
    stage.registry.append_events(&id, vec![note(1), ping("a"), ping("b")]).await.expect("wakes");
    stage.reopen().await;
    let registry = &stage.registry;
    assert_eq!(pending(registry, &target).await, ["p 2 a", "p 3 b"]);
    let before = registry.get_process(&id).await.expect("a read");
    for (sequence, why) in [(0, "the registration"), (1, "no wake"), (4, "the future"), (u64::MAX, "the far future")] {
        let refused = refusal(registry.ack_wake(&id, Sequence(sequence)).await);
        assert_eq!(refused, Refusal::NoSuchWake { process_id: id.clone(), sequence: Sequence(sequence) }, "{why}");
    }
    stage.clock.advance_ms(5);
    registry.ack_wake(&id, Sequence(2)).await.expect("an acknowledgement");
    assert_eq!(pending(registry, &target).await, ["p 3 b"]);
    registry.ack_wake(&id, Sequence(2)).await.expect("the same one");
    assert_eq!(registry.get_process(&id).await.expect("a read"), before, "an acknowledgement does not touch");
    let acks = registry.count_events_through(&id, "process.wake_acknowledged", Sequence(u64::MAX)).await;
    assert_eq!(acks.expect("a count"), 1);
    let refused = refusal(registry.ack_wake(&id, Sequence(4)).await);
    assert!(matches!(refused, Refusal::NoSuchWake { .. }), "an acknowledgement is no wake");
    registry.complete_process(&id, success(1)).await.expect("an outcome");
    registry.ack_wake(&id, Sequence(3)).await.expect("ended processes are acknowledged too");
    assert!(pending(registry, &target).await.is_empty());
}

/// W36: each target has its wakes in the order in which they came about, each wake id once.
pub async fn w36_pending_wakes_are_in_order_per_target_and_once_per_wake_id(stage: &mut Stage) {
    let registry = &stage.registry;
    let (own, frame, other) = (session("s"), SessionScope::frame("s", "f"), session("t"));
    let once = waking_with("once", pointer("/text"), ProcessWakeDedupeKey::Const("the same".into()));
    for name in ["b", "a"] {
        let id = process_id(name);
        let types = [waking("ping"), once.clone()];
        let spec = ProcessRegistration { wake_target: Some(own.clone()), ..declaring(&id, types) };
        registry.register_process(spec).await.expect("a registration");
    }
    let (a, b) = (process_id("a"), process_id("b"));
    let once = |text: &str| ProcessEventAppendRequest::new("once", json!({ "text": text }));
    registry.append_event(&b, ping("1")).await.expect("a wake");
    registry.append_event(&a, ping("2")).await.expect("a wake");
    let first = registry.append_event(&b, once("3")).await.expect("a wake");
    let second = registry.append_event(&a, once("not again")).await.expect("an event");
    assert_eq!(first.deliveries[0].wake_id, second.deliveries[0].wake_id, "whatever process it came from");
    registry.append_event(&a, once("elsewhere").with_wake_target_scope(frame.clone())).await.expect("a wake");
    registry.append_event(&a, once("there").with_wake_target_scope(other.clone())).await.expect("a wake");
    registry.append_event(&b, ping("4")).await.expect("a wake");

    assert_eq!(pending(registry, &own).await, ["b 1 1", "a 1 2", "b 2 3", "b 3 4"]);
    assert_eq!(pending(registry, &frame).await, ["a 3 elsewhere"], "a frame is a target of its own");
    assert_eq!(pending(registry, &other).await, ["a 4 there"]);
    assert!(pending(registry, &session("nobody")).await.is_empty());

    registry.ack_wake(&b, Sequence(2)).await.expect("an acknowledgement");
    registry.append_event(&a, once("never again")).await.expect("an event");
    assert_eq!(pending(registry, &own).await, ["b 1 1", "a 1 2", "b 3 4"], "a settled wake is not made again");
}

//! Cases about signals and cancel requests: W32, and section 3.3.

use std::sync::Arc;

use registry_actor::domain::{ProcessEventType, ProcessSignal, ReceiptEvent, Refusal, Sequence, WaitKind, WaitState};
use registry_actor::port::ProcessRegistryExt;
use serde_json::json;

use super::example::*;
use super::stage::{Stage, assert_unknown, refusal};

/// W32: two signals that come while one wait is open answer two waits, the present and the next.
pub async fn w32_a_signals_ordinal_is_the_count_of_its_events(stage: &mut Stage) {
    let registry = &stage.registry;
    let id = process_id("p");
    let (go, stop) = (ProcessSignal::new("go").expect("a signal"), ProcessSignal::new("stop").expect("a signal"));
    let types = [ProcessEventType::plain("signal.go"), ProcessEventType::plain("signal.stop")];
    registry.register_process(declaring(&id, types)).await.expect("a registration");
    let wait = WaitState::signal(&id, &go, 1, 1);
    registry.set_process_wait(&id, wait.clone()).await.expect("a wait");
    let WaitKind::Signal { key, .. } = &wait.kind else { panic!("a wait for a signal") };

    let first = registry.signal_process(&id, &go, "a", json!(1)).await.expect("a signal");
    assert_eq!((first.ordinal, &first.wait_key), (1, key));
    assert_eq!(first.wait_key, "process:p:signal.go:1");
    let second = registry.signal_process(&id, &go, "b", json!(2)).await.expect("a signal");
    assert_eq!((second.ordinal, second.wait_key.as_str()), (2, "process:p:signal.go:2"));
    let other = registry.signal_process(&id, &stop, "a", json!(3)).await.expect("a signal of another name");
    assert_eq!((other.ordinal, other.wait_key.as_str()), (1, "process:p:signal.stop:1"));

    let again = registry.signal_process(&id, &go, "a", json!(1)).await.expect("the same signal");
    assert_eq!((again.ordinal, &again.wait_key), (first.ordinal, &first.wait_key));
    assert!(!again.receipt.events[0].is_inserted());
    assert_eq!(again.receipt.events[0].event(), first.receipt.events[0].event());
    let conflict = refusal(registry.signal_process(&id, &go, "a", json!("other")).await);
    assert!(matches!(conflict, Refusal::ReplayConflict { .. }), "{conflict:?}");
    assert_eq!(registry.count_events_through(&id, "signal.go", Sequence(u64::MAX)).await.expect("a count"), 2);
    let undeclared = ProcessSignal::new("undeclared").expect("a signal");
    let refused = refusal(registry.signal_process(&id, &undeclared, "a", json!(1)).await);
    assert!(matches!(refused, Refusal::UndeclaredEventType { .. }), "{refused:?}");
    let unknown = process_id("unknown");
    assert_unknown(registry.signal_process(&unknown, &go, "a", json!(1)).await, &unknown);
}

/// Section 3.3: one event for each reason, which changes no status and is taken at any time.
pub async fn a_cancel_request_is_one_event_for_each_reason(stage: &mut Stage) {
    let registry = &stage.registry;
    let unknown = process_id("unknown");
    assert_unknown(registry.request_process_cancel(&unknown, None).await, &unknown);
    let id = registered(registry, "p").await;
    // A lease in force keeps nobody from asking.
    let lease = claimed(registry, &id, opaque_owner("a"), MINUTE_MS).await;
    let mut stored = Vec::new();
    for (reason, is_new) in
        [(Some("a"), true), (Some("a"), false), (Some("b"), true), (None, true), (None, false), (Some("a"), false)]
    {
        let receipt = registry.request_process_cancel(&id, reason.map(str::to_owned)).await.expect("a request");
        let [event] = &receipt.events[..] else { panic!("one event") };
        assert_eq!(event.is_inserted(), is_new, "{reason:?}");
        assert_eq!(event.event().payload, json!({ "reason": reason }));
        assert!(!receipt.record.expect("a record").status.is_terminal());
        if let ReceiptEvent::Inserted(event) = event {
            stored.push(Arc::clone(event));
        }
    }
    assert_eq!(registry.events_after(&id, Sequence(0)).await.expect("events"), stored);
    registry.complete_process_lease(&lease).await.expect("a release");
    registry.complete_process(&id, success(1)).await.expect("an outcome");
    let late = registry.request_process_cancel(&id, Some("late".into())).await.expect("taken at any time");
    assert!(late.events[0].is_inserted() && late.events[0].event().late);
    let repeated = registry.request_process_cancel(&id, Some("a".into())).await.expect("taken at any time");
    assert!(!repeated.events[0].is_inserted());
    let record = registry.get_process(&id).await.expect("a read").expect("a record");
    assert_eq!(record.status.await_output(), Some(&success(1)));
}

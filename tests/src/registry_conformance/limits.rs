//! Cases about the bounds of what the registry takes: each refusal names the bound and what was found.

use registry_actor::domain::{
    AbandonRequest, Limits, Measure, ProcessEventAppendRequest, ProcessEventType, ProcessExternalRef,
    ProcessListFilter, ProjectionWatermark, PruneFilter, Refusal, RegistryCommand, Sequence, SessionScope,
};
use registry_actor::port::{EventPage, ProcessPage, ProcessRegistry, ProcessRegistryExt, Query};
use serde_json::{Value, json};

use super::example::*;
use super::stage::{Stage, refusal};

#[track_caller]
fn assert_exceeds(refused: &Refusal, measure: Measure, limit: usize, found: usize) {
    match refused {
        Refusal::LimitExceeded { measure: counted, limit: named, found: counted_to, .. } => {
            assert_eq!((*counted, *named, *counted_to), (measure, limit as u64, found as u64), "{refused}");
        }
        other => panic!("expected a limit of {limit}, got {other:?}"),
    }
}

/// What is at a bound is taken, what is beyond it is refused, and nothing of it is stored.
pub async fn what_exceeds_a_bound_is_refused_by_name(stage: &mut Stage) {
    let registry = &stage.registry;
    let id = registered(registry, "p").await;
    let notes = |count| vec![note(1); count];
    registry.append_events(&id, notes(Limits::EVENTS_PER_COMMAND)).await.expect("at the bound");
    let refused = refusal(registry.append_events(&id, notes(Limits::EVENTS_PER_COMMAND + 1)).await);
    assert_exceeds(&refused, Measure::Items, Limits::EVENTS_PER_COMMAND, Limits::EVENTS_PER_COMMAND + 1);

    let sized = |bytes: usize| ProcessEventAppendRequest::new("note", Value::String("x".repeat(bytes - 2)));
    registry.append_event(&id, sized(Limits::PAYLOAD_BYTES)).await.expect("at the bound");
    let refused = refusal(registry.append_event(&id, sized(Limits::PAYLOAD_BYTES + 1)).await);
    assert!(
        matches!(&refused, Refusal::LimitExceeded { measure: Measure::Bytes, limit, .. }
        if *limit == Limits::PAYLOAD_BYTES as u64),
        "{refused:?}"
    );
    let deep = (0..=Limits::JSON_LEVELS).fold(json!(1), |inner, _| json!([inner]));
    let refused = refusal(registry.append_event(&id, ProcessEventAppendRequest::new("note", deep.clone())).await);
    assert!(matches!(refused, Refusal::InvalidPayload { .. }), "{refused:?}");
    assert_eq!(
        registry.recent_events(&id, 1).await.expect("events")[0].sequence.0,
        Limits::EVENTS_PER_COMMAND as u64 + 1
    );

    let typed = |name: &str, extra: usize| {
        declaring(&process_id(name), (0..extra).map(|number| ProcessEventType::plain(format!("t{number}"))))
    };
    let declared = registration(&process_id("types")).event_types.len();
    registry.register_process(typed("types", Limits::EVENT_TYPES - declared)).await.expect("at the bound");
    let refused = refusal(registry.register_process(typed("more", Limits::EVENT_TYPES - declared + 1)).await);
    assert_exceeds(&refused, Measure::Items, Limits::EVENT_TYPES, Limits::EVENT_TYPES + 1);
    let tags =
        |name: &str, count: usize| registration(&process_id(name)).with_tags((0..count).map(|tag| format!("t{tag}")));
    registry.register_process(tags("tags", Limits::TAGS)).await.expect("at the bound");
    let refused = refusal(registry.register_process(tags("more", Limits::TAGS + 1)).await);
    assert_exceeds(&refused, Measure::Items, Limits::TAGS, Limits::TAGS + 1);
    assert_eq!(registry.get_process(&process_id("more")).await.expect("a read"), None);

    let long = "n".repeat(Limits::NAME_BYTES + 1);
    let reference = ProcessExternalRef { backend: long.clone(), id: "1".into(), metadata: None };
    let refused = refusal(registry.set_external_ref(&id, reference).await);
    assert_exceeds(&refused, Measure::Bytes, Limits::NAME_BYTES, Limits::NAME_BYTES + 1);
    let reference = ProcessExternalRef { backend: "b".into(), id: "1".into(), metadata: Some(deep) };
    assert!(matches!(refusal(registry.set_external_ref(&id, reference).await), Refusal::TooDeep { .. }));
    let request = AbandonRequest { requested_by: String::new(), requested_at_ms: 1, reason: None };
    assert!(matches!(refusal(registry.request_process_abandon(&id, request).await), Refusal::EmptyName { .. }));
    for scope in [session(""), session(&long), session("a\nb"), SessionScope::frame("s", long.clone())] {
        let refused = refusal(registry.grant_handle(scope.clone(), &id, labelled("l")).await);
        assert!(
            matches!(
                refused,
                Refusal::EmptyName { .. } | Refusal::LimitExceeded { .. } | Refusal::ControlCharacter { .. }
            ),
            "{refused:?}"
        );
        let append = note(1).with_wake_target_scope(scope);
        refusal(registry.append_event(&id, append).await);
    }
    let refused = refusal(registry.grant_handle(session("s"), &id, labelled(&long)).await);
    assert_exceeds(&refused, Measure::Bytes, Limits::NAME_BYTES, Limits::NAME_BYTES + 1);
    assert!(matches!(refusal(registry.delete_session_process_state("").await), Refusal::EmptyName { .. }));
    let many = vec![id.clone(); Limits::GRANTS_PER_TRANSFER + 1];
    let refused = refusal(registry.transfer_handle_grants(session("s"), session("t"), many).await);
    assert_exceeds(&refused, Measure::Items, Limits::GRANTS_PER_TRANSFER, Limits::GRANTS_PER_TRANSFER + 1);
    let filter = ProcessListFilter { kind: Some(long), ..ProcessListFilter::any() };
    let refused = refusal(registry.list_page(filter, None, 1).await);
    assert_exceeds(&refused, Measure::Bytes, Limits::NAME_BYTES, Limits::NAME_BYTES + 1);
    let tags = (0..=Limits::TAGS).map(|tag| format!("t{tag}")).collect();
    let filter = PruneFilter { tags, ..PruneFilter::ended_before(u64::MAX) };
    let refused = refusal(registry.prune_terminal_processes(filter, ProjectionWatermark::NoProjector).await);
    assert_exceeds(&refused, Measure::Items, Limits::TAGS, Limits::TAGS + 1);
}

/// A page of nothing is refused, wherever there are pages; one that is too large is cut, and says that more follows.
pub async fn a_page_of_nothing_is_refused_and_a_large_one_is_cut(stage: &mut Stage) {
    let registry = &stage.registry;
    let id = registered(registry, "p").await;
    let (scope, process_id) = (session("s"), id.clone());
    let queries = [
        Query::Events { process_id: process_id.clone(), after: Sequence(0), limit: 0 },
        Query::RecentEvents { process_id: process_id.clone(), limit: 0 },
        Query::WakeEvents { process_id: process_id.clone(), after: Sequence(0), limit: 0 },
        Query::Processes { filter: ProcessListFilter::any(), after: None, limit: 0 },
        Query::RecentProcesses { filter: ProcessListFilter::any(), before: None, limit: 0 },
        Query::HandleGrants { scope: scope.clone(), live_only: false, after: None, limit: 0 },
        Query::GrantsOfProcess { process_id, after: None, limit: 0 },
        Query::PendingWakes { target: scope, after: None, limit: 0 },
        Query::Changes { after: None, limit: 0 },
    ];
    for query in queries {
        assert_eq!(refusal(registry.query(query.clone()).await), Refusal::EmptyPage, "{query:?}");
    }
    let command = RegistryCommand::Prune {
        filter: PruneFilter::ended_before(u64::MAX),
        watermark: ProjectionWatermark::NoProjector,
        limit: 0,
    };
    assert_eq!(refusal(registry.execute_across(command).await), Refusal::EmptyPage);

    let largest = EventPage::MAX_LIMIT as usize;
    for _ in 0..=largest / Limits::EVENTS_PER_COMMAND {
        registry.append_events(&id, vec![note(1); Limits::EVENTS_PER_COMMAND]).await.expect("an append");
    }
    let page = registry.events_page(&id, Sequence(0), u32::MAX).await.expect("a page");
    assert_eq!((page.events.len(), page.has_more), (largest, true));
    assert_eq!(registry.recent_events(&id, u32::MAX).await.expect("events").len(), largest);
    let page = registry.changes_since(None, u32::MAX).await.expect("changes");
    assert_eq!((page.entries.len(), page.has_more), (largest, true));
    let all = registry.events_after(&id, Sequence(0)).await.expect("events");
    assert_eq!(all.len(), (largest / Limits::EVENTS_PER_COMMAND + 1) * Limits::EVENTS_PER_COMMAND);
    let page = registry.list_page(ProcessListFilter::any(), None, ProcessPage::MAX_LIMIT + 1).await.expect("a page");
    assert_eq!((page.records.len(), page.has_more), (1, false));
}

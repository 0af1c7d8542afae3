//! Cases about who may address a process: 17, 18, 20, 22, and W21, W22.

use registry_actor::domain::{ProcessRegistration, Refusal, Sequence, SessionScope};
use registry_actor::port::{Answer, ProcessChange, ProcessRegistry, ProcessRegistryExt, Query};

use super::example::*;
use super::stage::{Stage, assert_unknown, refusal};

/// 17.
pub async fn c17_transfer_handle_grants_moves_addressability(stage: &mut Stage) {
    let registry = &stage.registry;
    let id = registered(registry, "p").await;
    let (from, to) = (session("from"), session("to"));
    registry.grant_handle(from.clone(), &id, labelled("l")).await.expect("a grant");
    let record = registry.get_process(&id).await.expect("a read");
    stage.clock.advance_ms(5);
    let moved = registry.transfer_handle_grants(from.clone(), to.clone(), vec![id.clone()]).await.expect("moved");
    assert_eq!((&moved[0].scope, &moved[0].descriptor), (&to, &labelled("l")));
    assert!(registry.list_handle_grants(&from).await.expect("grants").is_empty());
    assert_eq!(registry.list_handle_grants(&to).await.expect("grants")[0].0, moved[0]);
    assert!(registry.events_after(&id, Sequence(0)).await.expect("events").is_empty());
    assert_eq!(registry.get_process(&id).await.expect("a read"), record, "the process is not touched");

    let refused = refusal(registry.transfer_handle_grants(from.clone(), to.clone(), vec![id.clone()]).await);
    assert_eq!(refused.to_string(), "process handle `p` is not granted to session `session:from`");
    assert_eq!(refused, Refusal::HandleNotGranted { process_id: id.clone(), scope: from.clone() });
    assert!(registry.transfer_handle_grants(from, to.clone(), Vec::new()).await.expect("nothing").is_empty());
    let onto_itself = registry.transfer_handle_grants(to.clone(), to.clone(), vec![id.clone()]).await.expect("moved");
    assert_eq!(onto_itself, moved);
    assert!(registry.has_handle_grant(&to, &id).await.expect("a read"));
}

/// 18.
pub async fn c18_multiple_sessions_can_hold_grants(stage: &mut Stage) {
    let registry = &stage.registry;
    let id = registered(registry, "p").await;
    for scope in [session("s2"), session("s1")] {
        registry.grant_handle(scope, &id, labelled("l")).await.expect("a grant");
    }
    let scopes = || async {
        let grants = registry.handle_grants_for_process(&id).await.expect("grants");
        grants.into_iter().map(|grant| grant.scope.session_id().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(scopes().await, ["s1", "s2"]);
    registry.transfer_handle_grants(session("s1"), session("s3"), vec![id.clone()]).await.expect("moved");
    assert_eq!(scopes().await, ["s2", "s3"]);
    assert!(registry.events_after(&id, Sequence(0)).await.expect("events").is_empty());
    let unknown = process_id("unknown");
    assert_unknown(registry.handle_grants_for_process(&unknown).await, &unknown);
}

/// Case 20. Here pending wakes of the session are settled, and `deleted_wake_count` counts them (W24); that a wake target is
/// cleared is an event of the process.
pub async fn c20_delete_session_revokes_handles_by_session(stage: &mut Stage) {
    let registry = &stage.registry;
    let (own, frame, other) = (session("s"), SessionScope::frame("s", "f"), session("t"));
    let sole = pinging(registry, "sole", &own).await;
    let shared = pinging(registry, "shared", &frame).await;
    let ended = pinging(registry, "ended", &own).await;
    registry.grant_handle(own.clone(), &sole, labelled("l")).await.expect("a grant");
    registry.grant_handle(frame.clone(), &shared, labelled("l")).await.expect("a grant");
    registry.grant_handle(other.clone(), &shared, labelled("l")).await.expect("a grant");
    registry.grant_handle(own.clone(), &ended, labelled("l")).await.expect("a grant");
    registry.append_events(&sole, vec![ping("acked"), ping("pending")]).await.expect("wakes");
    registry.append_event(&shared, ping("pending")).await.expect("a wake");
    registry.append_event(&shared, ping("of another").with_wake_target_scope(other.clone())).await.expect("a wake");
    registry.ack_wake(&sole, Sequence(1)).await.expect("an acknowledgement");
    registry.complete_process(&ended, success(1)).await.expect("an outcome");
    let lease = claimed(registry, &sole, opaque_owner("a"), MINUTE_MS).await;

    let report = registry.delete_session_process_state("s").await.expect("a deletion");
    assert_eq!((report.revoked_handle_count, report.deleted_wake_count), (3, 2));
    assert_eq!(report.orphaned_process_ids, std::slice::from_ref(&sole));
    assert_eq!(report.preserved_process_ids, std::slice::from_ref(&shared));
    for id in [&sole, &shared, &ended] {
        let record = registry.get_process(id).await.expect("a read").expect("a record");
        assert_eq!(record.wake_target, None, "{id}");
        assert!(!registry.has_handle_grant(&own, id).await.expect("a read"));
        let last = registry.recent_events(id, 1).await.expect("events");
        assert_eq!(&*last[0].event_type, "process.wake_target_cleared");
        assert_eq!(last[0].late, *id == ended);
    }
    assert!(registry.has_handle_grant(&other, &shared).await.expect("a read"));
    for scope in [&own, &frame] {
        assert!(registry.pending_wakes(scope, None, 10).await.expect("wakes").wakes.is_empty());
    }
    assert_eq!(registry.pending_wakes(&other, None, 10).await.expect("wakes").wakes.len(), 1);
    let open = registry.wake_events_after(&sole, Sequence(0), 10).await.expect("wakes");
    assert_eq!(sequences(&open.events), [2], "acknowledgements are kept, and nothing is acknowledged by a deletion");
    assert_eq!(registry.get_process_lease(&sole).await.expect("a read"), Some(lease));
    assert!(!registry.get_process(&sole).await.expect("a read").expect("a record").status.is_terminal());
    assert!(registry.append_event(&sole, ping("to nobody")).await.expect("an append").deliveries.is_empty());

    let page = registry.changes_since(None, 1_000).await.expect("changes");
    let deletions = page.into_changes().filter(|change| matches!(change, ProcessChange::SessionDeleted(_)));
    let [ProcessChange::SessionDeleted(deletion)] = &deletions.collect::<Vec<_>>()[..] else { panic!("one deletion") };
    assert_eq!((deletion.session_id.as_str(), deletion.revoked_handle_count, deletion.deleted_wake_count), ("s", 3, 2));
    let again = registry.delete_session_process_state("s").await.expect("nothing left");
    assert_eq!((again.revoked_handle_count, again.deleted_wake_count), (0, 0));
    assert!(again.orphaned_process_ids.is_empty() && again.preserved_process_ids.is_empty());
}

/// 22.
pub async fn c22_list_live_handle_grants_excludes_terminal_history(stage: &mut Stage) {
    let registry = &stage.registry;
    let scope = session("s");
    for name in ["b", "a", "c"] {
        let id = registered(registry, name).await;
        registry.grant_handle(scope.clone(), &id, labelled(name)).await.expect("a grant");
    }
    registry.complete_process(&process_id("b"), success(1)).await.expect("an outcome");
    let granted = |entries: Vec<(registry_actor::domain::ProcessHandleGrant, _)>| {
        entries.into_iter().map(|(grant, _)| grant.process_id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(granted(registry.list_live_handle_grants(&scope).await.expect("grants")), ["a", "c"]);
    assert_eq!(granted(registry.list_handle_grants(&scope).await.expect("grants")), ["a", "b", "c"]);
    let ended = process_id("b");
    let again = registry.grant_handle(session("t"), &ended, labelled("l")).await;
    assert_eq!(again.expect("ended processes may be granted").process_id, ended);
    assert!(registry.list_live_handle_grants(&session("t")).await.expect("grants").is_empty());
    assert!(registry.list_handle_grants(&session("nobody")).await.expect("grants").is_empty());
}

/// W21: two scopes whose rendered ids are equal stay two.
pub async fn w21_scopes_with_one_rendered_id_are_distinct(stage: &mut Stage) {
    let registry = &stage.registry;
    let (session_named_so, frame) = (session("a/frame:b"), SessionScope::frame("a", "b"));
    assert_eq!(session_named_so.id(), frame.id());
    let id = process_id("p");
    let spec = declaring(&id, [waking("ping")]);
    registry.register_process(spec).await.expect("a registration");
    registry.grant_handle(session_named_so.clone(), &id, labelled("l")).await.expect("a grant");
    assert!(!registry.has_handle_grant(&frame, &id).await.expect("a read"));
    registry.append_event(&id, ping("a").with_wake_target_scope(frame.clone())).await.expect("a wake");
    assert!(registry.pending_wakes(&session_named_so, None, 10).await.expect("wakes").wakes.is_empty());
    assert_eq!(registry.pending_wakes(&frame, None, 10).await.expect("wakes").wakes.len(), 1);
    let report = registry.delete_session_process_state("a").await.expect("a deletion");
    assert_eq!((report.revoked_handle_count, report.deleted_wake_count), (0, 1));
    assert!(registry.has_handle_grant(&session_named_so, &id).await.expect("a read"));
    let none = session("a");
    assert!(!registry.has_handle_grant(&none, &id).await.expect("a read"), "a frame is not its session");

    // What a frame may address is not what its session may, nor what another frame may.
    let own = SessionScope::frame("s", "f");
    registry.grant_handle(own.clone(), &id, labelled("l")).await.expect("a grant");
    assert_eq!(registry.list_handle_grants(&own).await.expect("grants").len(), 1);
    for other in [session("s"), SessionScope::frame("s", "g"), session("f")] {
        assert!(registry.list_handle_grants(&other).await.expect("grants").is_empty(), "{other:?}");
    }
}

/// W22: a transfer that cannot move all moves none.
pub async fn w22_a_transfer_is_all_or_nothing(stage: &mut Stage) {
    let registry = &stage.registry;
    let (from, to) = (session("from"), session("to"));
    let mut all = Vec::new();
    for name in ["a", "b", "c"] {
        let id = registered(registry, name).await;
        if name != "b" {
            registry.grant_handle(from.clone(), &id, labelled(name)).await.expect("a grant");
        }
        all.push(id);
    }
    let refused = refusal(registry.transfer_handle_grants(from.clone(), to.clone(), all.clone()).await);
    assert_eq!(refused, Refusal::HandleNotGranted { process_id: all[1].clone(), scope: from.clone() });
    assert_eq!(registry.list_handle_grants(&from).await.expect("grants").len(), 2);
    assert!(registry.list_handle_grants(&to).await.expect("grants").is_empty());

    // What exists there already is replaced, as a grant would.
    registry.grant_handle(from.clone(), &all[1], labelled("b")).await.expect("a grant");
    registry.grant_handle(to.clone(), &all[1], labelled("older")).await.expect("a grant");
    let moved = registry.transfer_handle_grants(from.clone(), to.clone(), all.clone()).await.expect("moved");
    let labels: Vec<_> = moved.iter().map(|grant| grant.descriptor.label.as_deref().expect("a label")).collect();
    assert_eq!(labels, ["a", "b", "c"]);
    assert!(registry.list_handle_grants(&from).await.expect("grants").is_empty());
    assert_eq!(registry.list_handle_grants(&to).await.expect("grants").len(), 3);
}

/// Pages of grants go on where they ended, from both ends of the edge.
pub async fn pages_of_grants_go_on_where_they_ended(stage: &mut Stage) {
    let registry = &stage.registry;
    let scope = session("s");
    for number in 0..5 {
        let id = registered(registry, &format!("p{number}")).await;
        registry.grant_handle(scope.clone(), &id, labelled("l")).await.expect("a grant");
    }
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let query = Query::HandleGrants { scope: scope.clone(), live_only: false, after, limit: 2 };
        let Answer::HandleGrants(page) = registry.query(query).await.expect("a page") else { panic!("no grants") };
        assert!(page.entries.len() <= 2);
        after = page.entries.last().map(|(grant, _)| grant.process_id.clone());
        seen.extend(page.entries.into_iter().map(|(grant, _)| grant.process_id.to_string()));
        if !page.has_more {
            break;
        }
    }
    assert_eq!(seen, ["p0", "p1", "p2", "p3", "p4"]);

    let id = process_id("p0");
    let scopes = [session("a"), SessionScope::frame("a", "1"), SessionScope::frame("a", "2"), session("b"), scope];
    for scope in &scopes {
        registry.grant_handle(scope.clone(), &id, labelled("l")).await.expect("a grant");
    }
    let mut seen = Vec::new();
    loop {
        let after = seen.last().cloned();
        let query = Query::GrantsOfProcess { process_id: id.clone(), after, limit: 2 };
        let Answer::GrantsOfProcess(page) = registry.query(query).await.expect("a page") else { panic!("no grants") };
        seen.extend(page.grants.into_iter().map(|grant| grant.scope));
        if !page.has_more {
            break;
        }
    }
    assert_eq!(seen, scopes);
}

/// A session is deleted while the actor of a process knows an older state of it: nothing of either is lost.
pub async fn a_deleted_session_is_seen_by_the_next_append(stage: &mut Stage) {
    let registry = &stage.registry;
    let own = session("s");
    let id = process_id("p");
    let spec = ProcessRegistration { wake_target: Some(own.clone()), ..declaring(&id, [waking("ping")]) };
    registry.register_process(spec).await.expect("a registration");
    for round in 0..4 {
        registry.append_event(&id, ping("a")).await.expect("an append");
        let report = registry.delete_session_process_state("s").await.expect("a deletion");
        assert_eq!(report.deleted_wake_count, u64::from(round == 0), "the target is cleared once");
    }
    let types: Vec<_> = registry.events_after(&id, Sequence(0)).await.expect("events");
    let types: Vec<_> = types.iter().map(|event| &*event.event_type).collect();
    assert_eq!(types, ["ping", "process.wake_target_cleared", "ping", "ping", "ping"]);
}

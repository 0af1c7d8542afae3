//! Cases about pruning and what is left: 29, 33, 34, W6, W8, W23, W26.

use awaiter::{AwaitError, ProcessAwaiter};
use registry_actor::domain::{
    Fence, LeaseRelease, ProcessAwaitOutput, ProcessId, ProcessPruneReport, ProcessTerminalState, ProjectionWatermark,
    PruneExemption, PruneFilter, Refusal, RegistryCommand, RegistryReceipt, Sequence, Tombstone,
};
use registry_actor::port::{Clock, ProcessChange, ProcessRegistry, ProcessRegistryExt};

use super::example::*;
use super::stage::{FoldChecked, Stage, assert_unknown, refusal};

async fn prune(registry: &FoldChecked, filter: PruneFilter) -> ProcessPruneReport {
    registry.prune_terminal_processes(filter, ProjectionWatermark::NoProjector).await.expect("a prune")
}

async fn is_there(registry: &FoldChecked, id: &ProcessId) -> bool {
    registry.get_process(id).await.expect("a read").is_some()
}

/// Case 29. The cutoff is compared with when the process ended, not with when it was last touched (W6).
pub async fn c29_prune_removes_terminal_processes_older_than_cutoff(stage: &mut Stage) {
    let registry = &stage.registry;
    let live = registered(registry, "live").await;
    let old = registered(registry, "old").await;
    registry.append_events(&old, vec![note(1), note(2)]).await.expect("an append");
    registry.grant_handle(session("s"), &old, labelled("l")).await.expect("a grant");
    registry.complete_process(&old, success(1)).await.expect("an outcome");
    stage.clock.advance_ms(10);
    let fresh = completed(registry, "fresh").await;
    let cutoff = registry.get_process(&fresh).await.expect("a read").expect("a record").updated_at_ms;

    let report = prune(registry, PruneFilter::ended_before(cutoff)).await;
    assert_eq!(report, ProcessPruneReport { pruned_processes: 1, pruned_events: 3, ..ProcessPruneReport::default() });
    assert!(is_there(registry, &fresh).await, "the cutoff is exclusive");
    assert!(is_there(registry, &live).await);
    assert!(!is_there(registry, &old).await);
    assert_unknown(registry.events_after(&old, Sequence(0)).await, &old);
    assert!(registry.list_handle_grants(&session("s")).await.expect("grants").is_empty());
    assert_eq!(ids(&registry.list_processes(any()).await.expect("a list")), ["fresh", "live"]);
    registry.append_event(&live, note(1)).await.expect("the live one is intact");
}

/// Case 33. Here a lease in force protects (W26), a wake read of what is pruned is unknown while the tombstone is there, and the
/// next life of the id is the next generation.
pub async fn c33_prune_respects_leases_grants_and_wake_acks(stage: &mut Stage) {
    let registry = &stage.registry;
    let target = session("s");
    let id = pinging(registry, "old", &target).await;
    registry.append_events(&id, vec![ping("a"), ping("b")]).await.expect("wakes");
    registry.ack_wake(&id, Sequence(1)).await.expect("an acknowledgement");
    registry.grant_handle(target.clone(), &id, labelled("l")).await.expect("a grant");
    let lease = claimed(registry, &id, opaque_owner("a"), MINUTE_MS).await;
    registry.complete_process_fenced(&id, success(1), lease.fence(), LeaseRelease::Keep).await.expect("an outcome");
    let ended_at = stage.clock.now().epoch_ms;
    stage.clock.advance_ms(10);
    let fresh = pinging(registry, "fresh", &target).await;
    registry.append_event(&fresh, ping("c")).await.expect("a wake");
    registry.complete_process(&fresh, success(1)).await.expect("an outcome");

    let kept = prune(registry, PruneFilter::ended_before(ended_at + 1)).await;
    assert_eq!((kept.pruned_processes, kept.kept_leased), (0, 1), "a lease in force protects");
    assert!(is_there(registry, &id).await);
    registry.complete_process_lease(&lease).await.expect("a release");
    let report = prune(registry, PruneFilter::ended_before(ended_at + 1)).await;
    assert_eq!((report.pruned_processes, report.pruned_events), (1, 4), "two wakes, an ack, an outcome");

    assert_unknown(registry.wake_events_after(&id, Sequence(0), 10).await, &id);
    assert_unknown(registry.handle_grants_for_process(&id).await, &id);
    assert_unknown(registry.append_event(&id, ping("late")).await, &id);
    assert_unknown(registry.ack_wake(&id, Sequence(2)).await, &id);
    assert_unknown(registry.complete_process(&id, success(1)).await, &id);
    assert!(!registry.has_handle_grant(&target, &id).await.expect("a read"));
    assert_eq!(registry.get_process_lease(&id).await.expect("a read"), None);
    let tombstone = registry.get_tombstone(&id).await.expect("a read").expect("a tombstone");
    assert_eq!((tombstone.generation, tombstone.terminal_at_ms), (1, ended_at));
    let pending = registry.pending_wakes(&target, None, 10).await.expect("wakes").wakes;
    let pending: Vec<_> = pending.iter().map(|wake| wake.delivery.process_id.as_str()).collect();
    assert_eq!(pending, ["fresh"], "the wakes of what is gone are gone, fresh ones stay");
    assert_eq!(prune(registry, PruneFilter::ended_before(ended_at + 1)).await, ProcessPruneReport::default());

    let again = pinging(registry, "old", &target).await;
    assert_eq!(claimed(registry, &again, opaque_owner("a"), MINUTE_MS).await.fencing_token, Fence(1));
}

/// 34.
pub async fn c34_prune_never_touches_non_terminal_rows(stage: &mut Stage) {
    let registry = &stage.registry;
    let live = registered(registry, "live").await;
    let ended = completed(registry, "ended").await;
    let before = registry.get_process(&live).await.expect("a read");
    let report = prune(registry, PruneFilter::ended_before(u64::MAX)).await;
    assert_eq!(report.pruned_processes, 1);
    assert!(!is_there(registry, &ended).await);
    assert_eq!(registry.get_process(&live).await.expect("a read"), before);
}

/// W6: what comes after the end is marked late and postpones nothing.
pub async fn w06_late_events_are_marked_and_do_not_postpone_a_prune(stage: &mut Stage) {
    let registry = &stage.registry;
    let id = completed(registry, "p").await;
    let ended_at = stage.clock.now().epoch_ms;
    stage.clock.advance_ms(10);
    let late = registry.append_event(&id, note(1)).await.expect("an append");
    assert!(late.events[0].event().late);
    let record = late.record.expect("a record");
    assert_eq!((record.terminal_at_ms, record.updated_at_ms), (Some(ended_at), ended_at + 10));
    registry
        .set_external_ref(
            &id,
            registry_actor::domain::ProcessExternalRef { backend: "b".into(), id: "1".into(), metadata: None },
        )
        .await
        .expect("ended processes take a reference");
    let record = registry.get_process(&id).await.expect("a read").expect("a record");
    assert_eq!(record.terminal_at_ms, Some(ended_at));
    assert_eq!(prune(registry, PruneFilter::ended_before(ended_at + 1)).await.pruned_processes, 1);
}

/// W8: a record's times never go back, whatever the wall clock does.
pub async fn w08_times_of_a_record_never_go_back(stage: &mut Stage) {
    let registry = &stage.registry;
    let id = registered(registry, "p").await;
    let start = stage.clock.now().epoch_ms;
    stage.clock.set_epoch_ms(start + 100);
    registry.append_event(&id, note(1)).await.expect("an append");
    stage.clock.set_epoch_ms(start - 100);
    let receipt = registry.append_event(&id, note(2)).await.expect("an append");
    assert_eq!(receipt.events[0].event().occurred_at_ms, start - 100, "the event tells what the clock said");
    assert_eq!(receipt.record.expect("a record").updated_at_ms, start + 100);
    let ended = registry.complete_process(&id, success(1)).await.expect("an outcome");
    assert_eq!((ended.updated_at_ms, ended.terminal_at_ms), (start + 100, Some(start + 100)));
    assert_eq!(registry.get_process(&id).await.expect("a read"), Some(ended));
}

/// W23: the largest bound is a bound, not a negative number.
pub async fn w23_the_largest_bounds_mean_everything(stage: &mut Stage) {
    let registry = &stage.registry;
    let id = registered(registry, "p").await;
    registry.append_events(&id, vec![note(1), note(2)]).await.expect("an append");
    for through in [u64::MAX, i64::MAX.cast_unsigned(), i64::MAX.cast_unsigned() + 1] {
        let count = registry.count_events_through(&id, "note", Sequence(through)).await.expect("a count");
        assert_eq!(count, 2, "through {through}");
        assert!(registry.events_after(&id, Sequence(through)).await.expect("events").is_empty());
        let first = registry.first_event_of_type(&id, "note", Sequence(through)).await.expect("a read");
        assert_eq!(first, None);
        let wakes = registry.wake_events_after(&id, Sequence(through), u32::MAX).await.expect("wakes");
        assert!(wakes.events.is_empty());
        let refused = refusal(registry.ack_wake(&id, Sequence(through)).await);
        assert_eq!(refused, Refusal::NoSuchWake { process_id: id.clone(), sequence: Sequence(through) });
    }
    for cutoff in [u64::MAX, i64::MAX.cast_unsigned() + 1] {
        let id = completed(registry, &format!("ended-{cutoff}")).await;
        assert_eq!(prune(registry, PruneFilter::ended_before(cutoff)).await.pruned_processes, 1);
        assert!(!is_there(registry, &id).await);
    }
    completed(registry, "ended").await;
    assert_eq!(prune(registry, PruneFilter::ended_before(0)).await, ProcessPruneReport::default());
}

/// W26: what is left of a pruned process says how it ended; its id may live again, numbering from 1, and nobody mistakes
/// one life for the other.
pub async fn w26_a_pruned_id_leaves_a_tombstone_and_lives_again_as_the_next_generation(stage: &mut Stage) {
    stage.stop_time();
    let registry = &stage.registry;
    let awaiter = ProcessAwaiter::attached(stage.port());
    let id = process_id("p");
    assert_eq!(registry.get_tombstone(&id).await.expect("a read"), None);
    for generation in 1..=3 {
        let created_at_ms = stage.clock.now().epoch_ms;
        let record = registry.register_process(registration(&id)).await.expect("a registration");
        assert_eq!(record.generation, generation);
        let receipt = registry.append_event(&id, keyed("note", serde_json::json!(generation), "k")).await;
        let receipt = receipt.expect("keys of an earlier life are free");
        assert!(receipt.events[0].is_inserted());
        assert_eq!(receipt.events[0].event().sequence, Sequence(1));
        stage.clock.advance_ms(1);
        registry.complete_process(&id, ProcessAwaitOutput::cancelled("c")).await.expect("an outcome");
        stage.clock.advance_ms(1);
        assert_eq!(prune(registry, PruneFilter::ended_before(u64::MAX)).await.pruned_processes, 1);
        let expected = Tombstone {
            process_id: id.clone(),
            generation,
            terminal_state: ProcessTerminalState::Cancelled,
            created_at_ms,
            terminal_at_ms: created_at_ms + 1,
            pruned_at_ms: created_at_ms + 2,
        };
        assert_eq!(registry.get_tombstone(&id).await.expect("a read"), Some(expected.clone()));
        let expected = AwaitError::NoLongerRetained { tombstone: Box::new(expected) };
        assert_eq!(awaiter.await_terminal(&id).await, Err(expected.clone()));
        assert_eq!(awaiter.await_event(&id, "note", Sequence(0)).await, Err(expected));
    }
    registry.register_process(registration(&id)).await.expect("a registration");
    let tombstone = registry.get_tombstone(&id).await.expect("a read").expect("a tombstone");
    assert_eq!(tombstone.generation, 3, "kept while the id lives again");
    // What is left of an id is one tombstone, in the feed too: a reader that begins anew is told of the last life that ended.
    let page = registry.changes_since(None, 1_000).await.expect("changes");
    let changes: Vec<_> = page.into_changes().collect();
    let [ProcessChange::Pruned(last), ProcessChange::Event(registered)] = &changes[..] else {
        panic!("expected a tombstone and a registration, got {changes:?}")
    };
    assert_eq!((last, registered.sequence), (&tombstone, Sequence(0)));
}

/// A process that is pruned under its waiter, who hears of the end or of the prune, whichever it is told first.
pub async fn a_waiter_of_a_pruned_process_is_told_how_it_ended(stage: &mut Stage) {
    stage.stop_time();
    let registry = &stage.registry;
    let id = registered(registry, "p").await;
    let awaiter = ProcessAwaiter::attached(stage.port());
    let waiting = tokio::spawn({
        let (awaiter, id) = (awaiter.clone(), id.clone());
        async move { awaiter.await_event(&id, "note", Sequence(0)).await }
    });
    tokio::task::yield_now().await;
    registry.complete_process(&id, success(1)).await.expect("an outcome");
    prune(registry, PruneFilter::ended_before(u64::MAX)).await;
    match waiting.await.expect("a task") {
        Err(AwaitError::NoLongerRetained { tombstone }) => {
            assert_eq!(tombstone.terminal_state, ProcessTerminalState::Completed);
        }
        Err(AwaitError::Ended { record }) => assert_eq!(record.status.await_output(), Some(&success(1))),
        other => panic!("expected its end, got {other:?}"),
    }
}

/// Each field of a prune's filter narrows, and all narrow together.
pub async fn every_field_of_a_prune_filter_narrows(stage: &mut Stage) {
    let registry = &stage.registry;
    for (name, tags) in [("a", &["nightly", "eu"][..]), ("b", &["nightly"]), ("c", &[]), ("d", &["nightly", "eu"])] {
        let id = process_id(name);
        let mut spec = registration(&id).with_tags(tags.iter().copied());
        spec.identity.kind = if name == "d" { "other".into() } else { "job".into() };
        registry.register_process(spec).await.expect("a registration");
        let outcome = if name == "b" { ProcessAwaitOutput::cancelled("c") } else { success(1) };
        registry.complete_process(&id, outcome).await.expect("an outcome");
        stage.clock.advance_ms(10);
    }
    let everything = PruneFilter::ended_before(u64::MAX);
    let none = PruneFilter { kind: Some("none".into()), ..everything.clone() };
    assert_eq!(prune(registry, none).await, ProcessPruneReport::default());
    let tagged = PruneFilter {
        kind: Some("job".into()),
        tags: ["nightly".to_owned(), "eu".to_owned()].into(),
        ..everything.clone()
    };
    assert_eq!(prune(registry, tagged).await.pruned_processes, 1);
    assert_eq!(ids(&registry.list_processes(any()).await.expect("a list")), ["b", "c", "d"]);
    let cancelled = PruneFilter { state: Some(ProcessTerminalState::Cancelled), ..everything.clone() };
    assert_eq!(prune(registry, cancelled).await.pruned_processes, 1);
    assert_eq!(ids(&registry.list_processes(any()).await.expect("a list")), ["c", "d"]);

    // Whoever is exempt stays, as if the filter had not meant it.
    let exempt = |kind: Option<&str>, tags: &[&str]| PruneExemption {
        kind: kind.map(str::to_owned),
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        ..PruneExemption::default()
    };
    let sparing = |except| PruneFilter { except, ..everything.clone() };
    let all_but = vec![exempt(Some("other"), &["eu"]), exempt(Some("job"), &[])];
    assert_eq!(prune(registry, sparing(all_but)).await, ProcessPruneReport::default());
    let nobody = vec![PruneExemption { state: Some(ProcessTerminalState::Failed), ..PruneExemption::default() }];
    let command = RegistryCommand::Prune {
        filter: sparing([nobody, vec![exempt(None, &["eu", "nightly"])]].concat()),
        watermark: ProjectionWatermark::NoProjector,
        limit: 1,
    };
    match registry.execute_across(command).await.expect("a prune") {
        RegistryReceipt::Pruned(report) => assert_eq!((report.pruned_processes, report.more), (1, false)),
        other => panic!("expected a report, got {other:?}"),
    }
    assert_eq!(ids(&registry.list_processes(any()).await.expect("a list")), ["d"]);
    let mut spec = registration(&process_id("e"));
    spec.identity.kind = "job".into();
    registry.register_process(spec).await.expect("a registration");
    registry.complete_process(&process_id("e"), success(1)).await.expect("an outcome");

    // A command that may take one says that there are more.
    let command = RegistryCommand::Prune { filter: everything, watermark: ProjectionWatermark::NoProjector, limit: 1 };
    let mut reports = Vec::new();
    for _ in 0..3 {
        match registry.execute_across(command.clone()).await.expect("a prune") {
            RegistryReceipt::Pruned(report) => reports.push((report.pruned_processes, report.more)),
            other => panic!("expected a report, got {other:?}"),
        }
    }
    assert_eq!(reports[0], (1, true));
    assert_eq!((reports[1].0, reports[2]), (1, (0, false)));
}

/// What the projector has not seen stays, and what it has seen goes; without a projector all goes.
pub async fn a_prune_leaves_what_the_projector_has_not_seen(stage: &mut Stage) {
    let registry = &stage.registry;
    let seen = completed(registry, "seen").await;
    let touched = completed(registry, "touched").await;
    let watermark = registry.changes_since(None, 1_000).await.expect("changes").next;
    let unseen = completed(registry, "unseen").await;
    registry.append_event(&touched, note(1)).await.expect("a late event");
    stage.clock.advance_ms(1);

    let up_to = ProjectionWatermark::UpTo(watermark);
    let filter = PruneFilter::ended_before(u64::MAX);
    let report = registry.prune_terminal_processes(filter.clone(), up_to.clone()).await.expect("a prune");
    assert_eq!((report.pruned_processes, report.kept_unprojected), (1, 2));
    assert!(!is_there(registry, &seen).await);
    assert!(is_there(registry, &touched).await && is_there(registry, &unseen).await);
    let again = registry.prune_terminal_processes(filter.clone(), up_to).await.expect("a prune");
    assert_eq!((again.pruned_processes, again.kept_unprojected), (0, 2));

    let end = registry.changes_since(None, 1_000).await.expect("changes").safe_through;
    let report = registry.prune_terminal_processes(filter, ProjectionWatermark::UpTo(end)).await.expect("a prune");
    assert_eq!((report.pruned_processes, report.kept_unprojected), (2, 0));
}

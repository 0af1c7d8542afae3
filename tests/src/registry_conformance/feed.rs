//! Cases about the change feed.

use registry_actor::domain::{ChangeCursor, CursorFault, ProjectionWatermark, PruneFilter, Refusal, Sequence};
use registry_actor::port::{ProcessChange, ProcessRegistryExt};

use super::example::*;
use super::stage::{FoldChecked, Stage, refusal};

/// The feed from a cursor to its end, in pages of this size.
async fn follow(registry: &FoldChecked, after: Option<ChangeCursor>, limit: u32) -> (Vec<ProcessChange>, ChangeCursor) {
    let (mut changes, mut after) = (Vec::new(), after);
    loop {
        let page = registry.changes_since(after, limit).await.expect("a page");
        assert!(page.entries.len() <= limit as usize);
        assert!(page.next.position() <= page.safe_through.position());
        assert!(page.entries.last().is_none_or(|last| last.cursor == page.next), "{page:?}");
        let (next, has_more) = (page.next.clone(), page.has_more);
        changes.extend(page.into_changes());
        if !has_more {
            return (changes, next);
        }
        after = Some(next);
    }
}

fn told(changes: &[ProcessChange]) -> Vec<String> {
    let tell = |change: &ProcessChange| match change {
        ProcessChange::Event(event) => format!("{} {} {}", event.process_id, event.sequence, event.event_type),
        ProcessChange::Pruned(tombstone) => format!("{} pruned {}", tombstone.process_id, tombstone.generation),
        ProcessChange::SessionDeleted(deletion) => format!("session {} deleted", deletion.session_id),
        other => panic!("an unknown change: {other:?}"),
    };
    changes.iter().map(tell).collect()
}

/// Registrations, terminals, internal facts, session deletions and prunes are all in it, in commit order.
pub async fn the_feed_tells_every_change_in_order(stage: &mut Stage) {
    let registry = &stage.registry;
    let (nothing, start) = follow(registry, None, 10).await;
    assert_eq!((nothing.len(), start.position()), (0, 0));
    let target = session("s");
    let p = pinging(registry, "p", &target).await;
    let q = registered(registry, "q").await;
    registry.append_events(&p, vec![ping("a"), note(1)]).await.expect("an append");
    registry.ack_wake(&p, Sequence(1)).await.expect("an acknowledgement");
    claimed(registry, &q, opaque_owner("a"), 1).await;
    registry.grant_handle(target.clone(), &q, labelled("l")).await.expect("a grant");
    stage.clock.advance_ms(1);
    registry.complete_process(&q, success(1)).await.expect("an outcome");
    registry.delete_session_process_state("s").await.expect("a deletion");
    registry.append_event(&q, note(2)).await.expect("a late event");
    let expected = [
        "p 0 process.registered",
        "q 0 process.registered",
        "p 1 ping",
        "p 2 note",
        "p 3 process.wake_acknowledged",
        "q 1 process.completed",
        "p 4 process.wake_target_cleared",
        "session s deleted",
        "q 2 note",
    ];
    let (all, end) = follow(registry, None, 1_000).await;
    assert_eq!(told(&all), expected);
    for limit in [1, 2, 3] {
        assert_eq!(follow(registry, None, limit).await, (all.clone(), end.clone()), "in pages of {limit}");
    }
    let entries = registry.changes_since(None, 1_000).await.expect("a page").entries;
    for (place, entry) in entries.iter().enumerate() {
        let (rest, rest_end) = follow(registry, Some(entry.cursor.clone()), 4).await;
        assert_eq!((&rest[..], &rest_end), (&all[place + 1..], &end), "behind {:?}", entry.change);
    }
    let (nothing, still) = follow(registry, Some(end.clone()), 10).await;
    assert_eq!((nothing.len(), &still), (0, &end));

    // A cursor at an event that is pruned meanwhile goes on.
    let at_its_end = registry.changes_since(None, 6).await.expect("a page").next;
    let filter = PruneFilter::ended_before(u64::MAX);
    registry.prune_terminal_processes(filter, ProjectionWatermark::NoProjector).await.expect("a prune");
    let rest = ["p 4 process.wake_target_cleared", "session s deleted", "q pruned 1"];
    assert_eq!(told(&follow(registry, Some(at_its_end.clone()), 2).await.0), rest);
    let left = ["p 0 process.registered", "p 1 ping", "p 2 note", "p 3 process.wake_acknowledged"];
    let (all, after_prune) = follow(registry, None, 2).await;
    assert_eq!(told(&all), [&left[..], &rest[..]].concat());
    registry.register_process(registration(&q)).await.expect("the next life");
    let (next, _) = follow(registry, Some(after_prune), 2).await;
    assert_eq!(told(&next), ["q 0 process.registered"]);
    let (same, _) = follow(registry, Some(end), 2).await;
    assert_eq!(told(&same), ["q pruned 1", "q 0 process.registered"], "the cursor of a pruned event goes on");

    let text = at_its_end.to_string();
    assert_eq!(text.parse::<ChangeCursor>().expect("its text form"), at_its_end);
}

/// A reader beside writers sees each change once.
pub async fn a_reader_of_the_feed_beside_writers_misses_nothing(stage: &mut Stage) {
    let registry = &stage.registry;
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let registry = std::sync::Arc::clone(registry);
            tokio::spawn(async move {
                let id = registered(&registry, &format!("p{writer}")).await;
                for number in 0..10 {
                    registry.append_event(&id, note(number)).await.expect("an append");
                }
            })
        })
        .collect();
    let (mut seen, mut after) = (Vec::new(), None);
    while seen.len() < 4 * 11 {
        let page = registry.changes_since(after, 3).await.expect("a page");
        after = Some(page.next.clone());
        seen.extend(told(&page.into_changes().collect::<Vec<_>>()));
        tokio::task::yield_now().await;
    }
    for writer in writers {
        writer.await.expect("a writer");
    }
    assert_eq!(seen, told(&follow(registry, None, 1_000).await.0));
    for writer in 0..4 {
        let own = seen.iter().filter(|change| change.starts_with(&format!("p{writer} "))).count();
        assert_eq!(own, 11);
    }
}

/// Cursors of another store, of another epoch and of what the store does not hold are refused, each as what it is; so
/// they are as a projector's watermark.
pub async fn a_cursor_that_is_not_of_this_store_is_refused(stage: &mut Stage) {
    let registry = &stage.registry;
    completed(registry, "p").await;
    let good = follow(registry, None, 10).await.1;
    let text = good.to_string();
    let [link, position, epoch, store] = text.rsplitn(4, '.').collect::<Vec<_>>()[..] else { panic!("a cursor") };
    let store = store.strip_prefix("v1.").expect("version 1");
    let epoch: u64 = epoch.parse().expect("an epoch");
    assert_eq!((position, link.len()), (good.position().to_string().as_str(), 16));
    let cursor = |store: &str, epoch, position, link| ChangeCursor::new(store.into(), epoch, position, link);
    let mut damaged = good.link();
    damaged[0] ^= 1;
    let faults = [
        (
            cursor("another", epoch, good.position(), good.link()),
            CursorFault::Foreign { expected: store.to_owned(), found: "another".to_owned() },
        ),
        (
            cursor(store, epoch + 1, good.position(), good.link()),
            CursorFault::OtherEpoch { expected: epoch, found: epoch + 1 },
        ),
        (cursor(store, epoch, good.position(), damaged), CursorFault::Rewound),
        (cursor(store, epoch, good.position() + 1, good.link()), CursorFault::Rewound),
        (cursor(store, epoch, u64::MAX, good.link()), CursorFault::Rewound),
    ];
    for (cursor, fault) in faults {
        let refused = refusal(registry.changes_since(Some(cursor.clone()), 10).await);
        assert_eq!(refused, Refusal::Cursor(fault.clone()), "{cursor}");
        let watermark = ProjectionWatermark::UpTo(cursor);
        let pruned = registry.prune_terminal_processes(PruneFilter::ended_before(u64::MAX), watermark).await;
        assert_eq!(refusal(pruned), Refusal::Cursor(fault));
    }
    assert!(registry.get_process(&process_id("p")).await.expect("a read").is_some(), "nothing was pruned");
    assert!(registry.changes_since(Some(good), 10).await.expect("a page").entries.is_empty());
}

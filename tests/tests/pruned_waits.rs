//! A process may be pruned between two reads of whoever waits on it. What the second read does not find may have been there.
//!
//! A waiter for any event after the third, of a process whose fourth and last event was its end, was told that it had
//! ended without one: its record had been read before the prune, and its events after it.

use std::sync::Arc;

use async_trait::async_trait;
use registry_actor::actor::{ActorRegistry, RegistryOptions};
use registry_actor::domain::{
    Command, ProcessAwaitOutput, ProcessId, ProjectionWatermark, PruneFilter, Receipt, RegistryCommand,
    RegistryReceipt, Sequence,
};
use registry_actor::log::MemoryLog;
use registry_actor::port::{
    Answer, DurabilityTier, Look, ProcessRegistry, ProcessRegistryExt, ProcessWait, Query, RegistryError, WaitAnswer,
    WaitReader,
};
use registry_tests::example_process::{note, process_id, registration};
use serde_json::json;

/// A registry that prunes what has ended before it lets anybody read events, and registers the id anew if it is to.
struct PrunesBeforeEvents {
    registry: ActorRegistry,
    lives_again: bool,
}

#[async_trait]
impl ProcessRegistry for PrunesBeforeEvents {
    async fn execute(&self, process_id: &ProcessId, command: Command) -> Result<Receipt, RegistryError> {
        self.registry.execute(process_id, command).await
    }

    async fn execute_across(&self, command: RegistryCommand) -> Result<RegistryReceipt, RegistryError> {
        self.registry.execute_across(command).await
    }

    async fn query(&self, query: Query) -> Result<Answer, RegistryError> {
        if let Query::Events { process_id, .. } | Query::FirstEventOfType { process_id, .. } = &query {
            let filter = PruneFilter::ended_before(u64::MAX);
            self.registry.prune_terminal_processes(filter, ProjectionWatermark::NoProjector).await?;
            if self.lives_again {
                self.registry.register_process(registration(process_id)).await?;
            }
        }
        self.registry.query(query).await
    }

    fn durability_tier(&self) -> DurabilityTier {
        self.registry.durability_tier()
    }
}

async fn look_while_it_is_pruned(wait: &ProcessWait, lives_again: bool) -> Look {
    let log = Arc::new(MemoryLog::new("store"));
    let registry = ActorRegistry::start(log, RegistryOptions::default()).await.expect("the registry starts");
    let id = &wait.process_id;
    registry.register_process(registration(id)).await.expect("registered");
    for number in 1..=3 {
        registry.append_event(id, note(number)).await.expect("appended");
    }
    registry.complete_process(id, ProcessAwaitOutput::success(json!(null))).await.expect("ended");
    let pruning = PrunesBeforeEvents { registry, lives_again };
    WaitReader::new(wait).look(&pruning).await.expect("readable")
}

fn assert_no_longer_retained(look: &Look) {
    assert!(matches!(look, Look::Answer(WaitAnswer::NoLongerRetained { .. })), "{look:?}");
}

#[tokio::test]
async fn whether_there_was_an_event_is_not_told_of_a_life_that_was_pruned_meanwhile() {
    let id = process_id("short");
    for after in [3, 4] {
        let wait = ProcessWait::any_event(id.clone(), Sequence(after));
        assert_no_longer_retained(&look_while_it_is_pruned(&wait, false).await);
        assert_no_longer_retained(&look_while_it_is_pruned(&wait, true).await);
    }
    let wait = ProcessWait::event(id, "note", Sequence(2));
    assert_no_longer_retained(&look_while_it_is_pruned(&wait, false).await);
    assert_no_longer_retained(&look_while_it_is_pruned(&wait, true).await);
}

//! What people are told of processes while `proctor run` goes on: of the ends of others, and of failed attempts.
//!
//! It hears of them as of any commit, so that nobody who brings an end about has to say so, and nothing is said that is not
//! durable. Lines are written by a task of their own: who hears of commits must not wait for a terminal.

use std::sync::{Arc, Mutex, PoisonError};

use registry_actor::{
    actor::ActorRegistry,
    domain::{CoreEventType, ProcessId, Tombstone},
    port::{CommitListener, CommittedBatch, ProcessRegistry},
};
use tokio::{
    sync::mpsc::{UnboundedSender, unbounded_channel},
    task::JoinHandle,
};

use crate::{attempt::summary, notice::say, time_text};

/// Tells until the registry has ended.
#[derive(Debug)]
pub(crate) struct RecoveryNews {
    hearing: Arc<Hearing>,
    saying: JoinHandle<()>,
}

#[derive(Debug)]
struct Hearing {
    own: ProcessId,
    lines: Mutex<Option<UnboundedSender<String>>>,
}

impl RecoveryNews {
    /// Begins to tell.
    pub(crate) fn start(registry: &ActorRegistry, own: ProcessId) -> Self {
        let (sender, mut lines) = unbounded_channel();
        let hearing = Arc::new(Hearing { own, lines: Mutex::new(Some(sender)) });
        if let Some(source) = registry.change_source() {
            source.attach(&(Arc::clone(&hearing) as Arc<dyn CommitListener>));
        }
        let saying = tokio::spawn(async move {
            while let Some(line) = lines.recv().await {
                say(line);
            }
        });
        Self { hearing, saying }
    }

    /// Waits until all is said. The registry has been shut down, so that nothing more is heard.
    pub(crate) async fn finish(self) {
        self.hearing.closed();
        drop(self.saying.await);
    }
}

impl Hearing {
    fn lines_of(&self, batch: &CommittedBatch) -> Vec<String> {
        let id = &batch.process_id;
        let is_own = *id == self.own;
        let mut lines = Vec::new();
        for event in &batch.events {
            if event.core_type() == Some(CoreEventType::AttemptFailed)
                && let Some(failed) = &batch.record.attempts.failure
            {
                let (attempt, message) = (failed.attempt, &failed.failure.message);
                let retry_at = time_text::instant(failed.retry_at_ms);
                let line = format!("`{id}`: attempt {attempt} failed ({message}), the next one is due at {retry_at}");
                lines.push(if is_own { line } else { format!("recovery: {line}") });
            }
            if event.semantics.terminal.is_some()
                && !is_own
                && let Some(outcome) = batch.record.status.await_output()
            {
                lines.push(format!("recovery: `{id}` is {}", summary(outcome)));
            }
        }
        lines
    }
}

impl CommitListener for Hearing {
    fn committed(&self, batches: &[CommittedBatch]) {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(lines) = &*lines else { return };
        for line in batches.iter().flat_map(|batch| self.lines_of(batch)) {
            // It is taken as long as somebody says it.
            drop(lines.send(line));
        }
    }

    fn pruned(&self, _: &[Tombstone]) {}

    /// What was missed is in the store; it is not said.
    fn resync(&self) {}

    fn closed(&self) {
        drop(self.lines.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

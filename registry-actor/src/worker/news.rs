//! What a drive is told of commits: which processes to look at, gathered until it comes to it.

use std::collections::BTreeSet;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

use super::account::Account;
use super::drive::DriveMessage;
use crate::domain::{CoreEventType, ProcessEvent, ProcessId, Tombstone};
use crate::port::{CommitListener, CommittedBatch};

/// How many processes are gathered before everything is looked at instead.
const GATHERED: usize = 10_000;

/// Gathers what commits mean for the worker.
#[derive(Debug)]
pub(super) struct News {
    account: Arc<Account>,
    gathered: Mutex<Gathered>,
}

/// What is to be looked at.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    /// These, and those on whose behalf they run.
    pub(super) changed: BTreeSet<ProcessId>,
    /// Everything: some news is lost.
    pub(super) everything: bool,
    told: bool,
}

impl News {
    pub(super) fn new(account: Arc<Account>) -> Arc<Self> {
        Arc::new(Self { account, gathered: Mutex::default() })
    }

    pub(super) fn take(&self) -> Gathered {
        mem::take(&mut *self.gathered.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn gather(&self, gather: impl FnOnce(&mut Gathered)) {
        let tell = {
            let mut gathered = self.gathered.lock().unwrap_or_else(PoisonError::into_inner);
            gather(&mut gathered);
            if gathered.changed.len() > GATHERED {
                gathered.changed.clear();
                gathered.everything = true;
            }
            let is_news = gathered.everything || !gathered.changed.is_empty();
            is_news && !mem::replace(&mut gathered.told, is_news)
        };
        if tell {
            self.account.tell_drive(DriveMessage::News);
        }
    }
}

/// Whether an event may make something due that was not: all else is known to who runs the process.
fn matters(event: &Arc<ProcessEvent>) -> bool {
    event.semantics.terminal.is_some()
        || matches!(
            event.core_type(),
            Some(CoreEventType::Registered | CoreEventType::CancelRequested | CoreEventType::AbandonRequested)
        )
}

impl CommitListener for News {
    fn committed(&self, batches: &[CommittedBatch]) {
        let mut changed = batches.iter().filter(|batch| batch.events.iter().any(matters)).peekable();
        if changed.peek().is_some() {
            self.gather(|gathered| gathered.changed.extend(changed.map(|batch| batch.process_id.clone())));
        }
    }

    fn pruned(&self, tombstones: &[Tombstone]) {
        self.gather(|gathered| {
            gathered.changed.extend(tombstones.iter().map(|tombstone| tombstone.process_id.clone()));
        });
    }

    fn resync(&self) {
        self.gather(|gathered| gathered.everything = true);
    }

    fn closed(&self) {}
}

//! The changes of the whole store as one stream: what the feed has, and then what comes.
//!
//! Live and past changes go one way: after each commit the feed is read behind the last change that was told. It owns how often that
//! is. It does not know how the stream is sent.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use registry_actor::{
    domain::ChangeCursor,
    port::{FeedEntry, ProcessRegistryExt},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{Api, change_view::ChangeView, page_budget::PageBudget, problem::Problem};

/// How soon after it was woken a stream is woken again: what is committed meanwhile is read together.
const PAUSE: Duration = Duration::from_millis(100);

/// Where a stream begins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum From {
    /// With the first change that is retained.
    Start,
    /// Behind a change.
    After(ChangeCursor),
    /// With the first change that is yet to come.
    Now,
}

/// What a stream tells.
pub(super) enum Told {
    /// A change.
    Change {
        /// Where to go on behind it.
        cursor: ChangeCursor,
        /// The change.
        change: ChangeView,
    },
    /// The host goes down: go on with the next one.
    Stopping,
    /// The feed could not be read.
    Failed(Problem),
}

/// The stream of a store.
pub(super) struct ChangeStream {
    api: Arc<Api>,
    /// Behind what was read last.
    after: Option<ChangeCursor>,
    read: VecDeque<FeedEntry>,
    /// How much is read ahead, and held for a reader that is slow.
    budget: PageBudget,
    commits: watch::Receiver<u64>,
    /// Whether there may be something to read.
    has_more: bool,
    /// When it may be woken.
    rests_until: Instant,
    is_over: bool,
}

impl ChangeStream {
    /// A stream that begins there.
    ///
    /// # Errors
    /// When the store does not accept the cursor, or cannot be read.
    pub(super) async fn new(api: Arc<Api>, from: From) -> Result<Self, Problem> {
        let commits = api.commits.subscribe();
        let cursor = match &from {
            From::After(cursor) => Some(cursor.clone()),
            From::Start | From::Now => None,
        };
        // A cursor that is not of this store is refused before anything is sent.
        let page = api.host.registry.changes_since(cursor.clone(), 1).await?;
        let after = if from == From::Now { Some(page.safe_through) } else { cursor };
        Ok(Self {
            api,
            after,
            read: VecDeque::new(),
            budget: PageBudget::of_stream(),
            commits,
            has_more: true,
            rests_until: Instant::now(),
            is_over: false,
        })
    }

    /// What is told next; `None` when it is over. To drop the future loses nothing.
    pub(super) async fn next(&mut self) -> Option<Told> {
        if self.is_over {
            return None;
        }
        let told = self.look().await.unwrap_or_else(Told::Failed);
        self.is_over = !matches!(told, Told::Change { .. });
        Some(told)
    }

    /// Reads on, or waits for something to read.
    async fn look(&mut self) -> Result<Told, Problem> {
        loop {
            // At once, whatever is left to read: a reader that is slow would hold up the stop, and can go on at the next host.
            if self.api.is_stopping() {
                return Ok(Told::Stopping);
            }
            if let Some(FeedEntry { cursor, change }) = self.read.pop_front() {
                return Ok(Told::Change { cursor, change: ChangeView::new(&change)? });
            }
            if !self.has_more && !self.is_woken().await {
                return Ok(Told::Stopping);
            }
            self.read_on().await?;
        }
    }

    /// Reads as much as is held for a reader.
    async fn read_on(&mut self) -> Result<(), Problem> {
        self.budget.clear();
        let _turn = self.api.stream_room.turn_to_read_changes().await;
        while let (Some(count), true) = (self.budget.next_read(), self.has_more) {
            let mut page = self.api.host.registry.changes_since(self.after.clone(), count).await?;
            let admitted = self.budget.admit(&page.entries);
            self.has_more = page.has_more || admitted < page.entries.len();
            page.entries.truncate(admitted);
            if let Some(last) = page.entries.last() {
                self.after = Some(last.cursor.clone());
            }
            self.read.extend(page.entries);
        }
        Ok(())
    }

    /// Waits for a commit, and for the end of the pause. False at a stop.
    async fn is_woken(&mut self) -> bool {
        tokio::select! {
            told = self.commits.changed() => if told.is_err() { return false },
            () = self.api.stopped() => return false,
        }
        // Noted before anything else is awaited: a commit is told of once.
        self.has_more = true;
        tokio::select! {
            () = sleep_until(self.rests_until) => {}
            () = self.api.stopped() => return false,
        }
        self.rests_until = Instant::now() + PAUSE;
        true
    }
}

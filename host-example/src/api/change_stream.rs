//! The changes of the whole store as one stream: what the feed has, and then what comes.
//!
//! Live and past changes go one way: after each commit the feed is read behind the last change that was told. It does not know how
//! the stream is sent.

use std::sync::Arc;

use registry_actor::{domain::ChangeCursor, port::ProcessRegistryExt};
use tokio::sync::watch;

use super::{Api, change_view::ChangeView, problem::Problem};

/// How many changes are read at a time. A page has one cursor, that of its end, and a stream can be taken up again behind each change.
const PAGE: u32 = 1;

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
    after: Option<ChangeCursor>,
    commits: watch::Receiver<u64>,
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
        let page = api.host.registry.changes_since(cursor.clone(), PAGE).await?;
        let after = if from == From::Now { Some(page.safe_through) } else { cursor };
        Ok(Self { api, after, commits, is_over: false })
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
            let page = self.api.host.registry.changes_since(self.after.clone(), PAGE).await?;
            if let Some(change) = page.changes.first() {
                let change = ChangeView::new(change)?;
                self.after = Some(page.next.clone());
                return Ok(Told::Change { cursor: page.next, change });
            }
            tokio::select! {
                told = self.commits.changed() => if told.is_err() { return Ok(Told::Stopping) },
                () = self.api.stopped() => return Ok(Told::Stopping),
            }
        }
    }
}

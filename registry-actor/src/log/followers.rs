//! Who hears of committed groups. It does not know what a follower does with them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::port::{CommitFollower, CommittedGroup, Position};

/// The followers of one log, and the last position that they have heard of.
pub(crate) struct Followers {
    told: Mutex<Told>,
}

struct Told {
    position: Position,
    followers: Vec<Weak<dyn CommitFollower>>,
}

impl Followers {
    /// Nobody yet; the next group begins after this position.
    pub(crate) const fn starting_after(position: Position) -> Self {
        Self { told: Mutex::new(Told { position, followers: Vec::new() }) }
    }

    /// Adds a follower; answers the position after which it hears everything.
    pub(crate) fn add(&self, follower: Weak<dyn CommitFollower>) -> Position {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.followers.retain(|known| known.strong_count() > 0);
        told.followers.push(follower);
        told.position
    }

    /// Tells all followers, outside the lock. Calls must come one at a time, in the order of positions. A panicking
    /// follower has missed a hint and costs the log nothing.
    pub(crate) fn tell(&self, group: &CommittedGroup) {
        let followers: Vec<Arc<dyn CommitFollower>> = {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            told.position = group.position;
            told.followers.iter().filter_map(Weak::upgrade).collect()
        };
        for follower in followers {
            if catch_unwind(AssertUnwindSafe(|| follower.follow(group))).is_err() {
                tracing::error!(position = group.position.0, "a commit follower panicked");
            }
        }
    }
}

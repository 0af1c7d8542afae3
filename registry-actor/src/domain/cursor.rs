//! Cursors: how far a reader has come in the store as a whole.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// How far a reader has come in the change feed of one store. Opaque; its text form may be kept anywhere.
///
/// It names the store, the store's epoch (which changes when a store is restored from a backup), a position, and eight
/// bytes of the link of the change at that position, so that a cursor of another or of a rewound store is recognised.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ChangeCursor {
    store_id: Arc<str>,
    epoch: u64,
    position: u64,
    link: [u8; 8],
}

/// A text that is no cursor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a change cursor `v1.STORE.EPOCH.POSITION.LINK`, got {found:?}")]
pub struct InvalidCursor {
    /// What was found, cut to its first 80 characters.
    pub found: String,
}

/// Why a store does not accept a cursor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "fault", rename_all = "snake_case")]
#[non_exhaustive]
pub enum CursorFault {
    /// It is a cursor of another store.
    #[error("the cursor is of store `{found}`, this is store `{expected}`")]
    Foreign {
        /// This store.
        expected: String,
        /// The store of the cursor.
        found: String,
    },
    /// It is of another epoch of this store: the store was restored since, or the cursor is of a later restoration.
    #[error("the cursor is of epoch {found} of this store, which is now in epoch {expected}")]
    OtherEpoch {
        /// The epoch of the store.
        expected: u64,
        /// The epoch of the cursor.
        found: u64,
    },
    /// The store holds something else there, or does not reach so far: it was rewound.
    #[error("the store does not hold the change that the cursor points to: it was rewound")]
    Rewound,
}

impl ChangeCursor {
    /// A cursor at a change, for the log that hands it out; position 0 is before the first one.
    #[must_use]
    pub const fn new(store_id: Arc<str>, epoch: u64, position: u64, link: [u8; 8]) -> Self {
        Self { store_id, epoch, position, link }
    }

    /// Where it points, for the log that made it.
    #[must_use]
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// First bytes of the link there.
    #[must_use]
    pub const fn link(&self) -> [u8; 8] {
        self.link
    }

    /// Whether it belongs to this store in this epoch.
    ///
    /// # Errors
    /// [`CursorFault::Foreign`] and [`CursorFault::OtherEpoch`].
    pub fn check(&self, store_id: &str, epoch: u64) -> Result<(), CursorFault> {
        if *self.store_id != *store_id {
            return Err(CursorFault::Foreign { expected: store_id.to_owned(), found: self.store_id.to_string() });
        }
        if self.epoch != epoch {
            return Err(CursorFault::OtherEpoch { expected: epoch, found: self.epoch });
        }
        Ok(())
    }
}

impl fmt::Display for ChangeCursor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let link = u64::from_be_bytes(self.link);
        write!(formatter, "v1.{}.{}.{}.{link:016x}", self.store_id, self.epoch, self.position)
    }
}

impl FromStr for ChangeCursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        let invalid = || InvalidCursor { found: text.chars().take(80).collect() };
        let number = |text: &str| -> Option<u64> {
            // One text for each number, so that equal cursors are equal texts.
            let number: u64 = text.parse().ok()?;
            (number.to_string() == text).then_some(number)
        };
        let read = || {
            // From the right: a store's id may hold dots.
            let (rest, link) = text.strip_prefix("v1.")?.rsplit_once('.')?;
            let (rest, position) = rest.rsplit_once('.')?;
            let (store_id, epoch) = rest.rsplit_once('.')?;
            let is_hex = link.len() == 16 && link.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            let link = is_hex.then(|| u64::from_str_radix(link, 16).ok())??.to_be_bytes();
            let (epoch, position) = (number(epoch)?, number(position)?);
            (!store_id.is_empty()).then(|| Self { store_id: store_id.into(), epoch, position, link })
        };
        read().ok_or_else(invalid)
    }
}

impl TryFrom<String> for ChangeCursor {
    type Error = InvalidCursor;

    fn try_from(text: String) -> Result<Self, InvalidCursor> {
        text.parse()
    }
}

impl From<ChangeCursor> for String {
    fn from(cursor: ChangeCursor) -> Self {
        cursor.to_string()
    }
}

/// How far a reader has come among processes, newest registration first. Opaque: it grows, and says nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RegistrationCursor(u64);

impl RegistrationCursor {
    /// A cursor at a place, for the log that hands it out; later registrations have larger ones.
    #[must_use]
    pub const fn new(place: u64) -> Self {
        Self(place)
    }

    /// The place, for the log that handed it out.
    #[must_use]
    pub const fn place(self) -> u64 {
        self.0
    }
}

/// How far a reader has come in the pending wakes of a target. Opaque: it grows, and says nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WakeCursor(u64);

impl WakeCursor {
    /// A cursor at a place, for the log that hands it out; later wakes of a target have larger ones.
    #[must_use]
    pub const fn new(place: u64) -> Self {
        Self(place)
    }

    /// The place, for the log that handed it out.
    #[must_use]
    pub const fn place(self) -> u64 {
        self.0
    }
}

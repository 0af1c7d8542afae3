//! Which stores a reading verb reads: the one that is named, or the user's whole set.
//!
//! It owns the option and the search through several stores. It does not know what is read.

use std::{
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use clap::Args;
use registry_actor::domain::ProcessId;

use crate::{
    failure::{Failure, FailureKind},
    store::StoreReader,
    store_set::StoreSet,
};

/// How often a store of the set is tried that cannot be read yet.
const MEMBER_TRIES: u32 = 5;

/// The pause between two tries.
const MEMBER_PAUSE: Duration = Duration::from_millis(50);

/// The choice of stores.
#[derive(Args, Debug)]
pub(crate) struct StoreChoice {
    /// The store to read, a live host's too; by default all of the user's stores.
    #[arg(long, value_name = "FILE")]
    store: Option<PathBuf>,
}

impl StoreChoice {
    /// The files of the chosen stores; of a set, those that exist.
    ///
    /// # Errors
    /// When the set cannot be read.
    pub(crate) fn paths(&self) -> Result<Vec<PathBuf>, Failure> {
        match &self.store {
            Some(path) => Ok(vec![path.clone()]),
            None => StoreSet::of_user()?.existing(),
        }
    }

    /// Opens the one chosen store.
    ///
    /// # Errors
    /// When there is none, or when the user has several and named none.
    pub(crate) fn open_only(&self) -> Result<StoreReader, Failure> {
        match self.paths()?.as_slice() {
            [only] => StoreReader::open(only),
            [] => Err(Failure::new(FailureKind::NoInput, "there is no store: name one with --store")),
            several => {
                let line = format!("there are {} stores: name one of them with --store", several.len());
                Err(Failure::new(FailureKind::Usage, line))
            }
        }
    }
}

/// Opens a store of the set. Another host may be creating it just now, and then it is no store for a moment.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn open_member(path: &Path) -> Result<StoreReader, Failure> {
    for _ in 1..MEMBER_TRIES {
        match StoreReader::open(path) {
            Err(failure) if failure.kind() == FailureKind::Data => thread::sleep(MEMBER_PAUSE),
            opened => return opened,
        }
    }
    StoreReader::open(path)
}

/// The id that was typed.
///
/// # Errors
/// When no process can have it.
pub(crate) fn typed_id(text: &str) -> Result<ProcessId, Failure> {
    ProcessId::new(text).map_err(|error| Failure::new(FailureKind::Usage, error.to_string()))
}

//! The stores that are used when none is named: a numbered set in the user's state directory.
//!
//! It owns their names and order. One store has one owner at a time; that there are several lets several hosts run
//! without a word about stores. It does not know what is in a store.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use etcetera::{BaseStrategy, base_strategy::Xdg};

use crate::{
    failure::{Failure, FailureKind},
    store::{OwnedStore, TakeError},
};

/// As many hosts at once are more likely a mistake than a wish.
const MAX_STORES: u32 = 1000;

/// The store of `proctor serve`.
const SERVED: &str = "serve.db";

/// The set of one user.
#[derive(Clone, Debug)]
pub(crate) struct StoreSet {
    directory: PathBuf,
}

impl StoreSet {
    /// The set of the user that runs this: `$XDG_STATE_HOME/proctor`, or `~/.local/state/proctor`.
    ///
    /// # Errors
    /// When the user has no home directory.
    pub(crate) fn of_user() -> Result<Self, Failure> {
        let strategy = Xdg::new().map_err(|error| {
            Failure::new(FailureKind::CannotCreate, format!("no place for a store: {error}; name one with --store"))
        })?;
        let state = strategy.state_dir().unwrap_or_else(|| strategy.home_dir().join(".local/state"));
        Ok(Self { directory: state.join("proctor") })
    }

    /// Where the set is.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The store of `proctor serve`, which is always the same.
    pub(crate) fn served(&self) -> PathBuf {
        self.directory.join(SERVED)
    }

    /// Takes the first store that nobody owns, and creates it if need be.
    ///
    /// # Errors
    /// When a store cannot be created, or one that is free cannot be opened.
    pub(crate) fn take_first_free(&self) -> Result<OwnedStore, Failure> {
        fs::create_dir_all(&self.directory).map_err(|error| {
            let directory = self.directory.display();
            Failure::new(FailureKind::CannotCreate, format!("cannot create the directory {directory}: {error}"))
        })?;
        for number in 1..=MAX_STORES {
            match OwnedStore::take(&self.directory.join(file_name(number))) {
                Ok(store) => return Ok(store),
                Err(TakeError::Owned { .. }) => {}
                Err(TakeError::Failed(failure)) => return Err(failure),
            }
        }
        let directory = self.directory.display();
        Err(Failure::new(FailureKind::Temporary, format!("all {MAX_STORES} stores in {directory} are owned by hosts")))
    }

    /// The stores that exist, by number, and that of `proctor serve` after them.
    ///
    /// # Errors
    /// When the directory cannot be read; one that is not there holds no stores.
    pub(crate) fn existing(&self) -> Result<Vec<PathBuf>, Failure> {
        let unreadable = |error| {
            let directory = self.directory.display();
            Failure::new(FailureKind::Io, format!("cannot read the directory {directory}: {error}"))
        };
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(unreadable(error)),
        };
        let mut numbers = Vec::new();
        for entry in entries {
            let name = entry.map_err(unreadable)?.file_name();
            numbers.extend(name.to_str().and_then(number_of));
        }
        numbers.sort_unstable();
        let served = Some(self.served()).filter(|path| path.exists());
        Ok(numbers.into_iter().map(|number| self.directory.join(file_name(number))).chain(served).collect())
    }
}

fn file_name(number: u32) -> String {
    format!("store-{number}.db")
}

fn number_of(file_name: &str) -> Option<u32> {
    let digits = file_name.strip_prefix("store-")?.strip_suffix(".db")?;
    // A name with another spelling of a number is not one of ours.
    digits.parse().ok().filter(|&number: &u32| self::file_name(number) == file_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_the_set_have_a_number() {
        assert_eq!(number_of("store-12.db"), Some(12));
        for name in ["store-.db", "store-1.db-wal", "store-01.db", "store-1.db.lock", "other.db", "store--1.db"] {
            assert_eq!(number_of(name), None, "{name}");
        }
    }

    #[test]
    fn the_existing_stores_come_by_number() {
        let directory = tempfile::tempdir().expect("a directory");
        for name in ["store-10.db", "store-2.db", "store-2.db.lock", "note.txt"] {
            fs::write(directory.path().join(name), "").expect("a file");
        }
        let set = StoreSet { directory: directory.path().to_owned() };
        let names: Vec<_> =
            set.existing().expect("readable").iter().map(|path| path.file_name().map(ToOwned::to_owned)).collect();
        assert_eq!(names, [Some("store-2.db".into()), Some("store-10.db".into())]);
    }

    #[test]
    fn a_directory_that_is_not_there_holds_no_stores() {
        let directory = tempfile::tempdir().expect("a directory");
        let set = StoreSet { directory: directory.path().join("absent") };
        assert!(set.existing().expect("no error").is_empty());
    }
}

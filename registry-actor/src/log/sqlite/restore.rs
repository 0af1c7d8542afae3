//! A restoration: a store made of a backup, with a new epoch, so that nobody takes it for the store as it was.
//!
//! What must not come about is that a restored store proves the death of a host that lives with the original. A session proves
//! the end of earlier ones because one file has one owner lock. That holds for the restored store only where the
//! restoration itself held the lock of the original and put the restored one in its place. Everywhere else it begins a new
//! lineage, and leases of the original end by time alone.

use std::path::{Path, PathBuf};

use super::backup_error::BackupError;
use super::hidden_copy::{self, HiddenCopy, Watch};
use super::log_file;
use super::open_error::OpenError;
use super::owner::{self, OwnerLock};
use super::schema::{self, Identity, Synchronous};
use super::whole_check::{self, CheckedStore};

/// What becomes of a store that stands where a backup is restored to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ExistingStore {
    /// It stays, and nothing is restored.
    #[default]
    Refuse,
    /// It is replaced, in one step, if no host owns it.
    Replace,
}

/// What is known of the hosts of the original's sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EarlierSessions {
    /// They are over: the original was owned by the restoration and is replaced. Recovery treats leases of theirs as those of
    /// dead hosts.
    Over,
    /// One of them may live, with the original elsewhere. Their leases end by time alone.
    Unknown,
}

/// A store that was restored. It is durable under its name, and no host has opened it yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreReport {
    /// Where it is.
    pub path: PathBuf,
    /// Its epoch: cursors of every other one are refused.
    pub epoch: u64,
    /// What is known of the hosts before.
    pub earlier_sessions: EarlierSessions,
    /// What was checked.
    pub checked: CheckedStore,
}

/// Makes a store of a backup.
pub(super) fn restore(
    from: &Path,
    to: &Path,
    existing: ExistingStore,
    watch: &mut Watch<'_>,
) -> Result<RestoreReport, BackupError> {
    if !from.exists() {
        return Err(OpenError::Missing { path: from.to_owned() }.into());
    }
    let (from, to) = (owner::canonical(from)?, owner::canonical(to)?);
    let is_there = |path: &Path| path.symlink_metadata().is_ok();
    if let (ExistingStore::Refuse, Some(path)) = (existing, hidden_copy::standing(&to)) {
        return Err(BackupError::Exists { path });
    }
    if from == to {
        return Err(BackupError::Exists { path: to });
    }
    let source =
        schema::connect_reader(&from, Synchronous::Full).map_err(|error| OpenError::of_sqlite(&from, &error))?;
    schema::check_backup(&source, &from)?;
    let _lock = OwnerLock::acquire(&to)?;
    owner::warn_of_network(&to);
    // Looked at again, since a host may have come and gone before the lock was ours.
    let replaced = match (hidden_copy::standing(&to), existing) {
        (Some(path), ExistingStore::Refuse) => return Err(BackupError::Exists { path }),
        (Some(_), ExistingStore::Replace) if is_there(&to) => settle(&to)?,
        (Some(_), ExistingStore::Replace) | (None, _) => None,
    };
    let hidden = HiddenCopy::make(&source, &from, &to, watch)?;
    drop(source);
    let not_copied = |error: rusqlite::Error| BackupError::NotCopied { path: from.clone(), reason: error.to_string() };
    let mut copy = hidden.edit().map_err(not_copied)?;
    schema::unmark_backup(&mut copy, &from)?;
    let checked = whole_check::check(&copy, watch).map_err(|failure| failure.of(&from))?;
    let backup = schema::read_identity(&copy)
        .map_err(not_copied)?
        .ok_or_else(|| BackupError::Damaged { path: from.clone(), faults: vec!["it has no identity".to_owned()] })?;
    let (identity, earlier_sessions) = restored(&backup, replaced.as_ref(), Fresh::draw(&to)?);
    schema::write_identity(&copy, &identity).map_err(not_copied)?;
    copy.close().map_err(|(_, error)| not_copied(error))?;
    hidden.sync()?;
    // What lies beside it belongs to the store that is replaced and is empty; SQLite would read it as the log of the new one.
    hidden_copy::remove_side_files(&to);
    match existing {
        ExistingStore::Refuse => hidden.publish(&to)?,
        ExistingStore::Replace => hidden.publish_over(&to)?,
    }
    // A reader that came between the two has made them anew.
    hidden_copy::remove_side_files(&to);
    owner::sync_parent(&to)?;
    Ok(RestoreReport { path: to, epoch: identity.epoch, earlier_sessions, checked })
}

/// Brings the store that is to be replaced into its one file, so that it is whole until the very step that replaces it; answers
/// who it was. The caller holds its lock.
fn settle(path: &Path) -> Result<Option<Identity>, BackupError> {
    let unless_broken = |error: OpenError| match error {
        OpenError::NotAStore { .. } | OpenError::Unusable { .. } => {
            BackupError::NoStore { path: path.to_owned(), reason: error.to_string() }
        }
        error => error.into(),
    };
    owner::refuse_several_names(path)?;
    log_file::rewrite_of_store(path)?;
    let mut connection = schema::connect_writer(path, Synchronous::Full, 2_048, 0)
        .map_err(|error| unless_broken(OpenError::of_sqlite(path, &error)))?;
    schema::prepare(&mut connection, path).map_err(unless_broken)?;
    let stuck =
        |error: rusqlite::Error| BackupError::NotReplaceable { path: path.to_owned(), reason: error.to_string() };
    let identity = schema::read_identity(&connection).map_err(stuck)?;
    schema::checkpoint_whole(&connection).map_err(stuck)?;
    connection.close().map_err(|(_, error)| stuck(error))?;
    Ok(identity)
}

/// What a restoration draws.
struct Fresh {
    epoch_step: u64,
    lineage: String,
}

impl Fresh {
    /// Two restorations of one backup know nothing of each other, and must not come to the same epoch.
    const EPOCH_STEPS: u64 = 1 << 40;

    fn draw(path: &Path) -> Result<Self, OpenError> {
        let draw = || getrandom::u64();
        let (step, lineage) = draw()
            .and_then(|step| Ok((step, draw()?)))
            .map_err(|error| OpenError::Io { path: path.to_owned(), reason: format!("no randomness: {error}") })?;
        Ok(Self { epoch_step: 1 + step % Self::EPOCH_STEPS, lineage: format!("{lineage:016x}") })
    }
}

/// Who the restored store is: the same store in a later epoch than any that is known.
fn restored(backup: &Identity, replaced: Option<&Identity>, fresh: Fresh) -> (Identity, EarlierSessions) {
    let original = replaced.filter(|replaced| replaced.store_id == backup.store_id);
    let known_epoch = original.map_or(0, |original| original.epoch).max(backup.epoch);
    let epoch = known_epoch.saturating_add(fresh.epoch_step);
    let store_id = backup.store_id.clone();
    match original.filter(|original| original.lineage == backup.lineage) {
        // Its lock was ours, and it is gone: whoever had a session of this lineage is dead, and there will be no other.
        Some(original) => {
            let session = original.session.max(backup.session);
            (Identity { store_id, epoch, lineage: backup.lineage.clone(), session }, EarlierSessions::Over)
        }
        None => {
            let session = backup.session;
            (Identity { store_id, epoch, lineage: fresh.lineage, session }, EarlierSessions::Unknown)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(store_id: &str, epoch: u64, lineage: &str, session: u64) -> Identity {
        Identity { store_id: store_id.to_owned(), epoch, lineage: lineage.to_owned(), session }
    }

    fn of(backup: &Identity, replaced: Option<&Identity>) -> (Identity, EarlierSessions) {
        restored(backup, replaced, Fresh { epoch_step: 5, lineage: "fresh".to_owned() })
    }

    #[test]
    fn a_store_that_replaces_the_original_goes_on_after_its_last_session() {
        let backup = identity("s", 1, "", 3);
        assert_eq!(of(&backup, Some(&identity("s", 1, "", 9))), (identity("s", 6, "", 9), EarlierSessions::Over));
        let (after, _) = of(&backup, Some(&identity("s", 7, "", 2)));
        assert_eq!(after, identity("s", 12, "", 3));
    }

    /// The original may have gone on anywhere: its hosts and those of the copy must not be compared.
    #[test]
    fn a_store_beside_the_original_proves_nothing_about_its_sessions() {
        let backup = identity("s", 1, "", 3);
        for replaced in [None, Some(identity("other", 1, "", 9)), Some(identity("s", 1, "elsewhere", 9))] {
            let (after, sessions) = of(&backup, replaced.as_ref());
            assert_eq!((after.lineage.as_str(), sessions), ("fresh", EarlierSessions::Unknown), "{replaced:?}");
            let (then, now) = (backup.store_session(), identity("s", 6, "fresh", 1_000).store_session());
            assert!(!then.is_earlier_session_of_same_store(&now) && !now.is_earlier_session_of_same_store(&then));
        }
    }
}

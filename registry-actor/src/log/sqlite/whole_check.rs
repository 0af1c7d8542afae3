//! The check of a whole file: its structure, every process, and the changes that belong to none.

use rusqlite::Connection;

use super::backup::BackupProgress;
use super::backup_error::BackupError;
use super::check::{Check, Step};
use super::hidden_copy::Watch;
use super::read::{self, ReadError};

/// How many ids are read at a time.
const PAGE_IDS: u32 = 500;

/// How many faults are told.
const FAULTS: usize = 16;

/// What was checked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CheckedStore {
    /// Processes.
    pub processes: u64,
    /// Their events, the registrations included.
    pub events: u64,
}

/// Why a file did not pass.
pub(super) enum Failure {
    /// What is damaged; never empty.
    Damaged(Vec<String>),
    /// Whoever was told of the progress ended it.
    Ended(BackupError),
    /// It could not be read.
    Statement(rusqlite::Error),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseCorrupt) {
            Self::Damaged(vec![error.to_string()])
        } else {
            Self::Statement(error)
        }
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Statement(error) => error.into(),
            ReadError::Found(error) => Self::Damaged(vec![error.to_string()]),
        }
    }
}

/// Checks all that a file holds. Nobody else may write it meanwhile.
pub(super) fn check(connection: &Connection, watch: &mut Watch<'_>) -> Result<CheckedStore, Failure> {
    let faults = faults_of_the_file(connection)?;
    if !faults.is_empty() {
        return Err(Failure::Damaged(faults));
    }
    let of = connection.query_row("SELECT count(*) FROM processes", [], |row| row.get::<_, i64>(0))?;
    let of = u64::try_from(of).unwrap_or(0);
    let mut checked = CheckedStore::default();
    let mut faults = Vec::new();
    let mut after = None;
    loop {
        let ids = read::process_ids(connection, after.as_ref(), PAGE_IDS)?;
        let Some(last) = ids.last().cloned() else { break };
        for process_id in ids {
            let mut under_way = Check::of(process_id.clone());
            let verification = loop {
                watch(BackupProgress::Checked { processes: checked.processes, of }).map_err(Failure::Ended)?;
                match under_way.step(connection) {
                    Ok(Step::Unfinished(next)) => under_way = *next,
                    Ok(Step::Finished(verification)) => break verification,
                    Err(error) => return Err(error.into()),
                }
            };
            checked.processes += 1;
            checked.events += verification.events;
            let room = FAULTS - faults.len();
            faults
                .extend(verification.faults.iter().take(room).map(|fault| format!("process `{process_id}`, {fault}")));
        }
        if faults.len() == FAULTS {
            break;
        }
        after = Some(last);
    }
    if faults.is_empty() { Ok(checked) } else { Err(Failure::Damaged(faults)) }
}

/// What is damaged of what belongs to no process: pages, indexes and constraints, as SQLite itself checks them, and then the
/// changes that are no events. Not all of it, if there is much.
pub(super) fn faults_of_the_file(connection: &Connection) -> Result<Vec<String>, ReadError> {
    let mut faults = match structure(connection) {
        Ok(found) if found == ["ok"] => Vec::new(),
        Ok(found) => found,
        Err(error) if read::is_of_the_row(&error) => vec![error.to_string()],
        Err(error) => return Err(error.into()),
    };
    faults.extend(faults_of_the_marks(connection)?);
    Ok(faults)
}

fn structure(connection: &Connection) -> Result<Vec<String>, rusqlite::Error> {
    let mut select = connection.prepare(&format!("PRAGMA integrity_check({FAULTS})"))?;
    select.query_map([], |row| row.get::<_, String>(0))?.collect()
}

/// What is damaged of the changes that are no events.
pub(super) fn faults_of_the_marks(connection: &Connection) -> Result<Option<String>, ReadError> {
    match read::check_marks(connection) {
        Ok(()) => Ok(None),
        Err(ReadError::Found(error)) => Ok(Some(error.to_string())),
        Err(ReadError::Statement(error)) if read::is_of_the_row(&error) => Ok(Some(error.to_string())),
        Err(error) => Err(error),
    }
}

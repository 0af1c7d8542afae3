//! The file: its tables, its version, and the settings under which every connection works.
//!
//! A migration changes tables, never the bytes of events: those are read by their codec for ever.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, TransactionBehavior, ffi, params};

use super::migration::{Migration, fill_v2};
use super::open_error::OpenError;
use crate::domain::StoreSession;

/// `Proc` in ASCII: marks a SQLite file as a store of this registry.
const APPLICATION_ID: i32 = 0x5072_6f63;

/// `PrcB` in ASCII: marks a backup of a store. No host opens one: two owners of one store would prove each other's death.
const BACKUP_APPLICATION_ID: i32 = 0x5072_6342;

/// What makes version n out of version n - 1. Entries are never changed, only added.
const MIGRATIONS: &[Migration] = &[
    Migration::Sql(include_str!("schema_v1.sql")),
    Migration::Filled(include_str!("schema_v2.sql"), fill_v2),
    Migration::Sql(include_str!("schema_v3.sql")),
    Migration::Sql(include_str!("schema_v4.sql")),
];

/// The newest version that this code knows.
pub(super) const KNOWN_VERSION: i64 = MIGRATIONS.len() as i64;

/// How long a statement waits for a lock that only a foreign tool can hold.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How hard a commit is driven to the disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Synchronous {
    /// Each commit is synced.
    #[default]
    Full,
    /// Commits are not synced: a loss of power loses them.
    Normal,
}

impl Synchronous {
    const fn level(self) -> i64 {
        match self {
            Self::Full => 2,
            Self::Normal => 1,
        }
    }
}

/// Opens the connection that writes. The caller holds the owner lock.
pub(super) fn connect_writer(
    path: &Path,
    synchronous: Synchronous,
    cache_kib: u32,
    wal_limit_bytes: u64,
) -> Result<Connection, rusqlite::Error> {
    let connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    configure(&connection, synchronous)?;
    connection.pragma_update(None, "cache_size", -i64::from(cache_kib))?;
    // What a long read or a long check let the log file grow to is given back when it begins anew.
    let limit = i64::try_from(wal_limit_bytes).unwrap_or(i64::MAX);
    connection.pragma_update_and_check(None, "journal_size_limit", limit, |_| Ok(()))?;
    Ok(connection)
}

/// Opens a connection that can only read.
pub(super) fn connect_reader(path: &Path, synchronous: Synchronous) -> Result<Connection, rusqlite::Error> {
    let connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    configure(&connection, synchronous)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

fn configure(connection: &Connection, synchronous: Synchronous) -> Result<(), rusqlite::Error> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(64);
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    // The last connection to go would checkpoint, and a failed sync would go unseen: the writer does it itself.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    // Only macOS knows the difference: there a plain fsync leaves the data in the drive.
    connection.pragma_update(None, "fullfsync", true)?;
    connection.pragma_update(None, "checkpoint_fullfsync", true)?;
    connection.pragma_update(None, "synchronous", synchronous.level())?;
    let level: i64 = connection.pragma_query_value(None, "synchronous", |row| row.get(0))?;
    if level == synchronous.level() {
        Ok(())
    } else {
        Err(failure(
            ffi::SQLITE_MISUSE,
            format!("synchronous is {level} although {} was asked for", synchronous.level()),
        ))
    }
}

/// What a file turned out to be.
enum Found {
    /// Nothing was ever written to it as a store.
    Empty,
    /// A store of this version.
    Store { version: i64 },
    /// A backup of a store of this version.
    Backup { version: i64 },
}

fn inspect(connection: &Connection, path: &Path) -> Result<Found, OpenError> {
    let failed = |error| OpenError::of_sqlite(path, &error);
    let application_id: i32 =
        connection.pragma_query_value(None, "application_id", |row| row.get(0)).map_err(failed)?;
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
    if matches!(application_id, APPLICATION_ID | BACKUP_APPLICATION_ID) {
        return if version > KNOWN_VERSION {
            Err(OpenError::NewerSchema { path: path.into(), found: version, known: KNOWN_VERSION })
        } else if application_id == APPLICATION_ID {
            Ok(Found::Store { version })
        } else {
            Ok(Found::Backup { version })
        };
    }
    let objects: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(failed)?;
    if application_id == 0 && version == 0 && objects == 0 {
        Ok(Found::Empty)
    } else {
        Err(OpenError::NotAStore {
            path: path.into(),
            reason: format!("it is a database with application id {application_id:#x}"),
        })
    }
}

/// Checks that a file is a store that this version can open, or an empty file of which it can make one.
pub(super) fn check_openable(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    match inspect(connection, path)? {
        Found::Empty | Found::Store { .. } => Ok(()),
        Found::Backup { .. } => Err(OpenError::Backup { path: path.into() }),
    }
}

/// Makes a store of the newest version out of what is there: an empty file or an older store.
pub(super) fn prepare(connection: &mut Connection, path: &Path) -> Result<(), OpenError> {
    let failed = |error| OpenError::of_sqlite(path, &error);
    let version = match inspect(connection, path)? {
        Found::Store { version } => version,
        Found::Backup { .. } => return Err(OpenError::Backup { path: path.into() }),
        Found::Empty => {
            // It has to be said before the first table is made.
            connection.pragma_update(None, "auto_vacuum", "INCREMENTAL").map_err(failed)?;
            0
        }
    };
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0)).map_err(failed)?;
    if mode != "wal" {
        return Err(OpenError::Unusable { path: path.into(), reason: format!("its journal mode stays {mode}") });
    }
    // The mode is told before the change of it is committed: only this shows that a failure did not undo it.
    let frames: i64 = connection.query_row("PRAGMA wal_checkpoint(NOOP)", [], |row| row.get(1)).map_err(failed)?;
    if frames < 0 {
        return Err(OpenError::Io { path: path.into(), reason: "its journal mode could not be changed".to_owned() });
    }
    migrate(connection, version, MIGRATIONS).map_err(failed)?;
    // Every page of a new store is in the log file now, also those that an attempt before this one failed to sync.
    if version == 0 { checkpoint_whole(connection).map_err(failed) } else { Ok(()) }
}

/// Makes a backup out of a copy of a store, so that no host takes it for the store.
pub(super) fn mark_backup(connection: &Connection) -> Result<(), rusqlite::Error> {
    connection.pragma_update(None, "application_id", BACKUP_APPLICATION_ID)
}

/// Makes a store of the newest version out of a copy of a backup. The caller gives it its new identity.
pub(super) fn unmark_backup(connection: &mut Connection, path: &Path) -> Result<(), OpenError> {
    let failed = |error| OpenError::of_sqlite(path, &error);
    let Found::Backup { version } = inspect(connection, path)? else {
        return Err(OpenError::NotAStore { path: path.into(), reason: "it is no backup".to_owned() });
    };
    connection.pragma_update(None, "application_id", APPLICATION_ID).map_err(failed)?;
    migrate(connection, version, MIGRATIONS).map_err(failed)
}

/// Checks that a file is a backup that this version can restore.
pub(super) fn check_backup(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    match inspect(connection, path)? {
        Found::Backup { .. } => Ok(()),
        Found::Store { .. } => Err(OpenError::NotAStore {
            path: path.into(),
            reason: "it is a store and no backup of one; `backup` makes one".to_owned(),
        }),
        Found::Empty => Err(OpenError::NotAStore { path: path.into(), reason: "it is empty".to_owned() }),
    }
}

/// Checks that a reader understands the file.
pub(super) fn check_readable(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    match inspect(connection, path)? {
        Found::Store { version: KNOWN_VERSION } | Found::Backup { version: KNOWN_VERSION } => Ok(()),
        Found::Store { version } | Found::Backup { version } => {
            Err(OpenError::OlderSchema { path: path.into(), found: version, known: KNOWN_VERSION })
        }
        Found::Empty => Err(OpenError::NotAStore { path: path.into(), reason: "it is empty".to_owned() }),
    }
}

/// Each step is a transaction of its own, so that a crash in between leaves a store of some whole version.
fn migrate(connection: &mut Connection, from: i64, migrations: &[Migration]) -> Result<(), rusqlite::Error> {
    for (version, migration) in (1_i64..).zip(migrations) {
        if version <= from {
            continue;
        }
        let step = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        migration.run(&step)?;
        step.pragma_update(None, "application_id", APPLICATION_ID)?;
        step.pragma_update(None, "user_version", version)?;
        step.commit()?;
    }
    Ok(())
}

/// The tables of the newest version, for tests of statements.
#[cfg(test)]
pub(super) fn make_tables(connection: &mut Connection) -> Result<(), rusqlite::Error> {
    migrate(connection, 0, MIGRATIONS)
}

/// What a store says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) store_id: String,
    pub(super) epoch: u64,
    /// Sessions of different lineages say nothing about each other.
    pub(super) lineage: String,
    /// The last session that began.
    pub(super) session: u64,
}

impl Identity {
    const SELECT: &str = "SELECT store_id, store_epoch, lineage, session FROM meta";

    fn of(row: &Row<'_>) -> Result<Self, rusqlite::Error> {
        Ok(Self {
            store_id: row.get(0)?,
            epoch: row.get::<_, i64>(1)?.cast_unsigned(),
            lineage: row.get(2)?,
            session: row.get::<_, i64>(3)?.cast_unsigned(),
        })
    }

    /// The session as leases and their owners name it. The lineage is part of the name, so that a session of a restored store
    /// and one of the original are sessions of different stores to whoever compares them.
    pub(super) fn store_session(&self) -> StoreSession {
        let store_id = if self.lineage.is_empty() {
            self.store_id.as_str().into()
        } else {
            format!("{}~{}", self.store_id, self.lineage).into()
        };
        StoreSession { store_id, number: self.session }
    }
}

/// Begins a session: its number is durable before anything else happens in it.
pub(super) fn begin_session(connection: &mut Connection, fresh_store_id: &str) -> Result<Identity, rusqlite::Error> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute(
        "INSERT INTO meta (only_row, store_id, store_epoch, session, next_position) VALUES (1, ?1, 1, 0, 1)
         ON CONFLICT (only_row) DO NOTHING",
        [fresh_store_id],
    )?;
    transaction.execute("UPDATE meta SET session = session + 1", [])?;
    let identity = transaction.query_row(Identity::SELECT, [], Identity::of)?;
    transaction.commit()?;
    Ok(identity)
}

/// Identity of a store without beginning a session.
pub(super) fn read_identity(connection: &Connection) -> Result<Option<Identity>, rusqlite::Error> {
    connection.query_row(Identity::SELECT, [], Identity::of).optional()
}

/// Gives a restored store its epoch, its lineage and the number of the session before its first.
pub(super) fn write_identity(connection: &Connection, identity: &Identity) -> Result<(), rusqlite::Error> {
    let changed = connection.execute(
        "UPDATE meta SET store_epoch = ?1, lineage = ?2, session = ?3",
        params![identity.epoch.cast_signed(), identity.lineage, identity.session.cast_signed()],
    )?;
    if changed == 1 { Ok(()) } else { Err(failure(ffi::SQLITE_CORRUPT, "the store has no identity".to_owned())) }
}

/// The first numbers that are free.
#[derive(Debug, Clone, Copy)]
pub(super) struct FreeNumbers {
    pub(super) position: i64,
    pub(super) process_no: i64,
}

/// Reads the free numbers. A position is never given twice, even if the events that had it are gone.
pub(super) fn free_numbers(connection: &Connection) -> Result<FreeNumbers, rusqlite::Error> {
    connection.query_row(
        "SELECT max((SELECT next_position FROM meta), (SELECT ifnull(max(position), 0) + 1 FROM events),
                    (SELECT ifnull(max(position), 0) + 1 FROM tombstones),
                    (SELECT ifnull(max(position), 0) + 1 FROM session_deletions)),
                (SELECT ifnull(max(process_no), 0) + 1 FROM processes)",
        [],
        |row| Ok(FreeNumbers { position: row.get(0)?, process_no: row.get(1)? }),
    )
}

/// Notes the first free position, so that the next session does not depend on the last event being there.
pub(super) fn note_next_position(transaction: &Connection, position: i64) -> Result<(), rusqlite::Error> {
    transaction.execute("UPDATE meta SET next_position = max(next_position, ?1)", [position]).map(drop)
}

/// Moves the log file into the database and empties it. Fails unless every sync on the way succeeded.
pub(super) fn checkpoint_whole(connection: &Connection) -> Result<(), rusqlite::Error> {
    let busy: i64 = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    if busy == 0 {
        Ok(())
    } else {
        Err(failure(ffi::SQLITE_BUSY, "a reader kept the log file from being emptied".to_owned()))
    }
}

/// Moves what no reader needs any more into the database once so many pages wait. Never waits for anybody.
pub(super) fn checkpoint_when_due(connection: &Connection, due_pages: i64) -> Result<(), rusqlite::Error> {
    let waiting = |sql| -> Result<i64, rusqlite::Error> {
        connection.prepare_cached(sql)?.query_row([], |row| Ok(row.get::<_, i64>(1)? - row.get::<_, i64>(2)?))
    };
    if waiting("PRAGMA wal_checkpoint(NOOP)")? >= due_pages {
        waiting("PRAGMA wal_checkpoint(PASSIVE)")?;
    }
    Ok(())
}

/// A failure that SQLite itself does not report as one.
pub(super) fn failure(code: std::ffi::c_int, reason: String) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(code), Some(reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrations_run_once_each_and_in_order() {
        let mut connection = Connection::open_in_memory().expect("a database");
        let first = &[Migration::Sql("CREATE TABLE one (a)")];
        let both = &[first[0], Migration::Sql("ALTER TABLE one ADD COLUMN b; INSERT INTO one VALUES (1, 2)")];
        migrate(&mut connection, 0, first).expect("the first version");
        migrate(&mut connection, 1, both).expect("the second version");
        migrate(&mut connection, 2, both).expect("nothing to do");
        let rows: i64 = connection.query_row("SELECT count(b) FROM one", [], |row| row.get(0)).expect("a count");
        assert_eq!(rows, 1);
        let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).expect("a version");
        assert_eq!(version, 2);
    }

    #[test]
    fn a_failed_migration_leaves_the_version_before_it() {
        let mut connection = Connection::open_in_memory().expect("a database");
        let fails: fn(&Connection) -> Result<(), rusqlite::Error> = |connection| connection.execute_batch("nonsense");
        let broken = &[Migration::Sql("CREATE TABLE one (a)"), Migration::Filled("CREATE TABLE two (a)", fails)];
        migrate(&mut connection, 0, broken).expect_err("the second step is broken");
        let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).expect("a version");
        let tables: i64 =
            connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).expect("a count");
        assert_eq!((version, tables), (1, 1));
    }
}

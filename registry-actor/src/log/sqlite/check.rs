//! The check of one stored process, a page at a time. What is checked is said by
//! [`Verification`](crate::log::verification::Verification); here are the rows.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension, params};

use super::read::{self, EventRow, ReadError};
use super::{record_columns, type_blocks};
use crate::domain::{ProcessId, Sequence};
use crate::log::verification::Verification;
use crate::port::{LogError, ProcessVerification};

/// How many events are checked in one transaction.
const PAGE: i64 = 1_000;

/// A check under way.
pub(super) struct Check {
    process_id: ProcessId,
    /// Which life of the id is checked; known from the first page on.
    process_no: Option<i64>,
    verification: Verification,
    /// How far the walk came, whatever the rows said of themselves: it must end even where sequences are damaged.
    walked: i64,
    position: i64,
    types: BTreeSet<(i64, String)>,
}

/// What a page of the check led to.
pub(super) enum Step {
    /// More events follow.
    Unfinished(Box<Check>),
    /// This is what was found.
    Finished(ProcessVerification),
}

/// How far a step has come.
enum Reached {
    /// To the end of a page.
    Page,
    /// To the end of the process.
    End,
}

impl Check {
    pub(super) fn of(process_id: ProcessId) -> Self {
        Self {
            verification: Verification::of(process_id.clone()),
            process_id,
            process_no: None,
            walked: -1,
            position: 0,
            types: BTreeSet::new(),
        }
    }

    /// Checks the next page.
    pub(super) fn step(mut self, connection: &Connection) -> Result<Step, ReadError> {
        match self.advance(connection) {
            Ok(Reached::Page) => Ok(Step::Unfinished(Box::new(self))),
            Ok(Reached::End) => Ok(Step::Finished(self.verification.finish())),
            // What SQLite itself finds broken is damage as well, and the check of the next process can be made.
            Err(ReadError::Statement(error)) if read::is_of_the_row(&error) => {
                let last = self.last_sequence();
                self.verification.fault(last, format!("what is stored of it cannot be read: {error}"));
                Ok(Step::Finished(self.verification.finish()))
            }
            Err(error) => Err(error),
        }
    }

    /// The last page is read in one transaction with head and record, so that a process may live on while it is checked.
    fn advance(&mut self, connection: &Connection) -> Result<Reached, ReadError> {
        let snapshot = connection.unchecked_transaction()?;
        let process_no: Option<i64> = snapshot
            .prepare_cached("SELECT process_no FROM processes WHERE process_id = ?1")?
            .query_row([self.process_id.as_str()], |row| row.get(0))
            .optional()?;
        let Some(process_no) = process_no else {
            return Err(LogError::Unknown { process_id: self.process_id.clone() }.into());
        };
        if self.process_no.is_some_and(|begun| begun != process_no) {
            // It was pruned and registered anew between two pages: what was checked is gone.
            *self = Self::of(self.process_id.clone());
        }
        self.process_no = Some(process_no);
        if self.page(&snapshot, process_no)? == PAGE {
            return Ok(Reached::Page);
        }
        self.head(&snapshot, process_no)?;
        if type_blocks::stored(&snapshot, process_no)? != self.types {
            let last = self.last_sequence();
            self.verification.fault(last, "its index of types is not that of its events".to_owned());
        }
        match read::stored_wakes(&snapshot, &self.process_id, process_no) {
            Ok(wakes) => self.verification.wakes(&wakes),
            Err(error) => self.verification.fault(self.last_sequence(), found(error)?),
        }
        match read::record_of(&snapshot, &self.process_id, process_no) {
            Ok(record) => {
                self.verification.record(Ok(&record));
                if self.verification.is_whole() && !record_columns::agree(&snapshot, process_no, &record)? {
                    let last = self.last_sequence();
                    self.verification.fault(last, "the columns of its record are not those of the record".to_owned());
                }
            }
            Err(error) => self.verification.record(Err(found(error)?)),
        }
        if let Err(error) = read::grants_agree(&snapshot, &self.process_id) {
            let what = found(error)?;
            self.verification.fault(self.last_sequence(), what);
        }
        if let Err(error) = read::lease_of(&snapshot, &self.process_id, process_no) {
            let what = found(error)?;
            self.verification.fault(self.last_sequence(), what);
        }
        Ok(Reached::End)
    }

    fn page(&mut self, connection: &Connection, process_no: i64) -> Result<i64, ReadError> {
        let mut select = connection.prepare_cached(
            "SELECT sequence, type, at_ms, replay_key, operation, codec, data, chain, position
             FROM events WHERE process_no = ?1 AND sequence > ?2 ORDER BY sequence LIMIT ?3",
        )?;
        let mut rows = select.query(params![process_no, self.walked, PAGE])?;
        let mut count = 0;
        while let Some(row) = rows.next()? {
            count += 1;
            match EventRow::of(&self.process_id, row) {
                Ok(event) => {
                    self.verification.event(&event.columns, event.chain);
                    self.walked = (self.walked + 1).max(event.columns.sequence);
                    if event.columns.sequence > 0 {
                        let block = type_blocks::block_of(event.columns.sequence);
                        let event_type = String::from_utf8_lossy(event.columns.event_type).into_owned();
                        self.types.insert((block, event_type));
                    }
                }
                Err(error) => {
                    self.walked += 1;
                    let what = found(error)?;
                    self.verification.fault(Sequence(self.walked.cast_unsigned()), what);
                }
            }
            let position: i64 = row.get(8)?;
            if position <= self.position {
                self.verification.fault(self.last_sequence(), "its position is not after the one before".to_owned());
            }
            self.position = position;
        }
        Ok(count)
    }

    fn head(&mut self, connection: &Connection, process_no: i64) -> Result<(), ReadError> {
        let head = connection
            .prepare_cached("SELECT sequence, position, chain FROM heads WHERE process_no = ?1")?
            .query_row([process_no], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, Vec<u8>>(2)?))
            })
            .optional()?;
        let Some((sequence, position, chain)) = head else {
            self.verification.fault(self.last_sequence(), "its head is missing".to_owned());
            return Ok(());
        };
        self.verification.head(Sequence(sequence.cast_unsigned()), &chain);
        if position != self.position {
            self.verification
                .fault(self.last_sequence(), "its head has another position than its last event".to_owned());
        }
        Ok(())
    }

    fn last_sequence(&self) -> Sequence {
        self.verification.sequence().unwrap_or(Sequence::REGISTRATION)
    }
}

/// Damage is what a check is for; anything else means that it could not be made.
fn found(error: ReadError) -> Result<String, ReadError> {
    match error {
        ReadError::Found(LogError::Damaged { what, .. }) => Ok(what),
        other => Err(other),
    }
}

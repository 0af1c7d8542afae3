//! Giving back to the disk what a prune freed, a bounded step at a time.
//!
//! A step moves pages from the end of the file into free ones and cuts the file, in a transaction of its own. It knows how much
//! a step may do; when one is taken, the writer decides.

use rusqlite::Connection;

/// At which pace free pages are given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VacuumPace {
    /// How many pages one step gives back, at most; 0 never gives any back.
    pub step_pages: u32,
    /// How many free pages stay in the file, so that the next appends need not grow it.
    pub kept_pages: u32,
    /// While there is always something to store: a step after so many groups. When there is not, steps follow each other.
    pub groups_between_steps: u32,
    /// What becomes of the rest when the log is closed.
    pub at_close: VacuumAtClose,
}

/// What becomes of free pages that are not given back yet when the log is closed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum VacuumAtClose {
    /// They stay for the next host, so that a close is not held up.
    #[default]
    Leave,
    /// All of them are given back first.
    Finish,
}

impl Default for VacuumPace {
    fn default() -> Self {
        Self { step_pages: 128, kept_pages: 256, groups_between_steps: 16, at_close: VacuumAtClose::Leave }
    }
}

/// Whether free pages are waiting to be given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Vacuum {
    /// Nothing is to be done.
    Done,
    /// Pages are to be given back; so many groups were stored since the last step.
    Due { groups: u32 },
}

impl Vacuum {
    /// What is to be done about the free pages of a file. One that was not made for it gives nothing back.
    pub(super) fn of(connection: &Connection, pace: VacuumPace) -> Result<Self, rusqlite::Error> {
        const INCREMENTAL: i64 = 2;
        let mode: i64 = connection.pragma_query_value(None, "auto_vacuum", |row| row.get(0))?;
        if pace.step_pages == 0 || mode != INCREMENTAL || free_pages(connection)? <= i64::from(pace.kept_pages) {
            return Ok(Self::Done);
        }
        Ok(Self::Due { groups: 0 })
    }

    /// Counts a group that was stored; answers whether a step is due although more waits to be stored.
    pub(super) const fn counts_group(&mut self, pace: VacuumPace) -> bool {
        match self {
            Self::Done => false,
            Self::Due { groups } => {
                *groups += 1;
                *groups >= pace.groups_between_steps
            }
        }
    }
}

/// Gives at most a step's pages back; answers what is left to do. The file itself is cut by the checkpoint that follows.
pub(super) fn step(connection: &Connection, pace: VacuumPace) -> Result<Vacuum, rusqlite::Error> {
    let before = free_pages(connection)?;
    let surplus = before - i64::from(pace.kept_pages);
    let pages = surplus.min(i64::from(pace.step_pages));
    if pages <= 0 {
        return Ok(Vacuum::Done);
    }
    // It frees a page at each step of the statement, which has to be driven to its end.
    connection.execute_batch(&format!("PRAGMA incremental_vacuum({pages})"))?;
    let after = free_pages(connection)?;
    // A step that gives nothing back would be repeated for ever.
    if after >= before || after <= i64::from(pace.kept_pages) {
        Ok(Vacuum::Done)
    } else {
        Ok(Vacuum::Due { groups: 0 })
    }
}

fn free_pages(connection: &Connection) -> Result<i64, rusqlite::Error> {
    connection.pragma_query_value(None, "freelist_count", |row| row.get(0))
}

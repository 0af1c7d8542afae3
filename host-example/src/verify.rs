//! `proctor verify`: a check of all that is stored, or of one process.
//!
//! It owns how damage is told. What damage is, the log knows. It walks along ids, which a damaged record does not stop, and from
//! store to store, which one that cannot be read does not.

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use clap::Args;
use registry_actor::{domain::ProcessId, port::ProcessVerification};
use serde_json::json;

use crate::{
    failure::{Failure, FailureKind},
    notice::say,
    sheet::Sheet,
    store::StoreReader,
    store_choice::{StoreChoice, open_member, typed_id},
};

/// The ids that are read at a time.
const PAGE_IDS: u32 = 500;

/// Checks what is stored: the file itself, links, numbers, checksums, and that the events give the record.
#[derive(Args, Debug)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    stores: StoreChoice,
    /// The process; by default all.
    #[arg(value_name = "ID")]
    id: Option<String>,
    /// One JSON object a line, for each process.
    #[arg(long)]
    json: bool,
}

/// Runs the verb.
///
/// # Errors
/// When the check could not be made. Damage is no error of the check; the exit code tells of it.
pub(crate) async fn run(args: VerifyArgs) -> Result<ExitCode, Failure> {
    let mut check =
        Check { sheet: Sheet::new(), form: Form::of(&args), progress: Progress::new(), tally: Tally::default() };
    let id = args.id.as_deref().map(typed_id).transpose()?;
    let paths = args.stores.paths()?;
    let mut unread = None;
    for path in &paths {
        let checked = match open_member(path) {
            Ok(store) => match &id {
                Some(id) => check.one(&store, id).await,
                None => check.all(&store).await,
            },
            Err(failure) => Err(failure),
        };
        match checked {
            Ok(()) => {}
            Err(failure) if paths.len() > 1 => {
                check.progress.clear();
                say(&failure);
                unread = unread.or(Some(failure.kind()));
            }
            Err(failure) => return Err(failure),
        }
    }
    check.progress.clear();
    check.sheet.flush()?;
    let Tally { processes, events, faults } = check.tally;
    if let (Some(id), 0, None) = (&id, processes, unread) {
        return Err(Failure::new(FailureKind::NoInput, format!("unknown process `{id}`")));
    }
    say(format_args!("{processes} processes with {events} events verified, {faults} faults"));
    let worst = if faults == 0 { unread } else { Some(FailureKind::Data) };
    Ok(worst.map_or(ExitCode::SUCCESS, |kind| ExitCode::from(kind.code())))
}

/// How a verification is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    Text,
    Json,
}

impl Form {
    fn of(args: &VerifyArgs) -> Self {
        if args.json { Self::Json } else { Self::Text }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Tally {
    processes: u64,
    events: u64,
    faults: u64,
}

struct Check {
    sheet: Sheet,
    form: Form,
    progress: Progress,
    tally: Tally,
}

impl Check {
    async fn all(&mut self, store: &StoreReader) -> Result<(), Failure> {
        let faults = store.verify_file().await?;
        self.tally.faults += faults.len() as u64;
        self.write_of_file(store, &faults)?;
        let mut after = None;
        loop {
            let ids = store.process_ids(after, PAGE_IDS).await?;
            let Some(last) = ids.last().cloned() else { return Ok(()) };
            for id in &ids {
                self.process(store, id).await?;
            }
            self.sheet.flush()?;
            after = Some(last);
        }
    }

    async fn one(&mut self, store: &StoreReader, id: &ProcessId) -> Result<(), Failure> {
        // Whether the store knows it is asked by its name alone, since its record may be what is damaged.
        let mut after = None;
        loop {
            let ids = store.process_ids(after, PAGE_IDS).await?;
            match ids.binary_search(id) {
                Ok(_) => return self.process(store, id).await,
                Err(place) if place < ids.len() => return Ok(()),
                Err(_) => {}
            }
            let Some(last) = ids.last().cloned() else { return Ok(()) };
            after = Some(last);
        }
    }

    async fn process(&mut self, store: &StoreReader, id: &ProcessId) -> Result<(), Failure> {
        // It was pruned since its id was read, or a host beside us would not know it either.
        let Some(verification) = store.verify(id).await? else { return Ok(()) };
        self.tally.processes += 1;
        self.tally.events += verification.events;
        self.tally.faults += verification.faults.len() as u64;
        self.write(store, &verification)?;
        self.progress.show(self.tally);
        Ok(())
    }

    fn write_of_file(&mut self, store: &StoreReader, faults: &[String]) -> Result<(), Failure> {
        let path = store.path();
        match self.form {
            Form::Json if faults.is_empty() => Ok(()),
            Form::Json => self.sheet.line(json!({
                "process_id": null,
                "store": path.to_string_lossy(),
                "faults": faults.iter().map(|what| json!({ "what": what })).collect::<Vec<_>>(),
            })),
            Form::Text => {
                for fault in faults {
                    self.sheet.line(format_args!("{}: {fault}", path.display()))?;
                }
                Ok(())
            }
        }
    }

    fn write(&mut self, store: &StoreReader, verification: &ProcessVerification) -> Result<(), Failure> {
        let id = &verification.process_id;
        match self.form {
            Form::Json => self.sheet.line(json!({
                "process_id": id,
                "store": store.path().to_string_lossy(),
                "events": verification.events,
                "faults": verification.faults,
            })),
            Form::Text => {
                let path = store.path().display();
                for fault in &verification.faults {
                    self.progress.clear();
                    self.sheet.line(format_args!("{path}: process `{id}`, {fault}"))?;
                }
                Ok(())
            }
        }
    }
}

/// A count on the terminal that overwrites itself; nothing where stderr is none.
struct Progress {
    shown_at: u64,
    terminal: Option<io::Stderr>,
}

impl Progress {
    /// To show each process would cost more than to check it.
    const STEP: u64 = 100;

    fn new() -> Self {
        let stderr = io::stderr();
        Self { shown_at: 0, terminal: stderr.is_terminal().then_some(stderr) }
    }

    fn show(&mut self, tally: Tally) {
        if let Some(terminal) = &mut self.terminal
            && tally.processes >= self.shown_at + Self::STEP
        {
            self.shown_at = tally.processes;
            // A terminal that is gone is no reason to stop checking.
            drop(write!(terminal, "\r{} processes, {} events", tally.processes, tally.events));
        }
    }

    fn clear(&mut self) {
        if let Some(terminal) = &mut self.terminal {
            drop(write!(terminal, "\r\x1b[K"));
        }
    }
}

//! `proctor events` and `proctor logs`: the log of one process, beside the host that writes it or long after, and as it is written.
//!
//! It owns which events are shown, and when it is enough. It reads and writes page by page, so that a log may be longer than the memory.

use std::process::ExitCode;

use clap::Args;
use registry_actor::domain::ProcessId;

use crate::{
    event_follower::{EventFollower, Followed},
    event_view::EventView,
    failure::Failure,
    output_sheet::OutputSheet,
    paint::Paint,
    place_choice::PlaceChoice,
    process_source::{PAGE_EVENTS, ProcessSource},
    sheet::Sheet,
};

/// Shows the events of one process.
#[derive(Args, Debug)]
pub(crate) struct EventsArgs {
    /// The process.
    #[arg(value_name = "ID")]
    id: String,
    /// Show what comes as well, until the process has ended. When its host is started again, it goes on with that one.
    #[arg(long, short)]
    follow: bool,
    /// Only what the command wrote, its stdout to stdout and its stderr to stderr.
    #[arg(long, short, conflicts_with = "json")]
    output: bool,
    /// Only events after this sequence.
    #[arg(long, value_name = "N", default_value_t = 0)]
    after: u64,
    /// At most so many events.
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: PlaceChoice,
}

/// Shows the output of one process.
#[derive(Args, Debug)]
pub(crate) struct LogsArgs {
    /// The process.
    #[arg(value_name = "ID")]
    id: String,
    /// Show what comes as well, until the process has ended.
    #[arg(long, short)]
    follow: bool,
    #[command(flatten)]
    place: PlaceChoice,
}

impl From<LogsArgs> for EventsArgs {
    fn from(LogsArgs { id, follow, place }: LogsArgs) -> Self {
        Self { id, follow, output: true, after: 0, limit: None, json: false, place }
    }
}

/// Runs the verb.
///
/// # Errors
/// When the process is unknown, or cannot be read.
pub(crate) async fn run(args: EventsArgs) -> Result<ExitCode, Failure> {
    let (source, id) = args.place.open_with(&args.id).await?;
    let mut page = EventPrinter::new(Form::of(&args));
    if args.follow {
        follow(&source, &id, &args, &mut page).await?;
    } else {
        history(&source, &id, &args, &mut page).await?;
    }
    page.flush()?;
    Ok(ExitCode::SUCCESS)
}

async fn history(
    source: &ProcessSource,
    id: &ProcessId,
    args: &EventsArgs,
    printer: &mut EventPrinter,
) -> Result<(), Failure> {
    let mut after = args.after;
    let mut left = args.limit.unwrap_or(u64::MAX);
    while left > 0 && printer.is_read() {
        let limit = u32::try_from(left).unwrap_or(u32::MAX).min(PAGE_EVENTS);
        let page = source.events(id, after, limit).await?;
        for event in &page.events {
            printer.print(event)?;
        }
        printer.flush()?;
        left = left.saturating_sub(page.events.len() as u64);
        match page.next_after {
            Some(next) => after = next,
            None => break,
        }
    }
    Ok(())
}

async fn follow(
    source: &ProcessSource,
    id: &ProcessId,
    args: &EventsArgs,
    printer: &mut EventPrinter,
) -> Result<(), Failure> {
    let mut follower = EventFollower::new(source.clone(), id.clone(), args.after).await?;
    let mut left = args.limit.unwrap_or(u64::MAX);
    while left > 0 && printer.is_read() {
        match follower.next().await? {
            Followed::Event(event) => {
                printer.print(&event)?;
                printer.flush()?;
                left -= 1;
            }
            Followed::End(_) => break,
        }
    }
    Ok(())
}

/// How events are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    Text,
    Json,
    Output,
}

impl Form {
    const fn of(args: &EventsArgs) -> Self {
        match (args.output, args.json) {
            (true, _) => Self::Output,
            (false, true) => Self::Json,
            (false, false) => Self::Text,
        }
    }
}

/// Writes events in one form.
struct EventPrinter {
    form: Form,
    paint: Paint,
    sheet: Sheet,
    output: OutputSheet,
}

impl EventPrinter {
    fn new(form: Form) -> Self {
        Self { form, paint: Paint::of_stdout(), sheet: Sheet::new(), output: OutputSheet::new() }
    }

    fn print(&mut self, event: &EventView) -> Result<(), Failure> {
        match self.form {
            Form::Text => self.sheet.line(event.to_text(self.paint)),
            Form::Json => self.sheet.line(event.to_json()),
            Form::Output => self.output.event(event),
        }
    }

    fn flush(&mut self) -> Result<(), Failure> {
        self.sheet.flush()
    }

    fn is_read(&self) -> bool {
        self.sheet.is_read() && self.output.is_read()
    }
}

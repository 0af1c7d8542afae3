//! `proctor wait`: stays until processes have ended, or until something happened to one.
//!
//! It owns the order of answers, the exit code, and what people see meanwhile. It does not know how a wait is made.

use std::{process::ExitCode, time::Duration};

use clap::Args;
use futures_util::{StreamExt, stream::FuturesUnordered};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use registry_actor::domain::ProcessId;
use tokio::time::Instant;

use crate::{
    api::process_view::ProcessView,
    attempt::{DEADLINE_EXIT_CODE, FAILED_EXIT_CODE, exit_code_of},
    duration_text,
    failure::Failure,
    notice::say,
    paint::Paint,
    place_choice::PlaceChoice,
    process_source::ProcessSource,
    process_view,
    process_wait::{Awaited, WaitEnd, wait_for},
    sheet::Sheet,
};

/// The exit code when the time is up, as `timeout(1)` has it.
const TIMEOUT_EXIT_CODE: u8 = DEADLINE_EXIT_CODE;

/// How often the terminal shows that we live.
const SPIN: Duration = Duration::from_millis(100);

/// Waits for processes.
#[derive(Args, Debug)]
pub(crate) struct WaitArgs {
    /// The processes; all of them have to end.
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,
    /// How long at most, such as `90s` or `1h 30m`; the exit code is 124 then. By default as long as it takes.
    #[arg(long, value_name = "DURATION", value_parser = duration_text::to_ms)]
    timeout: Option<u64>,
    /// Wait for the first event of this type instead, and print it; `*` is one of any type. When the process ends without it, the exit
    /// code is 1.
    #[arg(long, value_name = "TYPE")]
    event: Option<String>,
    /// Only an event after this sequence counts.
    #[arg(long, value_name = "N", requires = "event")]
    after: Option<u64>,
    /// Print each process, or the event, as one JSON object a line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: PlaceChoice,
}

/// The codes of this verb, for its help.
pub(crate) fn exit_code_help() -> String {
    format!(
        "Exit codes:\n  That of the outcome, as `run` has it: 0 for a success, the command's own code, 128 + N for signal N, 143 for a \
         cancelled and 69 for an abandoned process; 1 for a failure of another kind. Of several processes, that of the first in the \
         order of the command line that is not 0.\n  {FAILED_EXIT_CODE}  with --event: the process ended without the event\n  \
         {TIMEOUT_EXIT_CODE}  the time is up, or the process did not end by its deadline\n"
    )
}

/// Runs the verb.
///
/// # Errors
/// When a process is unknown, or its outcome will never be known.
pub(crate) async fn run(args: WaitArgs) -> Result<ExitCode, Failure> {
    let until = args.timeout.map(|ms| Instant::now() + Duration::from_millis(ms));
    let awaited = match &args.event {
        None => Awaited::Outcome,
        Some(event_type) => Awaited::Event { event_type: event_type.clone(), after: args.after.unwrap_or(0) },
    };
    let mut awaited_processes = Vec::new();
    for id in &args.ids {
        awaited_processes.push(args.place.open_with(id).await?);
    }
    let mut codes = vec![0; awaited_processes.len()];
    let progress = WaitProgress::new(&args.ids);
    let mut waits: FuturesUnordered<_> = awaited_processes
        .iter()
        .enumerate()
        .map(|(number, (source, id))| {
            let awaited = &awaited;
            async move { (number, wait_for(source, id, awaited, until).await) }
        })
        .collect();
    let mut sheet = Sheet::new();
    while let Some((number, end)) = waits.next().await {
        let (source, id) = &awaited_processes[number];
        codes[number] = progress.ended(|| match end {
            Ok(end) => written(&mut sheet, args.json, source, id, end),
            // What becomes of one is nothing to the others.
            Err(failure) => {
                say(&failure);
                Ok(failure.kind().code())
            }
        })?;
    }
    Ok(ExitCode::from(codes.into_iter().find(|code| *code != 0).unwrap_or(0)))
}

/// Waits for one outcome, and tells it.
///
/// # Errors
/// When it will never be known.
pub(crate) async fn outcome(source: &ProcessSource, id: &ProcessId) -> Result<ExitCode, Failure> {
    let progress = WaitProgress::new(&[id.to_string()]);
    let end = wait_for(source, id, &Awaited::Outcome, None).await?;
    Ok(ExitCode::from(progress.ended(|| written(&mut Sheet::new(), false, source, id, end))?))
}

/// Tells how a process ended; answers the exit code that says the same.
pub(crate) fn told(process: &ProcessView) -> ExitCode {
    say(format_args!("{}: {}", process.process_id, process_view::status_in_words(process)));
    ExitCode::from(code_of(process))
}

fn code_of(process: &ProcessView) -> u8 {
    // An outcome that this version does not know is none that went well.
    process_view::outcome_of(process).map_or(FAILED_EXIT_CODE, |outcome| exit_code_of(&outcome))
}

/// Writes the answer of one wait; answers its code.
fn written(sheet: &mut Sheet, json: bool, source: &ProcessSource, id: &ProcessId, end: WaitEnd) -> Result<u8, Failure> {
    let code = match end {
        WaitEnd::Completed(process) => {
            if json {
                sheet.line(process_view::to_json(&process, source))?;
            }
            say(format_args!("{id}: {}", process_view::status_in_words(&process)));
            code_of(&process)
        }
        WaitEnd::Happened(event) => {
            if json {
                sheet.line(event.to_json())?;
            } else {
                sheet.line(event.to_text(Paint::of_stdout()))?;
            }
            0
        }
        WaitEnd::Ended(process) => {
            let status = process_view::status_in_words(&process);
            say(format_args!("{id}: the event did not happen, and the process has ended: it is {status}"));
            FAILED_EXIT_CODE
        }
        WaitEnd::Deadline => {
            say(format_args!("{id}: not yet, and the time is up"));
            TIMEOUT_EXIT_CODE
        }
    };
    sheet.flush()?;
    Ok(code)
}

/// What is still awaited, on the terminal; nothing where stderr is none.
struct WaitProgress(ProgressBar);

impl WaitProgress {
    fn new(ids: &[String]) -> Self {
        let bar = ProgressBar::with_draw_target(Some(ids.len() as u64), ProgressDrawTarget::stderr());
        // A form that is not understood shows the plain bar.
        if let Ok(style) = ProgressStyle::with_template("{spinner} {pos} of {len} ended, {elapsed}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(SPIN);
        Self(bar)
    }

    /// Counts one, and makes room for what is told of it.
    fn ended<T>(&self, tell: impl FnOnce() -> T) -> T {
        self.0.inc(1);
        self.0.suspend(tell)
    }
}

impl Drop for WaitProgress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

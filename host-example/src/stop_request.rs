//! `proctor cancel` and `proctor abandon`: asks processes to end.
//!
//! It owns what people are told. It does not know who hears the request.

use std::process::ExitCode;

use clap::Args;

use crate::{
    failure::Failure, notice::say, place_choice::PlaceChoice, process_control::ProcessControl, process_view,
    sheet::Sheet,
};

/// Asks processes to end.
#[derive(Args, Debug)]
pub(crate) struct StopArgs {
    /// The processes.
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,
    /// Why, for people.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Print each process as one JSON object a line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: PlaceChoice,
}

/// What is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum StopRequest {
    /// To end.
    Cancel,
    /// To be given up, once nobody holds it.
    Abandon,
}

impl StopRequest {
    const fn verb(self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Abandon => "abandon",
        }
    }

    const fn in_words(self) -> &'static str {
        match self {
            Self::Cancel => "asked to end",
            Self::Abandon => "to be abandoned once nobody holds it",
        }
    }
}

/// Runs the verb, for each process by itself; the first failure gives the exit code.
///
/// # Errors
/// When a process is unknown, or has ended, or cannot be asked.
pub(crate) async fn run(request: StopRequest, args: StopArgs) -> Result<ExitCode, Failure> {
    let mut sheet = Sheet::new();
    let mut failed: Option<Failure> = None;
    for id in &args.ids {
        if let Err(failure) = ask(request, &args, id, &mut sheet).await {
            match failed {
                None => failed = Some(failure),
                Some(_) => say(failure),
            }
        }
    }
    sheet.flush()?;
    failed.map_or(Ok(ExitCode::SUCCESS), Err)
}

async fn ask(request: StopRequest, args: &StopArgs, id: &str, sheet: &mut Sheet) -> Result<(), Failure> {
    let (source, id) = args.place.open_with(id).await?;
    if let Some(process) = source.process(&id).await?.filter(|process| process.outcome.is_some()) {
        // Asked or not, it has come to what was wanted.
        if args.json {
            sheet.line(process_view::to_json(&process, &source))?;
        }
        say(format_args!("{id}: has ended already, it is {}", process_view::status_in_words(&process)));
        return Ok(());
    }
    let control = ProcessControl::of_source(&source, request.verb()).await?;
    let has_host = control.has_host();
    let reason = args.reason.clone();
    let asked = match request {
        StopRequest::Cancel => control.cancel(&id, reason).await,
        StopRequest::Abandon => control.abandon(&id, reason).await,
    };
    control.close().await;
    let process = asked?;
    if args.json {
        sheet.line(process_view::to_json(&process, &source))?;
    }
    let when = if has_host { "" } else { "; no host is running: the next one sees to it" };
    say(format_args!("{id}: {}{when}", request.in_words()));
    Ok(())
}

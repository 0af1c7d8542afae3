//! `proctor signal`: a word with a name and a payload to a process that waits for it, or will.
//!
//! It owns how a payload is typed. It does not know who waits.

use std::process::ExitCode;

use clap::Args;
use registry_actor::domain::{ProcessId, ProcessSignal};
use serde_json::{Value, json};

use crate::{
    failure::{Failure, FailureKind},
    notice::say,
    place_choice::PlaceChoice,
    process_control::ProcessControl,
    sheet::Sheet,
};

/// Sends a signal.
#[derive(Args, Debug)]
pub(crate) struct SignalArgs {
    /// The process.
    #[arg(value_name = "ID")]
    id: String,
    /// The name of the signal. It is a word between processes, and none of the signals of the system.
    #[arg(value_name = "NAME")]
    name: String,
    /// What it says, as JSON.
    #[arg(value_name = "JSON", value_parser = payload, default_value = "null")]
    payload: Value,
    /// Makes one signal of a command that is repeated; by default each one is another.
    #[arg(long, value_name = "ID")]
    signal_id: Option<String>,
    /// Print what became of it as one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: PlaceChoice,
}

fn payload(text: &str) -> Result<Value, String> {
    serde_json::from_str(text)
        .map_err(|error| format!("expected JSON, such as `'{{\"ok\":true}}'` or `'\"text\"'`: {error}"))
}

/// In the words of who sends a signal, where the registry has those of who stores an event.
fn undeclared(failure: Failure, id: &ProcessId, name: &str) -> Failure {
    if !failure.to_string().contains("undeclared event type") {
        return failure;
    }
    let line = format!(
        "process `{id}` takes no signal `{name}`: a process declares what it takes, and a command takes none; `cancel` ends one"
    );
    Failure::new(FailureKind::Usage, line)
}

/// Runs the verb.
///
/// # Errors
/// When the process is unknown, or has ended, or cannot be told.
pub(crate) async fn run(args: SignalArgs) -> Result<ExitCode, Failure> {
    let signal = ProcessSignal::new(&args.name).map_err(|error| Failure::new(FailureKind::Usage, error.to_string()))?;
    let (source, id) = args.place.open_with(&args.id).await?;
    let control = ProcessControl::of_source(&source, "signal").await?;
    let sent = control.signal(&id, &signal, args.signal_id, args.payload).await;
    control.close().await;
    let sent = sent.map_err(|failure| undeclared(failure, &id, &args.name))?;
    let mut sheet = Sheet::new();
    if args.json {
        let mut shown = json!(sent);
        shown["process_id"] = json!(id);
        sheet.line(shown)?;
    }
    sheet.flush()?;
    let again = if sent.replayed { ", as it was before" } else { "" };
    say(format_args!("{id}: signal `{}` #{} is stored{again}", args.name, sent.ordinal));
    Ok(ExitCode::SUCCESS)
}

//! `proctor explain`: where a process stands, what happens to it next, and who does that.
//!
//! It owns the words. It does not know how the next step is found: it asks what recovery asks.

use std::process::ExitCode;

use clap::Args;
use comfy_table::{ContentArrangement, Table, presets::NOTHING};
use registry_actor::{
    domain::{LeaseOwnerIdentity, LeaseOwnerLiveness, ProcessId},
    worker::{DueAction, ExplainedStep, Explanation, ProcessExecutors, WorkerOptions, explain_process},
};
use serde_json::json;

use crate::{
    attempt::printable, command_executor::CommandExecutor, command_process::COMMAND_KIND, duration_text,
    failure::Failure, interrupt::Interrupts, place_choice::PlaceChoice, process_source::ProcessSource, process_view,
    sheet::Sheet, store::StoreReader, time_text,
};

/// The exit code when the process is stuck: somebody has to do something.
pub(crate) const STUCK_EXIT_CODE: u8 = 1;

/// Explains one process.
#[derive(Args, Debug)]
pub(crate) struct ExplainArgs {
    /// The process.
    #[arg(value_name = "ID")]
    id: String,
    /// As one JSON object on one line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: PlaceChoice,
}

/// The codes of this verb, for its help.
pub(crate) fn exit_code_help() -> String {
    format!("Exit codes:\n  {STUCK_EXIT_CODE}  the process is stuck: nobody and nothing will end it by itself\n")
}

/// Runs the verb.
///
/// # Errors
/// When the process is unknown, or its store cannot be read.
pub(crate) async fn run(args: ExplainArgs) -> Result<ExitCode, Failure> {
    let (source, id) = args.place.open_with(&args.id).await?;
    let explanation = match &source {
        ProcessSource::Store { reader, .. } => explained(reader, &id).await?,
        ProcessSource::Host(client) => client.get(&["processes", id.as_str(), "explanation"], &[]).await?,
    };
    let mut sheet = Sheet::new();
    if args.json {
        let mut shown = json!(explanation);
        let (name, value) = source.origin();
        shown[name] = value;
        sheet.line(shown)?;
    } else {
        let mut table = Table::new();
        table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        for (name, fact) in facts(&explanation) {
            table.add_row([name.to_owned(), fact]);
        }
        sheet.line(table.trim_fmt())?;
    }
    sheet.flush()?;
    Ok(if explanation.stuck { ExitCode::from(STUCK_EXIT_CODE) } else { ExitCode::SUCCESS })
}

async fn explained(store: &StoreReader, id: &ProcessId) -> Result<Explanation, Failure> {
    let options = next_host(store).await?;
    let executors = ProcessExecutors::default().with(COMMAND_KIND, CommandExecutor::of_recovered(Interrupts::none()));
    Ok(explain_process(store, &executors, &options, id).await?)
}

/// The worker of the host that owns the store, or of the next one to do so: what that can prove is what counts.
async fn next_host(store: &StoreReader) -> Result<WorkerOptions, Failure> {
    let session = store.judging_session().await?;
    let owner = LeaseOwnerIdentity {
        owner_id: "proctor explain".to_owned(),
        incarnation_id: String::new(),
        liveness: LeaseOwnerLiveness::StoreSession { session },
    };
    Ok(WorkerOptions::new(owner))
}

fn facts(explanation: &Explanation) -> Vec<(&'static str, String)> {
    let mut facts = vec![
        ("process", explanation.process_id.to_string()),
        ("next", in_words(&explanation.step)),
        ("since", time_text::second(explanation.since_ms)),
    ];
    if explanation.stuck {
        facts.push(("stuck", "yes".to_owned()));
    }
    if let Some(wait) = &explanation.waits_for {
        facts.push(("waits", process_view::wait_in_words(wait)));
    }
    if explanation.cancel_requested {
        facts.push(("asked to stop", "yes".to_owned()));
    }
    facts.push(("rule", explanation.rule.clone()));
    facts
}

/// The next step of a process.
pub(crate) fn in_words(step: &ExplainedStep) -> String {
    match step {
        ExplainedStep::Ended { state } => format!("nothing: it has ended, it is {state}"),
        ExplainedStep::Held { owner, remaining_ms } => {
            let left = duration_text::of_ms(*remaining_ms);
            format!("it is held by {}, which may live; its lease lasts {left} unless it is renewed", owner.owner_id)
        }
        ExplainedStep::Due { action, displaces } => {
            let does = match action {
                DueAction::Run => "runs it",
                DueAction::AskToStop => "asks it to stop, because its parent has ended",
                DueAction::Abandon => "declares it abandoned",
                DueAction::Fail => "ends it as failed",
                DueAction::Cancel => "ends it as cancelled",
                other => return format!("{other:?} is due"),
            };
            match displaces {
                None => format!("the host of the store {does}"),
                Some(owner) => format!("the host of the store {does}, in the place of {}", owner.owner_id),
            }
        }
        ExplainedStep::RetryDue { wait_ms, failure } => {
            let wait = duration_text::of_ms(*wait_ms);
            format!("its next attempt is due in {wait}; the last one failed ({})", printable(&failure.message))
        }
        ExplainedStep::ExternalOwner => "it is owned elsewhere, and closed from there".to_owned(),
        ExplainedStep::Executor { kind } => format!("a host that runs processes of kind `{kind}` takes it up"),
        ExplainedStep::CannotRun { reason } => reason.clone(),
        ExplainedStep::Stuck { reason } => reason.clone(),
        other => json!(other).to_string(),
    }
}

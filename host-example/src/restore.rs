//! `proctor restore`: a store made of a backup.
//!
//! It owns what is said. What makes the restored store another one than the original, the log knows.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use registry_actor::log::{EarlierSessions, ExistingStore};
use serde_json::json;

use crate::{
    copy_progress::CopyProgress,
    failure::{Failure, FailureKind},
    interrupt::Interrupts,
    notice::say,
    sheet::Sheet,
    store,
};

/// Restores a backup.
#[derive(Args, Debug)]
pub(crate) struct RestoreArgs {
    /// The backup.
    #[arg(value_name = "FROM")]
    from: PathBuf,
    /// The store to make.
    #[arg(long, value_name = "FILE")]
    store: PathBuf,
    /// Replace the store that stands there, if no host owns it.
    #[arg(long)]
    replace: bool,
    /// Print what was made as one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the verb. Ctrl-C ends it and leaves everything as it was.
///
/// # Errors
/// When the backup is none or damaged, or its place is taken.
pub(crate) async fn run(args: RestoreArgs) -> Result<ExitCode, Failure> {
    let interrupts = Interrupts::listen()
        .map_err(|error| Failure::new(FailureKind::System, format!("signals cannot be handled: {error}")))?;
    let progress = CopyProgress::new(interrupts.clone());
    let existing = if args.replace { ExistingStore::Replace } else { ExistingStore::Refuse };
    let restored = store::restore(&args.from, &args.store, existing, move |step| progress.step(step)).await;
    match (restored, interrupts.asked()) {
        (Ok(report), _) => {
            if args.json {
                let checked = json!({"processes": report.checked.processes, "events": report.checked.events});
                let mut sheet = Sheet::new();
                sheet
                    .line(json!({"store": report.path.to_string_lossy(), "epoch": report.epoch, "checked": checked}))?;
                sheet.flush()?;
            }
            let sessions = match report.earlier_sessions {
                EarlierSessions::Over => "leases in it are those of dead hosts",
                EarlierSessions::Unknown => "leases in it end by time, since the host of the original may live",
            };
            say(format_args!(
                "{} is restored in epoch {}: {} processes with {} events, verified; {sessions}",
                report.path.display(),
                report.epoch,
                report.checked.processes,
                report.checked.events
            ));
            Ok(ExitCode::SUCCESS)
        }
        (Err(failure), Some(signal)) => {
            say(failure);
            Ok(ExitCode::from(signal.exit_code()))
        }
        (Err(failure), None) => Err(failure),
    }
}

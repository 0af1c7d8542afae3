//! `proctor backup`: a copy of a store, beside a live host too.
//!
//! It owns which store is meant and what is said. How a store is copied, the log knows.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use registry_actor::log::BackupCheck;
use serde_json::json;

use crate::{
    copy_progress::CopyProgress,
    failure::{Failure, FailureKind},
    interrupt::Interrupts,
    notice::say,
    sheet::Sheet,
    store_choice::StoreChoice,
};

/// Copies a store.
#[derive(Args, Debug)]
pub(crate) struct BackupArgs {
    #[command(flatten)]
    stores: StoreChoice,
    /// The file to make; it must not be there.
    #[arg(value_name = "TO")]
    to: PathBuf,
    /// Do not check the copy: it is as good as the store.
    #[arg(long)]
    no_verify: bool,
    /// Print what was made as one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the verb. Ctrl-C ends it and leaves nothing behind.
///
/// # Errors
/// When the store cannot be copied, or what was copied is damaged.
pub(crate) async fn run(args: BackupArgs) -> Result<ExitCode, Failure> {
    let interrupts = Interrupts::listen()
        .map_err(|error| Failure::new(FailureKind::System, format!("signals cannot be handled: {error}")))?;
    let store = args.stores.open_only()?;
    let progress = CopyProgress::new(interrupts.clone());
    let check = if args.no_verify { BackupCheck::Nothing } else { BackupCheck::Everything };
    let made = store.backup(&args.to, check, move |step| progress.step(step)).await;
    match (made, interrupts.asked()) {
        (Ok(report), _) => {
            if args.json {
                let checked =
                    report.checked.map(|checked| json!({"processes": checked.processes, "events": checked.events}));
                let mut sheet = Sheet::new();
                let (from, to) = (store.path().to_string_lossy(), report.path.to_string_lossy());
                sheet.line(json!({"store": from, "path": to, "pages": report.pages, "checked": checked}))?;
                sheet.flush()?;
            }
            let (from, to) = (store.path().display(), report.path.display());
            say(match report.checked {
                Some(checked) => format!(
                    "{from} is backed up to {to}: {} processes with {} events, verified",
                    checked.processes, checked.events
                ),
                None => format!("{from} is backed up to {to}: {} pages, not verified", report.pages),
            });
            Ok(ExitCode::SUCCESS)
        }
        (Err(failure), Some(signal)) => {
            say(failure);
            Ok(ExitCode::from(signal.exit_code()))
        }
        (Err(failure), None) => Err(failure),
    }
}

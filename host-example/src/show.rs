//! `proctor show`: all that is known of one process, but for its events.

use std::process::ExitCode;

use clap::Args;
use comfy_table::{ContentArrangement, Table, presets::NOTHING};

use crate::{
    failure::Failure,
    process_view,
    sheet::Sheet,
    store_choice::{StoreChoice, typed_id},
};

/// Shows one process.
#[derive(Args, Debug)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    stores: StoreChoice,
    /// The process.
    #[arg(value_name = "ID")]
    id: String,
    /// As one JSON object on one line.
    #[arg(long)]
    json: bool,
}

/// Runs the verb.
///
/// # Errors
/// When the process is unknown, or its store cannot be read.
pub(crate) async fn run(args: ShowArgs) -> Result<ExitCode, Failure> {
    let id = typed_id(&args.id)?;
    let store = args.stores.open_with(&id).await?;
    let mut sheet = Sheet::new();
    // It was there a moment ago, and nothing takes a process away.
    if let Some(record) = store.process(&id).await? {
        let lease = store.lease(&id).await?;
        if args.json {
            let mut shown = process_view::to_json(&record, store.path());
            shown["lease"] = serde_json::json!(lease);
            sheet.line(shown)?;
        } else {
            let mut table = Table::new();
            table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
            for (name, fact) in process_view::to_facts(&record, lease.as_ref(), store.path()) {
                table.add_row([name.to_owned(), fact]);
            }
            sheet.line(table.trim_fmt())?;
        }
    }
    sheet.flush()?;
    Ok(ExitCode::SUCCESS)
}

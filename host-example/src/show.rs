//! `proctor show`: all that is known of one process, but for its events.

use std::process::ExitCode;

use clap::Args;
use comfy_table::{ContentArrangement, Table, presets::NOTHING};

use crate::{failure::Failure, paint::Paint, place_choice::PlaceChoice, process_view, sheet::Sheet};

/// Shows one process.
#[derive(Args, Debug)]
pub(crate) struct ShowArgs {
    /// The process.
    #[arg(value_name = "ID")]
    id: String,
    /// As one JSON object on one line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: PlaceChoice,
}

/// Runs the verb.
///
/// # Errors
/// When the process is unknown, or cannot be read.
pub(crate) async fn run(args: ShowArgs) -> Result<ExitCode, Failure> {
    let (source, id) = args.place.open_with(&args.id).await?;
    let paint = Paint::of_stdout();
    let mut sheet = Sheet::new();
    // It was there a moment ago. That it was pruned since leaves nothing to show.
    if let Some(process) = source.process(&id).await? {
        if args.json {
            sheet.line(process_view::to_json(&process, &source))?;
        } else {
            let mut table = Table::new();
            table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
            for (name, fact) in process_view::to_facts(&process, &source) {
                // The second column is the last one: what is painted in it moves nothing.
                let fact = if name == "status" { paint.with(Paint::of_status(&process.status), &fact) } else { fact };
                table.add_row([name.to_owned(), fact]);
            }
            sheet.line(table.trim_fmt())?;
        }
    }
    sheet.flush()?;
    Ok(ExitCode::SUCCESS)
}

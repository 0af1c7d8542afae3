//! `proctor list`: the processes of the chosen stores.
//!
//! It reads and writes page by page, so that a list may be longer than the memory.

use std::process::ExitCode;

use clap::{ArgAction, Args, ValueEnum};
use comfy_table::{ContentArrangement, Table, presets::NOTHING};
use registry_actor::domain::{ProcessListFilter, ProcessRecord, ProcessStatusFilter};

use crate::{
    failure::{Failure, FailureKind},
    process_view,
    sheet::Sheet,
    store::StoreReader,
    store_choice::StoreChoice,
    time_text,
};

/// The records that are read, and shown as one table, at a time.
const PAGE_RECORDS: u32 = 500;

/// Lists processes.
#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    stores: StoreChoice,
    /// Only processes of this status.
    #[arg(long, value_enum, default_value_t = Status::Any)]
    status: Status,
    /// Only processes of this kind.
    #[arg(long)]
    kind: Option<String>,
    /// Only processes with exactly this label, which is the command line as `list` shows it.
    #[arg(long)]
    label: Option<String>,
    /// Only processes that carry this tag; may be given several times, and then all of them count.
    #[arg(long, value_name = "TAG", action = ArgAction::Append)]
    tag: Vec<String>,
    /// Only processes that wait (`true`), or that do not (`false`).
    #[arg(long, value_name = "BOOL")]
    waiting: Option<bool>,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
}

/// The statuses by which a list is narrowed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Status {
    /// All.
    Any,
    /// Not ended.
    Running,
    /// Ended well.
    Completed,
    /// Ended badly.
    Failed,
    /// Ended on request.
    Cancelled,
    /// Ended because its host died.
    Abandoned,
}

impl From<Status> for ProcessStatusFilter {
    fn from(status: Status) -> Self {
        match status {
            Status::Any => Self::Any,
            Status::Running => Self::Running,
            Status::Completed => Self::Completed,
            Status::Failed => Self::Failed,
            Status::Cancelled => Self::Cancelled,
            Status::Abandoned => Self::Abandoned,
        }
    }
}

/// Runs the verb.
///
/// # Errors
/// When a store cannot be read.
pub(crate) async fn run(args: ListArgs) -> Result<ExitCode, Failure> {
    let filter = ProcessListFilter {
        kind: args.kind,
        label: args.label,
        tags: args.tag.into_iter().collect(),
        waiting: args.waiting,
        ..ProcessListFilter::of_status(args.status.into())
    };
    filter.check().map_err(|refusal| Failure::new(FailureKind::Usage, refusal.to_string()))?;
    let mut sheet = Sheet::new();
    for store in args.stores.open()? {
        let mut after = None;
        loop {
            let page = store.processes(filter.clone(), after, PAGE_RECORDS).await?;
            if args.json {
                for record in &page.records {
                    sheet.line(process_view::to_json(record, store.path()))?;
                }
            } else if !page.records.is_empty() {
                sheet.line(table(page.records.iter().map(AsRef::as_ref), &store))?;
            }
            sheet.flush()?;
            after = page.records.last().map(|record| record.id().clone());
            if !page.has_more || after.is_none() || !sheet.is_read() {
                break;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn table<'record>(records: impl Iterator<Item = &'record ProcessRecord>, store: &StoreReader) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(["PROCESS", "STATUS", "DISPOSITION", "CREATED", "ENDED", "STORE", "COMMAND"]);
    let store_name = store.path().file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    for record in records {
        table.add_row([
            record.id().to_string(),
            record.status.label().to_owned(),
            record.registration.disposition.to_string(),
            time_text::second(record.created_at_ms),
            record.terminal_at_ms.map_or_else(|| "-".to_owned(), time_text::second),
            store_name.clone(),
            process_view::label(record).to_owned(),
        ]);
    }
    table.trim_fmt()
}

//! `proctor list`: the processes of the chosen places.
//!
//! It reads and writes page by page, so that a list may be longer than the memory.

use std::{
    io::{self, IsTerminal},
    process::ExitCode,
};

use clap::{ArgAction, Args, ValueEnum};
use comfy_table::{ContentArrangement, Table, presets::NOTHING};
use jiff::Timestamp;
use registry_actor::domain::{ProcessListFilter, ProcessStatusFilter};

use crate::{
    api::process_view::ProcessView,
    client::ProcessPage,
    failure::{Failure, FailureKind},
    notice::say,
    paint::Paint,
    place_choice::PlaceChoice,
    process_source::{PAGE_PROCESSES, ProcessSource},
    process_view,
    sheet::Sheet,
    time_text,
};

/// Lists processes.
#[derive(Args, Debug)]
pub(crate) struct ListArgs {
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
    /// Only the newest, and the newest first; by default 20 of them. Otherwise all, by id.
    #[arg(long, short = 'n', value_name = "N", num_args = 0..=1, default_missing_value = "20")]
    newest: Option<usize>,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: PlaceChoice,
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
/// When a place cannot be read.
pub(crate) async fn run(args: ListArgs) -> Result<ExitCode, Failure> {
    let filter = ProcessListFilter {
        kind: args.kind,
        label: args.label,
        tags: args.tag.into_iter().collect(),
        waiting: args.waiting,
        ..ProcessListFilter::of_status(args.status.into())
    };
    filter.check().map_err(|refusal| Failure::new(FailureKind::Usage, refusal.to_string()))?;
    let mut page = ListPrinter { form: Form::of_stdout(args.json), sheet: Sheet::new() };
    let mut newest = args.newest.map(Newest::new);
    for source in args.place.open()? {
        let mut after = None;
        loop {
            let ProcessPage { processes, damaged_process_ids, next_after } = source.processes(&filter, after).await?;
            for id in damaged_process_ids {
                say(format_args!("process `{id}` is damaged and not shown: see `proctor verify`"));
            }
            match &mut newest {
                Some(newest) => processes.into_iter().for_each(|process| newest.offer(process, &source)),
                None => page.print(&processes.iter().map(|process| (process, &source)).collect::<Vec<_>>())?,
            }
            after = next_after;
            if after.is_none() || !page.sheet.is_read() {
                break;
            }
        }
    }
    if let Some(newest) = newest {
        let chosen = newest.in_order();
        page.print(&chosen.iter().map(|(process, source)| (process, source)).collect::<Vec<_>>())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The newest processes of many, as few as are wanted.
struct Newest {
    wanted: usize,
    kept: Vec<(ProcessView, ProcessSource)>,
}

impl Newest {
    const fn new(wanted: usize) -> Self {
        Self { wanted, kept: Vec::new() }
    }

    fn offer(&mut self, process: ProcessView, source: &ProcessSource) {
        self.kept.push((process, source.clone()));
        // Sorted seldom, so that each one costs little.
        if self.kept.len() > self.wanted.saturating_mul(2).saturating_add(PAGE_PROCESSES as usize) {
            self.thin_out();
        }
    }

    fn thin_out(&mut self) {
        self.kept.sort_by(|(one, _), (other, _)| {
            other.created_at_ms.cmp(&one.created_at_ms).then_with(|| one.process_id.cmp(&other.process_id))
        });
        self.kept.truncate(self.wanted);
    }

    fn in_order(mut self) -> Vec<(ProcessView, ProcessSource)> {
        self.thin_out();
        self.kept
    }
}

/// How a list is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    /// For machines.
    Json,
    /// With points in time, for files and pipes.
    Text,
    /// With ages, for a terminal at this moment.
    Terminal { now_ms: u64, paint: Paint },
}

impl Form {
    fn of_stdout(json: bool) -> Self {
        if json {
            Self::Json
        } else if io::stdout().is_terminal() {
            let now_ms = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default();
            Self::Terminal { now_ms, paint: Paint::of_stdout() }
        } else {
            Self::Text
        }
    }

    fn time(self, epoch_ms: Option<u64>) -> String {
        match (self, epoch_ms) {
            (_, None) => "-".to_owned(),
            (Self::Terminal { now_ms, .. }, Some(epoch_ms)) => time_text::age(epoch_ms, now_ms),
            (Self::Json | Self::Text, Some(epoch_ms)) => time_text::second(epoch_ms),
        }
    }

    /// The processes as lines under a head.
    fn table(self, processes: &[(&ProcessView, &ProcessSource)]) -> String {
        let mut table = Table::new();
        table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(["STATUS", "PROCESS", "DISPOSITION", "CREATED", "ENDED", "STORE", "COMMAND"]);
        for (process, source) in processes {
            table.add_row([
                process.status.clone(),
                process.process_id.clone(),
                process.disposition.clone(),
                self.time(Some(process.created_at_ms)),
                self.time(process.terminal_at_ms),
                source.short_name(),
                process_view::label(process).to_owned(),
            ]);
        }
        let table = table.trim_fmt();
        let Self::Terminal { paint, .. } = self else { return table };
        // The status comes first in each line, where paint moves nothing.
        let painted =
            table.lines().zip(std::iter::once("STATUS").chain(processes.iter().map(|(p, _)| p.status.as_str())));
        painted
            .map(|(line, status)| match line.split_once(status) {
                Some((before, after)) if before.trim().is_empty() => {
                    format!("{before}{}{after}", paint.with(Paint::of_status(status), status))
                }
                _ => line.to_owned(),
            })
            .collect::<Vec<_>>()
            .join("\n")
    }
}

/// Writes processes page by page.
struct ListPrinter {
    form: Form,
    sheet: Sheet,
}

impl ListPrinter {
    fn print(&mut self, processes: &[(&ProcessView, &ProcessSource)]) -> Result<(), Failure> {
        if self.form == Form::Json {
            for (process, source) in processes {
                self.sheet.line(process_view::to_json(process, source))?;
            }
        } else if !processes.is_empty() {
            self.sheet.line(self.form.table(processes))?;
        }
        self.sheet.flush()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::client::HostClient;

    fn source() -> ProcessSource {
        ProcessSource::of_host(HostClient::at_url("http://h:1", None).expect("a client"))
    }

    fn process(id: &str, status: &str, created_at_ms: u64) -> ProcessView {
        serde_json::from_value(json!({
            "process_id": id, "status": status, "disposition": "owner_bound", "kind": "command", "label": "echo hi", "tags": [],
            "generation": 1, "created_at_ms": created_at_ms, "updated_at_ms": 0, "attempts": 0, "input": null,
        }))
        .expect("a process")
    }

    #[test]
    fn a_terminal_is_shown_ages_and_colours_and_a_file_neither() {
        let (running, source) = (process("p", "running", 60_000), source());
        let rows = [(&running, &source)];
        let plain = Form::Text.table(&rows);
        assert!(plain.contains("1970-01-01 00:01:00Z") && !plain.contains('\u{1b}'), "{plain}");
        let seen = Form::Terminal { now_ms: 180_000, paint: Paint::Coloured }.table(&rows);
        assert!(seen.contains("2m ago") && seen.contains("\u{1b}[36mrunning\u{1b}[0m"), "{seen:?}");
        let forbidden = Form::Terminal { now_ms: 180_000, paint: Paint::Plain }.table(&rows);
        assert!(!forbidden.contains('\u{1b}'), "{forbidden:?}");
    }

    #[test]
    fn the_newest_are_kept_in_their_order_whatever_came_first() {
        let (mut newest, source) = (Newest::new(2), source());
        for created_at_ms in (0..2_000).rev().chain([5_000]).chain(0..2_000) {
            newest.offer(process(&format!("p{created_at_ms}"), "completed", created_at_ms), &source);
        }
        let ids: Vec<String> = newest.in_order().into_iter().map(|(process, _)| process.process_id).collect();
        assert_eq!(ids, ["p5000", "p1999"]);
    }
}

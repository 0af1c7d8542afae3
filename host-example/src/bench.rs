//! `proctor bench`: what the registry costs, each figure beside a baseline of the same run.
//!
//! Rows are measured interleaved, because a figure of another run or another minute says nothing on a shared disk. It
//! knows no threshold: what is good enough is judged by whoever reads it.
//!
//! `append` measures the registry beside the bare log, and the log beside a plain file.

mod await_rows;
mod bare_log;
mod commit_stamps;
mod http_host;
mod http_rows;
mod measure;
mod plain_file;
mod registry_row;
mod sink_rows;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};
use comfy_table::Table;
use serde::Serialize;
use tempfile::TempDir;

use self::measure::{Slice, median};
use crate::failure::{Failure, FailureKind};

/// Measures this machine's disk with and without the registry.
#[derive(Args, Debug)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    subject: Subject,
}

#[derive(Subcommand, Debug)]
enum Subject {
    /// Appends per second: registry, bare log and plain file, interleaved in one run
    Append(AppendArgs),
    /// From a commit to whoever waits for it, beside a bare fan-out of as many channels
    Await(await_rows::AwaitArgs),
    /// Appends per second beside sinks that sleep, block, never return or panic, each in pairs with one that only counts
    Sink(sink_rows::SinkArgs),
    /// A served host asked over loopback, beside the same asked of a registry in this process
    Http(http_rows::HttpArgs),
}

/// Where to measure, and how to print it.
#[derive(Args, Debug)]
struct OutputArgs {
    /// Directory on the disk to be measured; a temporary one by default. What is made in it is removed again.
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// One JSON object a line, for each row of the table.
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct AppendArgs {
    /// Interleaved rounds; the figures are their medians.
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// How long each row is measured in each round, in ms.
    #[arg(long, value_name = "MS", default_value_t = 800, value_parser = clap::value_parser!(u64).range(1..))]
    slice_ms: u64,
    #[command(flatten)]
    output: OutputArgs,
}

/// Callers on processes.
#[derive(Debug, Clone, Copy)]
struct Load {
    callers: usize,
    processes: usize,
}

const LOADS: [Load; 4] = [
    Load { callers: 1, processes: 1 },
    Load { callers: 64, processes: 64 },
    Load { callers: 1_024, processes: 1_024 },
    Load { callers: 64, processes: 1 },
];

/// One line of the result. All figures are medians over the rounds; a ratio is the median of the ratios of one round.
#[derive(Debug, Clone, Serialize)]
struct Row {
    callers: usize,
    processes: usize,
    rounds: usize,
    appends_per_s: f64,
    ack_p50_us: f64,
    ack_p99_us: f64,
    cpu_us_per_append: f64,
    log_appends_per_s: f64,
    log_ack_p50_us: f64,
    log_cpu_us_per_append: f64,
    file_appends_per_s: f64,
    file_sync_p50_us: f64,
    ratio_log: f64,
    ratio_log_min: f64,
    ratio_log_max: f64,
    ratio_file: f64,
    ratio_file_min: f64,
    ratio_file_max: f64,
}

/// Runs the verb.
///
/// # Errors
/// When the directory cannot be used, or the store or the registry fails under the load.
pub(crate) async fn run(args: BenchArgs) -> Result<ExitCode, Failure> {
    let measured = match args.subject {
        Subject::Append(args) => append(args).await,
        Subject::Await(args) => awaiting(args).await,
        Subject::Sink(args) => sinks(args).await,
        Subject::Http(args) => http(args).await,
    };
    measured.map_err(|error| Failure::new(FailureKind::Io, format!("{error:#}")))?;
    Ok(ExitCode::SUCCESS)
}

async fn append(args: AppendArgs) -> anyhow::Result<()> {
    let place = Place::of(&args.output)?;
    let mut rows = Vec::new();
    for load in LOADS {
        rows.push(measure_load(load, place.directory(), &args).await?);
    }
    args.output.print(&rows, table)
}

async fn awaiting(args: await_rows::AwaitArgs) -> anyhow::Result<()> {
    let place = Place::of(&args.output)?;
    let rows = await_rows::measure(place.directory(), &args).await?;
    args.output.print(&rows, await_rows::table)
}

async fn sinks(args: sink_rows::SinkArgs) -> anyhow::Result<()> {
    let place = Place::of(&args.output)?;
    let rows = sink_rows::measure(place.directory(), &args).await?;
    args.output.print(&rows, sink_rows::table)
}

async fn http(args: http_rows::HttpArgs) -> anyhow::Result<()> {
    let place = Place::of(&args.output)?;
    let (requests, streams) = http_rows::measure(place.directory(), &args).await?;
    args.output.print(&requests, http_rows::request_table)?;
    args.output.print(&[streams], http_rows::stream_table)
}

/// The directory to be measured.
enum Place {
    Given(PathBuf),
    Temporary(TempDir),
}

impl Place {
    fn of(output: &OutputArgs) -> anyhow::Result<Self> {
        let Some(directory) = &output.store else {
            return Ok(Self::Temporary(tempfile::tempdir().context("cannot create a temporary directory")?));
        };
        std::fs::create_dir_all(directory)
            .with_context(|| format!("cannot create directory {}", directory.display()))?;
        Ok(Self::Given(directory.clone()))
    }

    fn directory(&self) -> &Path {
        match self {
            Self::Given(directory) => directory,
            Self::Temporary(directory) => directory.path(),
        }
    }
}

impl OutputArgs {
    fn print<R: Serialize>(&self, rows: &[R], table: impl Fn(&[R]) -> Table) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        if self.json {
            for row in rows {
                writeln!(out, "{}", serde_json::to_string(row)?)?;
            }
        } else {
            writeln!(out, "{}", table(rows))?;
        }
        Ok(())
    }
}

/// A directory of one's own in the one to be measured.
fn scratch_in(directory: &Path) -> anyhow::Result<TempDir> {
    tempfile::Builder::new()
        .prefix("proctor-bench-")
        .tempdir_in(directory)
        .with_context(|| format!("cannot create a directory in {}", directory.display()))
}

async fn measure_load(load: Load, directory: &Path, args: &AppendArgs) -> anyhow::Result<Row> {
    let scratch = scratch_in(directory)?;
    let file = plain_file::PlainFile::open(&scratch.path().join("plain"))?;
    let log = bare_log::BareLog::open(&scratch.path().join("log.db"), load.processes).await?;
    let registry = registry_row::RegistryRow::open(&scratch.path().join("registry.db"), load.processes).await?;
    let slice = Duration::from_millis(args.slice_ms);
    let warm_up = slice / 4;
    file.run(load.callers, warm_up).await?;
    log.run(load.callers, warm_up).await?;
    registry.run(load.callers, warm_up).await?;
    let (mut files, mut logs, mut registries) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=usize::from(args.rounds) {
        let what = format!("{} callers on {} processes", load.callers, load.processes);
        progress(&what, round, usize::from(args.rounds));
        // The order turns, so that no row always follows the same other one.
        for step in 0..3 {
            match (round + step) % 3 {
                0 => files.push(file.run(load.callers, slice).await?),
                1 => logs.push(log.run(load.callers, slice).await?),
                _ => registries.push(registry.run(load.callers, slice).await?),
            }
        }
    }
    registry.close().await;
    log.close().await;
    let sync_p50_us = file.close()?;
    Ok(row(load, &files, &logs, &registries, sync_p50_us))
}

fn row(load: Load, files: &[Slice], logs: &[Slice], registries: &[Slice], file_sync_p50_us: f64) -> Row {
    let of = |slices: &[Slice], figure: fn(&Slice) -> f64| median(slices.iter().map(figure).collect());
    let ratios = |baseline: &[Slice]| -> Vec<f64> {
        registries
            .iter()
            .zip(baseline)
            .map(|(registry, baseline)| registry.appends_per_s() / baseline.appends_per_s())
            .collect()
    };
    let smallest = |values: &[f64]| values.iter().copied().fold(f64::INFINITY, f64::min);
    let largest = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
    let (to_log, to_file) = (ratios(logs), ratios(files));
    Row {
        callers: load.callers,
        processes: load.processes,
        rounds: registries.len(),
        appends_per_s: of(registries, Slice::appends_per_s),
        ack_p50_us: of(registries, |slice| slice.ack_us(0.50)),
        ack_p99_us: of(registries, |slice| slice.ack_us(0.99)),
        cpu_us_per_append: of(registries, Slice::cpu_us_per_append),
        log_appends_per_s: of(logs, Slice::appends_per_s),
        log_ack_p50_us: of(logs, |slice| slice.ack_us(0.50)),
        log_cpu_us_per_append: of(logs, Slice::cpu_us_per_append),
        file_appends_per_s: of(files, Slice::appends_per_s),
        file_sync_p50_us,
        ratio_log: median(to_log.clone()),
        ratio_log_min: smallest(&to_log),
        ratio_log_max: largest(&to_log),
        ratio_file: median(to_file.clone()),
        ratio_file_min: smallest(&to_file),
        ratio_file_max: largest(&to_file),
    }
}

fn progress(what: &str, round: usize, rounds: usize) {
    let mut err = std::io::stderr();
    if err.is_terminal() {
        // A progress line that cannot be shown is no reason to stop.
        let _ = write!(err, "\r{what}: round {round}/{rounds}   ");
        if round == rounds {
            let _ = writeln!(err);
        }
    }
}

fn empty_table() -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::UTF8_FULL_CONDENSED);
    table
}

fn table(rows: &[Row]) -> Table {
    let mut table = empty_table();
    table.set_header([
        "callers",
        "processes",
        "registry/s",
        "ack p50 µs",
        "ack p99 µs",
        "cpu µs",
        "log/s",
        "log p50 µs",
        "log cpu µs",
        "file/s",
        "sync p50 µs",
        "of log (min–max)",
        "of file (min–max)",
    ]);
    for row in rows {
        table.add_row([
            row.callers.to_string(),
            row.processes.to_string(),
            format!("{:.0}", row.appends_per_s),
            format!("{:.0}", row.ack_p50_us),
            format!("{:.0}", row.ack_p99_us),
            format!("{:.1}", row.cpu_us_per_append),
            format!("{:.0}", row.log_appends_per_s),
            format!("{:.0}", row.log_ack_p50_us),
            format!("{:.1}", row.log_cpu_us_per_append),
            format!("{:.0}", row.file_appends_per_s),
            format!("{:.0}", row.file_sync_p50_us),
            format!("{:.2} ({:.2}–{:.2})", row.ratio_log, row.ratio_log_min, row.ratio_log_max),
            format!("{:.2} ({:.2}–{:.2})", row.ratio_file, row.ratio_file_min, row.ratio_file_max),
        ]);
    }
    table
}

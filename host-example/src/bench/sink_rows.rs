//! `proctor bench sink`: what a badly behaved sink costs an append, beside one that only counts.
//!
//! Both sides of a pair are measured in the same run, in short turns, each on a registry of its own with a mailbox of its
//! own.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use clap::Args;
use comfy_table::Table;
use registry_actor::domain::ProcessEvent;
use registry_actor::port::{ProcessEventSink, ProcessRegistry};
use serde::Serialize;
use sink::{MailboxOptions, SinkMailbox, SinkReport};

use super::measure::{Slice, median};
use super::registry_row::RegistryRow;
use super::{Load, OutputArgs, empty_table, progress, scratch_in};

/// Name of the sinks' threads, whose panics are not printed.
const THREAD: &str = "bench-sink";

/// So few that a queue is full from the first turn on: then it is the leaving out that is measured.
const CAPACITY: usize = 1_024;

/// In how many turns each side of a pair is measured; even.
const TURNS: u32 = 8;

#[derive(Args, Debug)]
pub(super) struct SinkArgs {
    /// Interleaved pairs; the figures are their medians.
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// How long each side of a pair is measured, in ms.
    #[arg(long, value_name = "MS", default_value_t = 800, value_parser = clap::value_parser!(u64).range(1..))]
    slice_ms: u64,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

const LOADS: [Load; 2] = [Load { callers: 64, processes: 64 }, Load { callers: 1, processes: 1 }];

/// How a sink takes an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Manner {
    Counts,
    Sleeps,
    Blocks,
    NeverReturns,
    Panics,
}

impl Manner {
    const fn name(self) -> &'static str {
        match self {
            Self::Counts => "counts",
            Self::Sleeps => "sleeps 1 ms",
            Self::Blocks => "blocks 1 ms",
            Self::NeverReturns => "never returns",
            Self::Panics => "panics",
        }
    }
}

/// The first one is the counting sink beside itself: how far a ratio strays without a cause.
const MANNERS: [Manner; 5] = [Manner::Counts, Manner::Sleeps, Manner::Blocks, Manner::NeverReturns, Manner::Panics];

/// One line of the result. All figures are medians over the pairs; the ratio is the median of the ratios of one pair.
#[derive(Debug, Clone, Serialize)]
pub(super) struct SinkRow {
    sink: Manner,
    callers: usize,
    processes: usize,
    pairs: usize,
    appends_per_s: f64,
    ack_p99_us: f64,
    counting_appends_per_s: f64,
    counting_ack_p99_us: f64,
    ratio: f64,
    ratio_min: f64,
    ratio_max: f64,
    delivered: u64,
    dropped: u64,
    failed: u64,
    restarts: u64,
    counting_dropped: u64,
}

pub(super) async fn measure(directory: &Path, args: &SinkArgs) -> anyhow::Result<Vec<SinkRow>> {
    print_no_panics_of_sinks();
    let mut rows = Vec::new();
    for load in LOADS {
        for manner in MANNERS {
            rows.push(measure_pairs(manner, load, directory, args).await?);
        }
    }
    Ok(rows)
}

async fn measure_pairs(manner: Manner, load: Load, directory: &Path, args: &SinkArgs) -> anyhow::Result<SinkRow> {
    let scratch = scratch_in(directory)?;
    let counting = Side::open(&scratch.path().join("counting.db"), load, Manner::Counts).await?;
    let measured = Side::open(&scratch.path().join("measured.db"), load, manner).await?;
    let slice = Duration::from_millis(args.slice_ms);
    counting.registry.run(load.callers, slice / 4).await?;
    measured.registry.run(load.callers, slice / 4).await?;
    let mut pairs = Vec::new();
    let what = format!("sink that {}, {} callers", manner.name(), load.callers);
    for round in 1..=usize::from(args.rounds) {
        progress(&what, round, usize::from(args.rounds));
        pairs.push(measure_pair(&counting, &measured, load, slice).await?);
    }
    let (counting, measured) = (counting.close().await, measured.close().await);
    Ok(row(manner, load, &pairs, &counting, &measured))
}

/// A pair in many short turns, A B B A: what disturbs the disk for a second disturbs both sides.
async fn measure_pair(counting: &Side, measured: &Side, load: Load, slice: Duration) -> anyhow::Result<(Slice, Slice)> {
    let (mut of_counting, mut of_measured) = (Vec::new(), Vec::new());
    for turn in 0..2 * TURNS {
        let (side, slices) =
            if turn.div_ceil(2) % 2 == 0 { (counting, &mut of_counting) } else { (measured, &mut of_measured) };
        slices.push(side.registry.run(load.callers, slice / TURNS).await?);
    }
    Ok((Slice::joined(of_counting), Slice::joined(of_measured)))
}

/// A registry with a sink.
struct Side {
    registry: RegistryRow,
    mailbox: SinkMailbox,
}

impl Side {
    async fn open(path: &Path, load: Load, manner: Manner) -> anyhow::Result<Self> {
        let registry = RegistryRow::open(path, load.processes).await?;
        let mut options = MailboxOptions::default();
        options.thread_name = THREAD.to_owned();
        options.capacity = CAPACITY;
        let mailbox = SinkMailbox::start(options, move || Arc::new(BenchSink { manner, events: AtomicU64::new(0) }))?;
        mailbox.attach(&registry.registry().change_source().context("the registry tells of its commits")?);
        Ok(Self { registry, mailbox })
    }

    async fn close(self) -> SinkReport {
        self.registry.close().await;
        // What is left of a slow sink's queue is of no interest.
        let report = self.mailbox.report();
        drop(self.mailbox.close(Duration::ZERO).await);
        report
    }
}

struct BenchSink {
    manner: Manner,
    events: AtomicU64,
}

#[async_trait]
impl ProcessEventSink for BenchSink {
    async fn emit(&self, _: &Arc<ProcessEvent>) {
        self.events.fetch_add(1, Ordering::Relaxed);
        match self.manner {
            Manner::Counts => {}
            Manner::Sleeps => tokio::time::sleep(Duration::from_millis(1)).await,
            Manner::Blocks => std::thread::sleep(Duration::from_millis(1)),
            Manner::NeverReturns => std::future::pending().await,
            Manner::Panics => panic!("as the bench wants"),
        }
    }
}

fn print_no_panics_of_sinks() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if std::thread::current().name() != Some(THREAD) {
            print(panic);
        }
    }));
}

fn row(manner: Manner, load: Load, pairs: &[(Slice, Slice)], counting: &SinkReport, measured: &SinkReport) -> SinkRow {
    let of_counting = |figure: fn(&Slice) -> f64| median(pairs.iter().map(|(counting, _)| figure(counting)).collect());
    let of_measured = |figure: fn(&Slice) -> f64| median(pairs.iter().map(|(_, measured)| figure(measured)).collect());
    let ratios: Vec<f64> =
        pairs.iter().map(|(counting, measured)| measured.appends_per_s() / counting.appends_per_s()).collect();
    SinkRow {
        sink: manner,
        callers: load.callers,
        processes: load.processes,
        pairs: pairs.len(),
        appends_per_s: of_measured(Slice::appends_per_s),
        ack_p99_us: of_measured(|slice| slice.ack_us(0.99)),
        counting_appends_per_s: of_counting(Slice::appends_per_s),
        counting_ack_p99_us: of_counting(|slice| slice.ack_us(0.99)),
        ratio: median(ratios.clone()),
        ratio_min: ratios.iter().copied().fold(f64::INFINITY, f64::min),
        ratio_max: ratios.iter().copied().fold(0.0, f64::max),
        delivered: measured.delivered,
        dropped: measured.dropped,
        failed: measured.failed,
        restarts: measured.restarts,
        counting_dropped: counting.dropped,
    }
}

pub(super) fn table(rows: &[SinkRow]) -> Table {
    let mut table = empty_table();
    table.set_header([
        "sink",
        "callers",
        "processes",
        "appends/s",
        "ack p99 µs",
        "counting/s",
        "ack p99 µs",
        "of counting (min–max)",
        "delivered",
        "dropped",
        "failed",
        "restarts",
    ]);
    for row in rows {
        table.add_row([
            row.sink.name().to_owned(),
            row.callers.to_string(),
            row.processes.to_string(),
            format!("{:.0}", row.appends_per_s),
            format!("{:.0}", row.ack_p99_us),
            format!("{:.0}", row.counting_appends_per_s),
            format!("{:.0}", row.counting_ack_p99_us),
            format!("{:.2} ({:.2}–{:.2})", row.ratio, row.ratio_min, row.ratio_max),
            row.delivered.to_string(),
            row.dropped.to_string(),
            row.failed.to_string(),
            row.restarts.to_string(),
        ]);
    }
    table
}

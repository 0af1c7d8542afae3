//! `proctor bench await`: how long after a commit a parked waiter runs.
//!
//! Each row is measured beside a bare fan-out of the same size in the same round: as many tasks that each wait for a
//! channel of their own, all of which a plain thread serves at once. A second one is served in bursts as large as the
//! groups that the log committed, each when everybody of the one before has run: what would be left if the log took no
//! time.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use async_trait::async_trait;
use awaiter::{ProcessAwaiter, ProcessWait, WaitAnswer, watch_process_registry};
use clap::Args;
use comfy_table::Table;
use registry_actor::actor::{ActorRegistry, RegistryOptions};
use registry_actor::domain::{Command, ProcessId, Receipt, RegistryCommand, RegistryReceipt, Sequence};
use registry_actor::log::{SqliteLog, SqliteOptions};
use registry_actor::port::{
    Answer, AppendResult, ChangeSource, CommitFollower, DurabilityTier, ProcessLog, ProcessRegistry,
    ProcessRegistryExt, Query, RegistryError,
};
use serde::Serialize;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::bare_log::BareProcess;
use super::commit_stamps::{CommitStamps, number_of};
use super::measure::median;
use super::registry_row::line;

/// How many callers append where callers do.
const CALLERS: usize = 64;
/// How long a crowd has to come to rest before something happens.
const SETTLING: Duration = Duration::from_millis(20);
/// How many batches the log is given at once: fewer than it takes.
const BURST: usize = 4_096;
/// A round has at least so many samples, so that its p99 is one of them.
const SAMPLES: usize = 200;

#[derive(Args, Debug)]
pub(super) struct AwaitArgs {
    /// Interleaved rounds; ratios are the medians of those of each round.
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    #[command(flatten)]
    pub(super) output: super::OutputArgs,
}

/// So many waiters on so many processes.
#[derive(Debug, Clone, Copy)]
struct Crowd {
    waiters: usize,
    processes: usize,
}

const CROWDS: [Crowd; 4] = [
    Crowd { waiters: 1, processes: 1 },
    Crowd { waiters: 1_000, processes: 1_000 },
    Crowd { waiters: 10_000, processes: 10_000 },
    Crowd { waiters: 1_000, processes: 1 },
];

impl Crowd {
    /// The last of them are still on their way to sleep.
    async fn settle(self) -> anyhow::Result<()> {
        let settling = Duration::from_micros(500) * u32::try_from(self.waiters)?;
        tokio::time::sleep(settling.min(SETTLING)).await;
        Ok(())
    }
}

/// Who waits on what, and who appends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Parked in the registry; the events come through the log, as those of another writer.
    Native,
    /// Parked in the registry; the events come from callers of the registry.
    NativeCallers,
    /// At the hub of the decorator; the events come from callers of the decorator.
    Hub,
}

const WAYS: [Way; 3] = [Way::Native, Way::NativeCallers, Way::Hub];

impl Way {
    const fn name(self) -> &'static str {
        match self {
            Self::Native => "registry",
            Self::NativeCallers => "registry, 64 callers",
            Self::Hub => "decorator + hub, 64 callers",
        }
    }
}

/// One line of the result.
#[derive(Debug, Clone, Serialize)]
pub(super) struct AwaitRow {
    waiters: usize,
    processes: usize,
    way: &'static str,
    samples: usize,
    p50_us: f64,
    p99_us: f64,
    bare_p50_us: f64,
    bare_p99_us: f64,
    bare_bursts_p99_us: f64,
    /// Median over the rounds of p99 by the p99 of the bursts.
    ratio_bursts_p99: f64,
    /// Median over the rounds of p99 by bare p99.
    ratio_p99: f64,
    ratio_p99_min: f64,
    ratio_p99_max: f64,
}

pub(super) async fn measure(directory: &Path, args: &AwaitArgs) -> anyhow::Result<Vec<AwaitRow>> {
    let mut rows = Vec::new();
    for crowd in CROWDS {
        rows.extend(measure_crowd(crowd, directory, usize::from(args.rounds)).await?);
    }
    Ok(rows)
}

async fn measure_crowd(crowd: Crowd, directory: &Path, rounds: usize) -> anyhow::Result<Vec<AwaitRow>> {
    let scratch = super::scratch_in(directory)?;
    let mut scene = Scene::open(&scratch.path().join("store.db"), crowd).await?;
    let repetitions = SAMPLES.div_ceil(crowd.waiters);
    let mut of_way = WAYS.map(|_| Vec::new());
    let (mut bare, mut bare_bursts) = (Vec::new(), Vec::new());
    // The first round warms up.
    for round in 0..=rounds {
        super::progress(&format!("{} waiters on {} processes", crowd.waiters, crowd.processes), round, rounds);
        let mut groups = Vec::new();
        let mut latencies = WAYS.map(|_| Vec::new());
        for _ in 0..repetitions {
            for step in 0..WAYS.len() {
                // The order turns, so that no way always follows the same other one.
                let way = (round + step) % WAYS.len();
                let (measured, sizes) = scene.run(WAYS[way]).await?;
                latencies[way].extend(measured);
                if WAYS[way] == Way::Native {
                    groups.push(sizes);
                }
            }
        }
        let (mut at_once, mut in_bursts) = (Vec::new(), Vec::new());
        for sizes in groups {
            at_once.extend(fan_out(&[crowd.processes], crowd).await?);
            in_bursts.extend(fan_out(&sizes, crowd).await?);
        }
        if round > 0 {
            for (rounds, measured) in of_way.iter_mut().zip(latencies) {
                rounds.push(Latencies::of(measured));
            }
            bare.push(Latencies::of(at_once));
            bare_bursts.push(Latencies::of(in_bursts));
        }
    }
    scene.close().await;
    Ok(WAYS.into_iter().zip(&of_way).map(|(way, measured)| row(crowd, way, measured, &bare, &bare_bursts)).collect())
}

fn row(crowd: Crowd, way: Way, measured: &[Latencies], bare: &[Latencies], bare_bursts: &[Latencies]) -> AwaitRow {
    let of = |rounds: &[Latencies], quantile: f64| median(rounds.iter().map(|round| round.us(quantile)).collect());
    let ratios_bursts = measured.iter().zip(bare_bursts).map(|(way, bare)| way.us(0.99) / bare.us(0.99)).collect();
    let ratios: Vec<f64> = measured.iter().zip(bare).map(|(way, bare)| way.us(0.99) / bare.us(0.99)).collect();
    AwaitRow {
        waiters: crowd.waiters,
        processes: crowd.processes,
        way: way.name(),
        samples: measured.iter().map(|round| round.0.len()).sum(),
        p50_us: of(measured, 0.50),
        p99_us: of(measured, 0.99),
        bare_p50_us: of(bare, 0.50),
        bare_p99_us: of(bare, 0.99),
        bare_bursts_p99_us: of(bare_bursts, 0.99),
        ratio_bursts_p99: median(ratios_bursts),
        ratio_p99: median(ratios.clone()),
        ratio_p99_min: ratios.iter().copied().fold(f64::INFINITY, f64::min),
        ratio_p99_max: ratios.iter().copied().fold(0.0, f64::max),
    }
}

pub(super) fn table(rows: &[AwaitRow]) -> Table {
    let mut table = super::empty_table();
    table.set_header([
        "waiters",
        "processes",
        "way",
        "p50 µs",
        "p99 µs",
        "bare p50 µs",
        "bare p99 µs",
        "of bare p99 (min–max)",
        "bare bursts p99 µs",
        "of bursts' p99",
    ]);
    for row in rows {
        table.add_row([
            row.waiters.to_string(),
            row.processes.to_string(),
            row.way.to_owned(),
            format!("{:.0}", row.p50_us),
            format!("{:.0}", row.p99_us),
            format!("{:.0}", row.bare_p50_us),
            format!("{:.0}", row.bare_p99_us),
            format!("{:.2} ({:.2}–{:.2})", row.ratio_p99, row.ratio_p99_min, row.ratio_p99_max),
            format!("{:.0}", row.bare_bursts_p99_us),
            format!("{:.2}", row.ratio_bursts_p99),
        ]);
    }
    table
}

/// Times from commit to waiter of one round, ascending.
struct Latencies(Vec<Duration>);

impl Latencies {
    fn of(mut measured: Vec<Duration>) -> Self {
        measured.sort_unstable();
        Self(measured)
    }

    fn us(&self, quantile: f64) -> f64 {
        let last = self.0.len().saturating_sub(1) as f64;
        self.0.get((last * quantile).round() as usize).map_or(0.0, |latency| latency.as_secs_f64() * 1e6)
    }
}

/// A registry over a store, and the processes that are waited on.
struct Scene {
    crowd: Crowd,
    registry: ActorRegistry,
    watched: Arc<dyn ProcessRegistry>,
    parked: ProcessAwaiter,
    at_the_hub: ProcessAwaiter,
    reads: Arc<AtomicUsize>,
    stamps: Arc<CommitStamps>,
    /// Get their events through the log.
    processes: Vec<BareProcess>,
    /// Get their events from callers: others, so that no actor has to find out what came through the log.
    called: Vec<ProcessId>,
    /// How many events each of them has.
    called_events: u64,
}

impl Scene {
    async fn open(path: &Path, crowd: Crowd) -> anyhow::Result<Self> {
        let log = Arc::new(SqliteLog::open(path, SqliteOptions::default())?);
        let stamps = Arc::new(CommitStamps::default());
        let follower: Arc<dyn CommitFollower> = Arc::clone(&stamps) as Arc<dyn CommitFollower>;
        log.follow(Arc::downgrade(&follower));
        let mut processes = BareProcess::register_all(&log, 2 * crowd.processes).await?;
        let called = processes.split_off(crowd.processes).iter().map(|process| process.id().clone()).collect();
        let registry = ActorRegistry::start(log, RegistryOptions::default()).await?;
        let reads = Arc::new(AtomicUsize::new(0));
        let counted = |source| {
            Arc::new(Counted { registry: registry.clone(), reads: Arc::clone(&reads), source })
                as Arc<dyn ProcessRegistry>
        };
        let (watched, hub) = watch_process_registry(counted(None));
        let at_the_hub = ProcessAwaiter::new(Arc::clone(&watched), hub);
        let parked = ProcessAwaiter::attached(counted(registry.change_source()));
        Ok(Self { crowd, registry, watched, parked, at_the_hub, reads, stamps, processes, called, called_events: 0 })
    }

    /// Lets everybody wait, one event be committed for each process, and answers how long after its commit each ran.
    async fn run(&mut self, way: Way) -> anyhow::Result<(Vec<Duration>, Vec<usize>)> {
        let mut waiting = JoinSet::new();
        self.reads.store(0, Ordering::Relaxed);
        for waiter in 0..self.crowd.waiters {
            let number = waiter % self.crowd.processes;
            let (process_id, after) = match way {
                Way::Native => (self.processes[number].id(), self.processes[number].sequence()),
                Way::NativeCallers | Way::Hub => (&self.called[number], Sequence(self.called_events)),
            };
            let number = number_of(process_id).context("an id without a number")?;
            let wait = ProcessWait::event(process_id.clone(), line().event_type, after);
            let awaiter = match way {
                Way::Native | Way::NativeCallers => self.parked.clone(),
                Way::Hub => self.at_the_hub.clone(),
            };
            waiting.spawn(async move {
                let answer = awaiter.wait(&wait, None).await?;
                let ran = Instant::now();
                anyhow::ensure!(matches!(answer, WaitAnswer::Happened { .. }), "the wait ended with {answer:?}");
                Ok((number, ran))
            });
        }
        self.until_all_wait().await?;
        self.stamps.take_groups();
        let mut answers = Vec::new();
        match way {
            Way::Native => answers = self.append_to_the_log().await?,
            Way::NativeCallers => self.append_by_callers(Arc::new(self.registry.clone())).await?,
            Way::Hub => self.append_by_callers(Arc::clone(&self.watched)).await?,
        }
        let mut latencies = Vec::with_capacity(self.crowd.waiters);
        while let Some(ran) = waiting.join_next().await {
            let (number, ran) = ran??;
            let committed = self.stamps.committed(number).context("no commit was seen")?;
            latencies.push(ran.saturating_duration_since(committed));
        }
        for (process, answer) in self.processes.iter_mut().zip(answers) {
            process.stored(answer).await?;
        }
        Ok((latencies, self.stamps.take_groups()))
    }

    /// A wait for an event reads twice, the record and the event, and is at rest then.
    async fn until_all_wait(&self) -> anyhow::Result<()> {
        while self.reads.load(Ordering::Relaxed) < 2 * self.crowd.waiters {
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        self.crowd.settle().await
    }

    /// As many at once as the log takes, so that they stand in as few groups as it makes of them. Nobody reads the
    /// answers while waiters are woken.
    async fn append_to_the_log(&mut self) -> anyhow::Result<Vec<oneshot::Receiver<AppendResult>>> {
        let mut answers = Vec::with_capacity(self.processes.len());
        for burst in self.processes.chunks_mut(BURST) {
            let durable = Arc::new(AtomicUsize::new(0));
            for process in burst.iter_mut() {
                let (stamps, durable) = (Arc::clone(&self.stamps), Arc::clone(&durable));
                answers.push(process.append(move || {
                    stamps.durable();
                    durable.fetch_add(1, Ordering::Relaxed);
                })?);
            }
            while durable.load(Ordering::Relaxed) < burst.len() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        Ok(answers)
    }

    async fn append_by_callers(&mut self, registry: Arc<dyn ProcessRegistry>) -> anyhow::Result<()> {
        self.called_events += 1;
        let mut callers = JoinSet::new();
        for caller in 0..CALLERS.min(self.called.len()) {
            let ids: Vec<ProcessId> = self.called.iter().skip(caller).step_by(CALLERS).cloned().collect();
            let registry = Arc::clone(&registry);
            callers.spawn(async move {
                for id in ids {
                    registry.append_event(&id, line()).await?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(ended) = callers.join_next().await {
            ended??;
        }
        Ok(())
    }

    async fn close(self) {
        self.registry.shut_down(Duration::from_secs(30)).await;
    }
}

/// The same number of tasks, each waiting for a channel of its own. A burst begins when everybody of the one before has
/// run. The time counts from the beginning of the burst, as it does from the commit of a group.
async fn fan_out(groups: &[usize], crowd: Crowd) -> anyhow::Result<Vec<Duration>> {
    let mut latencies = Vec::with_capacity(crowd.waiters);
    let waiters_of_a_batch = crowd.waiters / crowd.processes;
    for &size in groups {
        let mut waiting = JoinSet::new();
        let mut senders = Vec::new();
        for _ in 0..size * waiters_of_a_batch {
            let (sender, receiver) = oneshot::channel::<Instant>();
            senders.push(sender);
            waiting.spawn(async move {
                let begun = receiver.await;
                (begun, Instant::now())
            });
        }
        crowd.settle().await?;
        let thread = std::thread::spawn(move || {
            let begun = Instant::now();
            for sender in senders {
                // A waiter that is gone no longer measures.
                let _ = sender.send(begun);
            }
        });
        while let Some(ran) = waiting.join_next().await {
            let (begun, ran) = ran?;
            latencies.push(ran.saturating_duration_since(begun.context("the thread has ended")?));
        }
        thread.join().map_err(|_| anyhow::anyhow!("the thread panicked"))?;
    }
    Ok(latencies)
}

/// A registry that counts its reads, and does not tell of its commits if it is to stand for a foreign one.
struct Counted {
    registry: ActorRegistry,
    reads: Arc<AtomicUsize>,
    source: Option<ChangeSource>,
}

#[async_trait]
impl ProcessRegistry for Counted {
    async fn execute(&self, process_id: &ProcessId, command: Command) -> Result<Receipt, RegistryError> {
        self.registry.execute(process_id, command).await
    }

    async fn execute_across(&self, command: RegistryCommand) -> Result<RegistryReceipt, RegistryError> {
        self.registry.execute_across(command).await
    }

    async fn query(&self, query: Query) -> Result<Answer, RegistryError> {
        let answer = self.registry.query(query).await;
        self.reads.fetch_add(1, Ordering::Relaxed);
        answer
    }

    fn durability_tier(&self) -> DurabilityTier {
        self.registry.durability_tier()
    }

    fn change_source(&self) -> Option<ChangeSource> {
        self.source.clone()
    }
}

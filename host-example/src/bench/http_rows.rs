//! `proctor bench http`: what it costs to ask a served host, beside the same asked of a registry in this process.
//!
//! The host is a second process on the same machine, asked over loopback by the HTTP client in this one: on few cores the two share
//! them, and the figures are of both together. Rows are measured interleaved, on stores beside each other.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use awaiter::{ProcessAwaiter, ProcessWait, WaitAnswer};
use clap::Args;
use comfy_table::Table;
use host_example::open_files;
use registry_actor::{
    domain::{ProcessId, ProcessInput, ProcessRegistration, RecoveryDisposition, Sequence},
    port::{ProcessRegistry, ProcessRegistryExt},
    worker::{ProcessExecutors, Worker},
};
use serde::Serialize;
use serde_json::json;
use tokio::{sync::mpsc, task::JoinSet, time::timeout};

use super::{
    http_host::{HttpHost, resident_bytes},
    measure::{Slice, closed_loop, median},
};
use crate::{
    command_executor::CommandExecutor,
    command_policy::CommandPolicy,
    command_process::{COMMAND_KIND, CommandProcess},
    host::Host,
    interrupt::Interrupts,
    store::OwnedStore,
};

/// How many commands run at the same time, here and there.
pub(super) const CONCURRENT_RUNS: usize = 4;

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often something is told to all streams.
const TELLINGS: usize = 5;

#[derive(Args, Debug)]
pub(super) struct HttpArgs {
    /// Interleaved rounds; ratios are the medians of those of each round.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// How long each row is measured in each round, in ms.
    #[arg(long, value_name = "MS", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    slice_ms: u64,
    /// How many streams are open at the same time.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u16).range(1..))]
    streams: u16,
    #[command(flatten)]
    pub(super) output: super::OutputArgs,
}

/// What is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Operation {
    /// A process and its lease.
    Get,
    /// The registration of work that nobody runs: one commit.
    Start,
    /// A command that does nothing, from its registration to its outcome.
    Run,
}

/// So many callers that ask for it one after the other.
#[derive(Clone, Copy, Debug)]
struct Load {
    operation: Operation,
    callers: usize,
}

const LOADS: [Load; 5] = [
    Load { operation: Operation::Get, callers: 1 },
    Load { operation: Operation::Get, callers: 64 },
    Load { operation: Operation::Start, callers: 1 },
    Load { operation: Operation::Start, callers: 64 },
    Load { operation: Operation::Run, callers: CONCURRENT_RUNS },
];

impl Operation {
    const fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Start => "start",
            Self::Run => "start + wait",
        }
    }
}

/// One line of the first table. All figures are medians over the rounds.
#[derive(Debug, Clone, Serialize)]
pub(super) struct RequestRow {
    operation: &'static str,
    callers: usize,
    rounds: usize,
    http_per_s: f64,
    http_p50_us: f64,
    http_p99_us: f64,
    direct_per_s: f64,
    direct_p50_us: f64,
    direct_p99_us: f64,
    ratio_per_s: f64,
    ratio_p50: f64,
}

/// The line of the second table: what one stream costs, and how soon it is told, beside a parked waiter.
#[derive(Debug, Clone, Serialize)]
pub(super) struct StreamRow {
    streams: usize,
    host_kib_per_stream: f64,
    told_p50_us: f64,
    told_p99_us: f64,
    direct_kib_per_waiter: f64,
    direct_told_p50_us: f64,
    direct_told_p99_us: f64,
    ratio_told_p50: f64,
}

/// Measures the rows.
pub(super) async fn measure(directory: &Path, args: &HttpArgs) -> anyhow::Result<(Vec<RequestRow>, StreamRow)> {
    // A stream is a connection at both ends.
    open_files::allow(usize::from(args.streams));
    let scratch = super::scratch_in(directory)?;
    let direct = Direct::open(&scratch.path().join("direct.db")).await?;
    let http = Http::open(&scratch.path().join("http.db"), args.streams).await?;
    let slice = Duration::from_millis(args.slice_ms);
    let mut rows = Vec::new();
    for load in LOADS {
        rows.push(measure_load(load, &http, &direct, args.rounds, slice).await?);
    }
    let streams = measure_streams(&http, &direct, usize::from(args.streams)).await?;
    direct.close().await;
    http.host.stop().await?;
    Ok((rows, streams))
}

async fn measure_load(
    load: Load,
    http: &Http,
    direct: &Direct,
    rounds: u16,
    slice: Duration,
) -> anyhow::Result<RequestRow> {
    http.run(load, slice / 4).await?;
    direct.run(load, slice / 4).await?;
    let (mut asked, mut called) = (Vec::new(), Vec::new());
    for round in 1..=usize::from(rounds) {
        super::progress(&format!("{} by {}", load.operation.name(), load.callers), round, usize::from(rounds));
        if round % 2 == 0 {
            asked.push(http.run(load, slice).await?);
            called.push(direct.run(load, slice).await?);
        } else {
            called.push(direct.run(load, slice).await?);
            asked.push(http.run(load, slice).await?);
        }
    }
    let of = |slices: &[Slice], figure: fn(&Slice) -> f64| median(slices.iter().map(figure).collect());
    let ratio = |figure: fn(&Slice) -> f64| {
        median(asked.iter().zip(&called).map(|(asked, called)| figure(asked) / figure(called)).collect())
    };
    let p50 = |slice: &Slice| slice.ack_us(0.50);
    let p99 = |slice: &Slice| slice.ack_us(0.99);
    Ok(RequestRow {
        operation: load.operation.name(),
        callers: load.callers,
        rounds: asked.len(),
        http_per_s: of(&asked, Slice::appends_per_s),
        http_p50_us: of(&asked, p50),
        http_p99_us: of(&asked, p99),
        direct_per_s: of(&called, Slice::appends_per_s),
        direct_p50_us: of(&called, p50),
        direct_p99_us: of(&called, p99),
        ratio_per_s: ratio(Slice::appends_per_s),
        ratio_p50: ratio(p50),
    })
}

/// A number that no other process of a store has.
fn next_number() -> u64 {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    NUMBER.fetch_add(1, Ordering::Relaxed)
}

/// A reason that was not given before: each makes an event of its own, and the process that is looked at has nobody who would end it.
fn new_reason() -> String {
    format!("reason {}", next_number())
}

/// The process that is looked at.
const KNOWN: &str = "known";

/// The served host, and who asks it.
#[derive(Clone)]
struct Http {
    host: Arc<HttpHost>,
    client: reqwest::Client,
}

impl Http {
    async fn open(store: &Path, streams: u16) -> anyhow::Result<Self> {
        let host = Arc::new(HttpHost::start(store, streams).await?);
        // Nothing between us and our own host.
        let client = reqwest::Client::builder().no_proxy().tcp_nodelay(true).build()?;
        let http = Self { host, client };
        http.start(KNOWN).await?;
        Ok(http)
    }

    fn asking(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("{}{path}", self.host.base())).bearer_auth(self.host.token())
    }

    async fn get(&self) -> anyhow::Result<()> {
        let answer = self.asking(reqwest::Method::GET, &format!("/processes/{KNOWN}")).send().await?;
        succeeded(answer).await?.bytes().await?;
        Ok(())
    }

    async fn post(&self, path: &str, body: &serde_json::Value) -> anyhow::Result<()> {
        let answer = self.asking(reqwest::Method::POST, path).json(body).send().await?;
        succeeded(answer).await?.bytes().await?;
        Ok(())
    }

    async fn start(&self, id: &str) -> anyhow::Result<()> {
        let body = json!({"process_id": id, "disposition": "externally_owned", "work": {"kind": "bench"}});
        self.post("/processes", &body).await
    }

    async fn run_command(&self, id: &str) -> anyhow::Result<()> {
        let body = json!({"process_id": id, "command": {"argv": ["true"], "cwd": "/"}});
        self.post("/processes", &body).await?;
        let path = format!("/processes/{id}/wait?within_ms={}", PATIENCE.as_millis());
        let answer = succeeded(self.asking(reqwest::Method::GET, &path).send().await?).await?;
        let answer: serde_json::Value = answer.json().await?;
        if answer["process"]["status"] != "completed" {
            bail!("the command did not complete: {answer}");
        }
        Ok(())
    }

    async fn ask(&self, operation: Operation) -> anyhow::Result<()> {
        match operation {
            Operation::Get => self.get().await,
            Operation::Start => self.start(&format!("start-{}", next_number())).await,
            Operation::Run => self.run_command(&format!("run-{}", next_number())).await,
        }
    }

    async fn run(&self, load: Load, duration: Duration) -> anyhow::Result<Slice> {
        let caller = |_| {
            let http = self.clone();
            move || {
                let http = http.clone();
                async move { http.ask(load.operation).await }
            }
        };
        closed_loop((0..load.callers).map(caller).collect(), duration).await
    }

    /// Follows the known process until it is told no more.
    async fn follow(self, told: mpsc::UnboundedSender<Instant>) -> anyhow::Result<()> {
        let path = format!("/processes/{KNOWN}/events/stream");
        let mut answer = succeeded(self.asking(reqwest::Method::GET, &path).send().await?).await?;
        // It is open now.
        told.send(Instant::now())?;
        let mut text = Vec::new();
        while let Some(chunk) = answer.chunk().await? {
            text.extend_from_slice(&chunk);
            while let Some(end) = text.windows(2).position(|pair| pair == b"\n\n") {
                let told_of_event = text.starts_with(b"event: event\n");
                text.drain(..end + 2);
                if told_of_event {
                    told.send(Instant::now())?;
                }
            }
        }
        Ok(())
    }
}

/// The answer, or the problem that it is.
async fn succeeded(answer: reqwest::Response) -> anyhow::Result<reqwest::Response> {
    if answer.status().is_success() {
        return Ok(answer);
    }
    bail!("{}: {}", answer.url().path().to_owned(), answer.text().await?)
}

/// The same without HTTP: the registry and the worker of a host in this process.
#[derive(Clone)]
struct Direct {
    host: Host,
    worker: Worker,
    awaiter: ProcessAwaiter,
    known: ProcessId,
}

impl Direct {
    async fn open(store: &Path) -> anyhow::Result<Self> {
        let store = OwnedStore::take(store).map_err(crate::failure::Failure::from).map_err(anyhow::Error::msg)?;
        let host = Host::start(store, "bench").await.map_err(anyhow::Error::msg)?;
        let mut options = host.worker_options();
        options.concurrent_runs = CONCURRENT_RUNS;
        let executors = ProcessExecutors::default()
            .with(COMMAND_KIND, CommandExecutor::of_served(Interrupts::none(), CommandPolicy::new(None)));
        let registry = Arc::new(host.registry.clone()) as Arc<dyn ProcessRegistry>;
        let worker = Worker::start(Arc::clone(&registry), executors, options).await?;
        let direct = Self { host, worker, awaiter: ProcessAwaiter::attached(registry), known: ProcessId::new(KNOWN)? };
        direct.start(KNOWN).await?;
        Ok(direct)
    }

    async fn close(&self) {
        self.worker.shut_down(PATIENCE).await;
        self.host.shut_down().await;
    }

    async fn get(&self) -> anyhow::Result<()> {
        self.host.registry.get_process(&self.known).await?.context("the process is there")?;
        self.host.registry.get_process_lease(&self.known).await?;
        Ok(())
    }

    async fn start(&self, id: &str) -> anyhow::Result<()> {
        let input = ProcessInput::new("bench", serde_json::Value::Null);
        let work = ProcessRegistration::new(ProcessId::new(id)?, input, RecoveryDisposition::ExternallyOwned);
        self.host.registry.register_process(work).await?;
        Ok(())
    }

    async fn run_command(&self, id: &str) -> anyhow::Result<()> {
        let id = ProcessId::new(id)?;
        let command = CommandProcess {
            argv: vec!["true".to_owned()],
            cwd: "/".to_owned(),
            env: Default::default(),
            env_names: Vec::new(),
            max_output_bytes: 1 << 20,
            time_limit_ms: None,
        };
        let registration = command.registration(id.clone(), RecoveryDisposition::OwnerBound);
        self.host.registry.register_process(registration).await?;
        match self.awaiter.wait(&ProcessWait::outcome(id), Some(PATIENCE)).await? {
            WaitAnswer::Completed { record } if record.status.label() == "completed" => Ok(()),
            answer => bail!("the command did not complete: {answer:?}"),
        }
    }

    async fn call(&self, operation: Operation) -> anyhow::Result<()> {
        match operation {
            Operation::Get => self.get().await,
            Operation::Start => self.start(&format!("start-{}", next_number())).await,
            Operation::Run => self.run_command(&format!("run-{}", next_number())).await,
        }
    }

    async fn run(&self, load: Load, duration: Duration) -> anyhow::Result<Slice> {
        let caller = |_| {
            let direct = self.clone();
            move || {
                let direct = direct.clone();
                async move { direct.call(load.operation).await }
            }
        };
        closed_loop((0..load.callers).map(caller).collect(), duration).await
    }

    async fn tell(&self) -> anyhow::Result<()> {
        self.host.registry.request_process_cancel(&self.known, Some(new_reason())).await?;
        Ok(())
    }

    /// Waits for one event of the known process after the other.
    async fn follow(self, told: mpsc::UnboundedSender<Instant>) -> anyhow::Result<()> {
        told.send(Instant::now())?;
        let mut after = Sequence(0);
        loop {
            match self.awaiter.wait(&ProcessWait::any_event(self.known.clone(), after), None).await? {
                WaitAnswer::Happened { event } => {
                    told.send(Instant::now())?;
                    after = event.sequence;
                }
                answer => bail!("a wait ended with {answer:?}"),
            }
        }
    }
}

/// What a crowd of followers costs, and how soon they are told.
struct Crowd {
    bytes: f64,
    told_us: Vec<u32>,
}

impl Crowd {
    fn told_us(&self, quantile: f64) -> f64 {
        let last = self.told_us.len().saturating_sub(1) as f64;
        self.told_us.get((last * quantile).round() as usize).copied().map_or(0.0, f64::from)
    }
}

async fn measure_streams(http: &Http, direct: &Direct, streams: usize) -> anyhow::Result<StreamRow> {
    let pid = http.host.pid();
    let over_http = crowd(
        streams,
        || resident_bytes(pid),
        |told| http.clone().follow(told),
        || async { http.post(&format!("/processes/{KNOWN}/cancel"), &json!({"reason": new_reason()})).await },
    )
    .await?;
    let directly =
        crowd(streams, || resident_bytes(std::process::id()), |told| direct.clone().follow(told), || direct.tell())
            .await?;
    Ok(StreamRow {
        streams,
        host_kib_per_stream: over_http.bytes / 1024.0 / streams as f64,
        told_p50_us: over_http.told_us(0.50),
        told_p99_us: over_http.told_us(0.99),
        direct_kib_per_waiter: directly.bytes / 1024.0 / streams as f64,
        direct_told_p50_us: directly.told_us(0.50),
        direct_told_p99_us: directly.told_us(0.99),
        ratio_told_p50: over_http.told_us(0.50) / directly.told_us(0.50),
    })
}

/// Lets so many follow, and tells them something some times, each time when all have heard of the one before.
async fn crowd<F, T>(
    followers: usize,
    resident: impl Fn() -> anyhow::Result<u64>,
    follow: impl Fn(mpsc::UnboundedSender<Instant>) -> F,
    tell: impl Fn() -> T,
) -> anyhow::Result<Crowd>
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
    T: Future<Output = anyhow::Result<()>>,
{
    let (sender, mut told) = mpsc::unbounded_channel();
    let before = resident()?;
    let mut all = JoinSet::new();
    for _ in 0..followers {
        all.spawn(follow(sender.clone()));
    }
    heard_by(followers, &mut told, &mut all).await?;
    let mut told_us = Vec::new();
    for _ in 0..TELLINGS {
        let begun = Instant::now();
        tell().await?;
        let heard = heard_by(followers, &mut told, &mut all).await?;
        told_us.extend(heard.iter().map(|at| u32::try_from(at.duration_since(begun).as_micros()).unwrap_or(u32::MAX)));
    }
    let bytes = resident()?.saturating_sub(before) as f64;
    all.shutdown().await;
    told_us.sort_unstable();
    Ok(Crowd { bytes, told_us })
}

/// When each of them heard.
async fn heard_by(
    followers: usize,
    told: &mut mpsc::UnboundedReceiver<Instant>,
    all: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<Vec<Instant>> {
    let mut heard = Vec::with_capacity(followers);
    let hearing = async {
        while heard.len() < followers {
            tokio::select! {
                biased;
                at = told.recv() => heard.extend(at),
                Some(ended) = all.join_next() => {
                    ended??;
                    bail!("a stream ended");
                }
            }
        }
        Ok(())
    };
    timeout(PATIENCE, hearing).await.context("not all were told in time")??;
    Ok(heard)
}

/// The first table.
pub(super) fn request_table(rows: &[RequestRow]) -> Table {
    let mut table = super::empty_table();
    table.set_header([
        "what",
        "callers",
        "http/s",
        "p50 µs",
        "p99 µs",
        "direct/s",
        "direct p50 µs",
        "direct p99 µs",
        "http/s of direct",
        "p50 of direct",
    ]);
    for row in rows {
        table.add_row([
            row.operation.to_owned(),
            row.callers.to_string(),
            format!("{:.0}", row.http_per_s),
            format!("{:.0}", row.http_p50_us),
            format!("{:.0}", row.http_p99_us),
            format!("{:.0}", row.direct_per_s),
            format!("{:.0}", row.direct_p50_us),
            format!("{:.0}", row.direct_p99_us),
            format!("{:.2}", row.ratio_per_s),
            format!("{:.1}", row.ratio_p50),
        ]);
    }
    table
}

/// The second table.
pub(super) fn stream_table(rows: &[StreamRow]) -> Table {
    let mut table = super::empty_table();
    table.set_header([
        "streams",
        "host KiB each",
        "told p50 µs",
        "told p99 µs",
        "direct KiB each",
        "direct p50 µs",
        "direct p99 µs",
        "p50 of direct",
    ]);
    for row in rows {
        table.add_row([
            row.streams.to_string(),
            format!("{:.1}", row.host_kib_per_stream),
            format!("{:.0}", row.told_p50_us),
            format!("{:.0}", row.told_p99_us),
            format!("{:.1}", row.direct_kib_per_waiter),
            format!("{:.0}", row.direct_told_p50_us),
            format!("{:.0}", row.direct_told_p99_us),
            format!("{:.1}", row.ratio_told_p50),
        ]);
    }
    table
}

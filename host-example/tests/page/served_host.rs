//! A host that serves a store of its own, and that can be killed.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use registry_actor::{
    actor::{ActorRegistry, RegistryOptions},
    domain::ProcessRegistration,
    log::{SqliteLog, SqliteOptions},
    port::ProcessRegistryExt,
};
use tempfile::TempDir;

/// How many registrations are under way at the same time: they share commits.
const TOGETHER: usize = 512;

/// A host.
pub(crate) struct ServedHost {
    directory: TempDir,
    child: Option<Child>,
    address: String,
    /// The link that is good once.
    pub(crate) link: String,
}

impl ServedHost {
    /// A host of a store in which this was done before.
    pub(crate) fn prepared(prepare: impl AsyncFnOnce(&ActorRegistry)) -> Self {
        let directory = TempDir::new().expect("a directory");
        let mut host = Self { directory, child: None, address: "127.0.0.1:0".to_owned(), link: String::new() };
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let log = Arc::new(SqliteLog::open(host.store(), SqliteOptions::default()).expect("a store"));
            let registry = ActorRegistry::start(log, RegistryOptions::default()).await.expect("a registry");
            prepare(&registry).await;
            registry.shut_down(Duration::from_secs(60)).await;
        });
        host.start();
        host
    }

    /// A host of a store that holds these processes.
    pub(crate) fn with(processes: Vec<ProcessRegistration>) -> Self {
        Self::prepared(async |registry| register(registry, processes).await)
    }

    fn store(&self) -> PathBuf {
        self.directory.path().join("store.db")
    }

    /// Starts it, where it was before if it was.
    pub(crate) fn start(&mut self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_proctor"));
        command
            .args(["serve", "--listen", &self.address, "--store"])
            .arg(self.store())
            .args(["--config", "/dev/null"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("a host");
        let mut lines = BufReader::new(child.stderr.take().expect("its words")).lines();
        let link = loop {
            let line = lines.next().expect("a host that comes up").expect("a line");
            if let Some((_, rest)) = line.split_once("page at ") {
                break rest.split(' ').next().expect("a link").to_owned();
            }
        };
        // What it says further is not needed, but somebody has to take it.
        thread::spawn(move || lines.for_each(drop));
        self.address = link.split('/').nth(2).expect("an address").to_owned();
        self.link = link;
        self.child = Some(child);
    }

    /// Kills it with SIGKILL.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("a host that lives");
            child.wait().expect("its end");
        }
    }

    /// The page.
    pub(crate) fn url(&self, rest: &str) -> String {
        format!("http://{}/{rest}", self.address)
    }
}

impl Drop for ServedHost {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Registers processes, many at a time.
pub(crate) async fn register(registry: &ActorRegistry, processes: Vec<ProcessRegistration>) {
    let mut under_way = tokio::task::JoinSet::new();
    for process in processes {
        if under_way.len() >= TOGETHER {
            under_way.join_next().await.expect("a task").expect("a registration");
        }
        let registry = registry.clone();
        under_way.spawn(async move { registry.register_process(process).await.expect("a registration") });
    }
    while let Some(registered) = under_way.join_next().await {
        registered.expect("a registration");
    }
}

//! `proctor serve`: the host that stays.
//!
//! It owns the order in which the host comes up and goes down. It does not know what is asked of it.

pub(crate) mod config;
pub(crate) mod credentials;
mod listener;
mod log_output;

use std::{
    fs::{self, DirBuilder},
    io::IsTerminal,
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::Path,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use host_example::open_files;
use registry_actor::{
    actor::SystemClock,
    port::ProcessRegistry,
    retention::{NoProjection, Retain, Retention, RetentionPolicy, RetentionRule, RetentionSchedule},
    worker::{ProcessExecutors, Worker},
};
use sd_notify::NotifyState;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::task::TaskTracker;

use self::{
    config::{OnStop, ServeConfig},
    credentials::Credentials,
    listener::{LocalListener, WebListener},
};
use crate::{
    api::{self, Api, login, origin::HostNames},
    client::HostClient,
    command_executor::CommandExecutor,
    command_process::COMMAND_KIND,
    failure::{Failure, FailureKind},
    host::{DRAIN_PATIENCE, Host},
    interrupt::Interrupts,
    notice::say,
    process_control::{OWNER_PATIENCE, OWNER_PAUSE},
    recovery::worker_failure,
    store::{OwnedStore, TakeError},
};

pub(crate) use config::ServeArgs;
pub(crate) use log_output::start_logging;

/// How long the end of what runs may take where somebody hurries.
const HURRIED_PATIENCE: Duration = Duration::from_secs(5);

/// Serves until it is asked to stop.
///
/// # Errors
/// When it cannot come up.
pub(crate) async fn run(args: ServeArgs) -> Result<ExitCode, Failure> {
    let config = args.config()?;
    if args.print_config {
        let text = toml::to_string(&config).map_err(|error| Failure::new(FailureKind::Software, error.to_string()))?;
        print!("{text}");
        return Ok(ExitCode::SUCCESS);
    }
    start_logging(config.log_format);
    api::metrics::start_collecting()?;
    let interrupts = Interrupts::listen()
        .map_err(|error| Failure::new(FailureKind::System, format!("cannot handle signals: {error}")))?;
    prepare_place(&config.store)?;
    let store = take(&config).await?;
    let host = Host::start(store, "serve").await?;
    let served = serve(&host, config, &interrupts).await;
    host.shut_down().await;
    tracing::info!("the host has stopped");
    served.map(|()| ExitCode::SUCCESS)
}

/// Makes the directory of a store, and looks whose store it is: another user's would have us start whatever he has put into it.
fn prepare_place(store: &Path) -> Result<(), Failure> {
    if let Some(directory) = store.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(|error| {
            let line = format!("cannot create the directory {}: {error}", directory.display());
            Failure::new(FailureKind::CannotCreate, line)
        })?;
    }
    let own = rustix::process::geteuid().as_raw();
    match fs::metadata(store) {
        Ok(found) if found.uid() != own => {
            let line =
                format!("store {} belongs to the user {}, and this host is of {own}", store.display(), found.uid());
            Err(Failure::new(FailureKind::NoPermission, line))
        }
        _ => Ok(()),
    }
}

/// Takes the store. A verb may have it for a moment; another host that listens has it for long.
async fn take(config: &ServeConfig) -> Result<OwnedStore, Failure> {
    let until = Instant::now() + OWNER_PATIENCE;
    loop {
        match OwnedStore::take(&config.store) {
            Err(TakeError::Owned { .. })
                if Instant::now() < until && matches!(HostClient::at_socket(&config.socket), Ok(None)) =>
            {
                sleep(OWNER_PAUSE).await;
            }
            taken => return Ok(taken?),
        }
    }
}

async fn serve(host: &Host, mut config: ServeConfig, interrupts: &Interrupts) -> Result<(), Failure> {
    let credentials = Credentials::load_or_create(&config.store)?;
    open_files::allow(2 * config.max_connections);
    // The doors before the commands: a host that cannot be reached runs nothing.
    let web = WebListener::bind(config.listen, config.max_connections).await?;
    let local = LocalListener::bind(&config.socket, config.max_connections)?;
    let address = web.address();
    config.listen = address;
    let worker = start_worker(host, &config, interrupts).await?;
    let retention = config.retain.map(|age| start_retention(host, age.0)).transpose()?;
    let (stopping, is_stopping) = watch::channel(false);
    let names = HostNames::new(address, &config.allow_host);
    let api = Api::new(host.clone(), worker.clone(), credentials, config, is_stopping.clone());
    let router = api::router(&api);
    let serving = TaskTracker::new();
    serving.spawn(web.serve(api::for_web(router.clone(), names), is_stopping.clone()));
    serving.spawn(local.serve(api::for_local_peers(router), is_stopping));
    serving.close();
    announce(&api, address)?;
    notify(&[NotifyState::Ready]);
    tracing::info!(store = %api.config.store.display(), %address, "the host serves");

    let signal = tokio::select! {
        signal = interrupts.first() => signal,
        () = host.registry_ended() => {
            // Nothing can be stored any more: what runs is ended, and the next host finds it as it is in the store.
            tracing::error!("the registry has given up, and the host goes down with it");
            stopping.send_replace(true);
            drop(timeout(api.config.stop_patience.0, worker.shut_down(Duration::ZERO)).await);
            return Err(Failure::new(FailureKind::Software, "the registry has given up; its log says why".to_owned()));
        }
    };
    say(format_args!("stopping after {}; once more to hurry", signal.name()));
    tracing::info!(signal = signal.name(), "the host stops");
    notify(&[NotifyState::Stopping]);
    stopping.send_replace(true);
    tokio::select! {
        () = stop(&api, &worker, retention.as_ref(), &serving) => {}
        // The commands hear of it too and are killed at once; that nothing of them is left has to be seen to as well.
        () = interrupts.second() => worker.shut_down(HURRIED_PATIENCE).await,
    }
    Ok(())
}

/// Ends what runs and what is being asked, as far as the patience lasts.
async fn stop(api: &Api, worker: &Worker, retention: Option<&Retention>, serving: &TaskTracker) {
    let until = Instant::now() + api.config.stop_patience.0;
    if api.config.on_stop == OnStop::Wait {
        worker.begin_no_more();
        drop(timeout_at(until, worker.idle()).await);
    }
    // Each command has its grace, however long others were waited for.
    let left = until.saturating_duration_since(Instant::now()).max(DRAIN_PATIENCE);
    if let Err(error) = worker.drain_owner_bound_work(left).await {
        tracing::warn!(%error, "what is bound to this host is left to the next one");
    }
    worker.shut_down(until.saturating_duration_since(Instant::now())).await;
    if let Some(retention) = retention {
        retention.stop().await;
    }
    if timeout_at(until, serving.wait()).await.is_err() {
        tracing::warn!("connections did not end in time and are closed");
    }
}

async fn start_worker(host: &Host, config: &ServeConfig, interrupts: &Interrupts) -> Result<Worker, Failure> {
    let mut options = host.worker_options();
    options.concurrent_runs = config.concurrent_runs;
    let executor = CommandExecutor::of_served(interrupts.clone(), config.command_policy());
    let executors = ProcessExecutors::default().with(COMMAND_KIND, executor);
    let registry = Arc::new(host.registry.clone()) as Arc<dyn ProcessRegistry>;
    Worker::start(registry, executors, options).await.map_err(worker_failure)
}

fn start_retention(host: &Host, age: Duration) -> Result<Retention, Failure> {
    let retain = Retain::ForMs(u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
    let policy = RetentionPolicy::new([RetentionRule::of_all(retain)])
        .map_err(|error| Failure::new(FailureKind::Usage, error.to_string()))?;
    let registry = Arc::new(host.registry.clone()) as Arc<dyn ProcessRegistry>;
    let schedule = RetentionSchedule::default();
    Ok(Retention::start(registry, policy, schedule, Arc::new(SystemClock), Arc::new(NoProjection)))
}

/// Tells people where the host is, and how a browser comes in. What is not a terminal may be kept, and read by others: there is no link
/// in it.
fn announce(api: &Api, address: SocketAddr) -> Result<(), Failure> {
    say(format_args!("store {}", api.config.store.display()));
    say(format_args!("command line at {}", api.config.socket.display()));
    say(format_args!("page at http://{address}/"));
    if !std::io::stderr().is_terminal() {
        say("`proctor open` prints a link by which a browser comes in");
        return Ok(());
    }
    let no_randomness = |error| Failure::new(FailureKind::System, format!("no randomness for a link: {error}"));
    if let Some(code) = api.login_codes.create(std::time::Instant::now()).map_err(no_randomness)? {
        say(format_args!("come in by http://{address}{} (good once, for ten minutes)", login::path_of(&code)));
    }
    Ok(())
}

/// Tells systemd, where it is there.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager was not told");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Called {
        #[command(flatten)]
        args: ServeArgs,
    }

    /// Whoever prepares a store, or its tokens, where another user's host will look for them, must not be served.
    #[test]
    fn a_store_and_tokens_of_another_user_are_not_believed() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = directory.path().join("s.db");
        assert!(prepare_place(&store).is_ok());
        drop(Credentials::load_or_create(&store).expect("tokens"));
        fs::write(&store, "").expect("a file");
        assert!(prepare_place(&store).is_ok());
        if !rustix::process::geteuid().is_root() {
            // Nobody else can give files away.
            return;
        }
        for path in [store.clone(), Credentials::path(&store)] {
            std::os::unix::fs::chown(&path, Some(65_534), None).expect("another owner");
        }
        let foreign_store = prepare_place(&store).expect_err("not ours").to_string();
        assert!(foreign_store.contains("belongs to the user 65534"), "{foreign_store}");
        let foreign_tokens = Credentials::load_or_create(&store).err().expect("not ours").to_string();
        assert!(foreign_tokens.contains("belong to the user 65534"), "{foreign_tokens}");
    }

    #[tokio::test]
    async fn a_host_whose_registry_has_ended_fails() {
        let _alone = api::metrics::ONE_STORE.lock().await;
        let directory = tempfile::tempdir().expect("a directory");
        let store = directory.path().join("s.db");
        let called = ["serve", "--listen", "127.0.0.1:0", "--store", store.to_str().expect("text")];
        let config = <Called as clap::Parser>::parse_from(called).args.config().expect("settings");
        let host = Host::start(OwnedStore::take(&store).expect("a store"), "serve").await.expect("a host");
        let interrupts = Interrupts::listen().expect("signals");
        let root = host.registry.root();
        let served = async {
            let served = serve(&host, config, &interrupts);
            tokio::pin!(served);
            // It is up once it takes connections at its socket, and a host that is up does not end by itself.
            let up = async {
                while tokio::net::UnixStream::connect(directory.path().join("s.db.sock")).await.is_err() {
                    tokio::task::yield_now().await;
                }
            };
            tokio::select! {
                _ = &mut served => panic!("it ended before its registry"),
                () = up => {}
            }
            root.kill();
            served.await
        };
        let served = timeout(Duration::from_secs(90), served).await.expect("it does not wait for a signal");
        let failure = served.expect_err("it did not stop because it was asked to");
        assert_eq!(failure.kind().code(), 70, "{failure}");
        assert!(host.registry_has_ended());
        host.shut_down().await;
    }
}

//! Whether the host lives, and whether it takes requests: the only answers without a token.

use std::sync::Arc;

use axum::{Router, extract::State, http::StatusCode, routing::get};

use super::{Api, problem::Problem};
use crate::host::Host;

/// The routes.
pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new().route("/healthz", get(|| async { "ok\n" })).route("/readyz", get(ready))
}

async fn ready(State(api): State<Arc<Api>>) -> Result<&'static str, Problem> {
    if *api.stopping.borrow() {
        return Err(unready("stopping", "this host is going down"));
    }
    can_store(&api.host).map(|()| "ready\n")
}

/// Whether a command would be carried out now.
fn can_store(host: &Host) -> Result<(), Problem> {
    if host.registry_has_ended() {
        return Err(unready("registry_ended", "the registry of this host has given up, and the host goes down"));
    }
    host.store_outage().map_or(Ok(()), |reason| Err(unready("store_takes_nothing", reason).retry_after(1)))
}

fn unready(code: &str, detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, detail)
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicBool, Ordering},
        time::{Duration, Instant},
    };

    use registry_actor::{
        domain::{Command, ProcessId, ProcessInput, ProcessRegistration, RecoveryDisposition},
        log::{FaultVerdict, SqliteLog, SqliteOptions, WriterFaults, WriterPoint},
        port::{ProcessRegistry, RegistryError},
    };

    use super::{
        super::metrics::{ONE_STORE, rendered, start_collecting, value_in},
        *,
    };
    use crate::store::OwnedStore;

    /// A disk on which nothing can be synced, for as long as it is full.
    #[derive(Debug, Default)]
    struct Disk {
        is_full: AtomicBool,
    }

    impl WriterFaults for Disk {
        fn reached(&self, point: WriterPoint) -> FaultVerdict {
            let fails = matches!(point, WriterPoint::BeforeCommit | WriterPoint::Reopen);
            if fails && self.is_full.load(Ordering::SeqCst) { FaultVerdict::Fail } else { FaultVerdict::Pass }
        }
    }

    fn number(name: &str) -> f64 {
        value_in(&rendered().expect("numbers"), name)
    }

    async fn until(what: &str, holds: impl Fn() -> bool) {
        let bound = Instant::now() + Duration::from_secs(90);
        while !holds() {
            assert!(Instant::now() < bound, "{what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn a_store_that_takes_nothing_is_seen_and_named_until_it_is_whole_again() {
        let _alone = ONE_STORE.lock().await;
        start_collecting().expect("nobody else collects");
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("s.db");
        let disk = Arc::new(Disk::default());
        let options = SqliteOptions::default().with_faults(disk.clone());
        let log = Arc::new(SqliteLog::open(&path, options).expect("a store"));
        let host = Host::start(OwnedStore { path, log }, "serve").await.expect("a host");
        let execute = async |id: &str| {
            let id = ProcessId::new(id).expect("an id");
            let input = ProcessInput::new("test", serde_json::json!({}));
            let registration = ProcessRegistration::new(id.clone(), input, RecoveryDisposition::ExternallyOwned);
            host.registry.execute(&id, Command::Register { registration: Box::new(registration) }).await
        };
        execute("before").await.expect("stored");
        assert_eq!(can_store(&host), Ok(()));
        until("the store takes what it is given", || number("proctor_store_writable") == 1.0).await;

        disk.is_full.store(true, Ordering::SeqCst);
        let error = execute("meanwhile").await.expect_err("the disk is full");
        let (RegistryError::OutcomeUnknown { reason, .. } | RegistryError::NotStored { reason }) = &error else {
            panic!("{error}");
        };
        assert!(reason.contains("let the commit fail"), "the store is named: {reason}");
        let problem = can_store(&host).expect_err("not ready");
        assert_eq!((problem.status, problem.code()), (503, "store_takes_nothing"));
        assert!(problem.detail.contains("let the commit fail"), "{}", problem.detail);
        assert_eq!(number("proctor_store_writable"), 0.0);
        assert_eq!(number("proctor_writer_queue_depth"), 0.0, "what waited was answered");

        disk.is_full.store(false, Ordering::SeqCst);
        until("it heals", || can_store(&host).is_ok()).await;
        until("and says so", || number("proctor_store_writable") == 1.0).await;
        execute("after").await.expect("stored");
        host.shut_down().await;
        assert_eq!(can_store(&host).expect_err("over").code(), "registry_ended");
    }
}

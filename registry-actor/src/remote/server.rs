//! The server: a socket, and the connections that were accepted on it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::select;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::connection::{Service, turn_away};
use super::forwarder::Forwarder;
use super::message::Goodbye;
use super::options::ServerOptions;
use super::socket::{BoundSocket, ServeError};
use crate::domain::StoreSession;
use crate::port::{CommitListener, ProcessRegistry};

/// How long no connection is accepted after the system had none to give, for want of descriptors for example.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves a registry on a Unix socket. It does not own the registry: stop the server first, then shut the registry down.
///
/// Dropped, it accepts nothing any more, removes the socket, and lets what is under way be answered in the background;
/// [`stop`](Self::stop) waits for that.
pub struct RegistryServer {
    path: PathBuf,
    stopping: CancellationToken,
    cutting: CancellationToken,
    accepting: Option<JoinHandle<StopReport>>,
}

/// How a stop went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StopReport {
    /// Connections whose requests were not all answered in time. What they had under way is carried out or not; their clients
    /// know that they do not know.
    pub connections_cut: usize,
}

impl RegistryServer {
    /// Serves a registry whose store is open in this session, on the current tokio runtime.
    ///
    /// The socket has the permissions 0600 from its first instant. One that a dead server left is replaced; a file
    /// `PATH.lock` beside it says which server lives, and stays.
    ///
    /// # Errors
    /// [`ServeError`].
    pub async fn start(
        path: impl AsRef<Path>,
        registry: Arc<dyn ProcessRegistry>,
        session: StoreSession,
        options: ServerOptions,
    ) -> Result<Self, ServeError> {
        let path = path.as_ref().to_owned();
        let (bound, listener) = BoundSocket::bind(&path)?;
        let failed = |error: std::io::Error| ServeError::Io { path: path.clone(), reason: error.to_string() };
        let listener = UnixListener::from_std(listener).map_err(failed)?;
        let forwarder = registry.change_source().map(|source| {
            let forwarder = Arc::new(Forwarder::new());
            source.attach(&(Arc::clone(&forwarder) as Arc<dyn CommitListener>));
            forwarder
        });
        let stopping = CancellationToken::new();
        let cutting = CancellationToken::new();
        let service = Service { registry, session, options, forwarder, stopping: stopping.clone() };
        let accepting = tokio::spawn(accept(listener, bound, Arc::new(service), cutting.clone()));
        Ok(Self { path, stopping, cutting, accepting: Some(accepting) })
    }

    /// Where it is served.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Accepts nothing and reads nothing any more, answers what is under way, and tells its clients. Connections that are not
    /// done after this time are cut. Dropped, it goes on in the background.
    pub async fn stop(mut self, patience: Duration) -> StopReport {
        self.stopping.cancel();
        let Some(mut accepting) = self.accepting.take() else { return StopReport::default() };
        if let Ok(ended) = tokio::time::timeout(patience, &mut accepting).await {
            return ended.unwrap_or_default();
        }
        self.cutting.cancel();
        accepting.await.unwrap_or_default()
    }
}

impl Drop for RegistryServer {
    fn drop(&mut self) {
        self.stopping.cancel();
    }
}

impl fmt::Debug for RegistryServer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("RegistryServer").field("path", &self.path).finish_non_exhaustive()
    }
}

async fn accept(
    listener: UnixListener,
    bound: BoundSocket,
    service: Arc<Service>,
    cutting: CancellationToken,
) -> StopReport {
    // Tasks of these sets end with them.
    let mut forwarding = JoinSet::new();
    if let Some(forwarder) = service.forwarder.clone() {
        forwarding.spawn(async move { forwarder.run().await });
    }
    let mut connections = JoinSet::new();
    let limit = service.options.connections.max(1);
    loop {
        let accepted = select! {
            biased;
            () = service.stopping.cancelled() => break,
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, _)) if connections.len() < limit => {
                connections.spawn(Arc::clone(&service).serve(stream));
            }
            Ok((stream, _)) => turn_away(stream, Goodbye::TooManyConnections { limit }),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // Another server may take the path now.
    drop(listener);
    drop(bound);
    let drained = async { while connections.join_next().await.is_some() {} };
    let is_drained = select! {
        () = drained => true,
        () = cutting.cancelled() => false,
    };
    let connections_cut = if is_drained { 0 } else { connections.len() };
    connections.shutdown().await;
    StopReport { connections_cut }
}

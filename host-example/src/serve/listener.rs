//! Where requests come in: a TCP port, and a Unix socket for the user of this host.
//!
//! It owns connections: how many there are, how long a request may take to say what it wants, and how they end when the host does. It
//! does not know what is asked.

use std::{
    fs,
    future::Future,
    io,
    net::SocketAddr,
    os::unix::{
        fs::{FileTypeExt, PermissionsExt},
        net::UnixStream as BlockingUnixStream,
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::{Semaphore, watch},
    time::sleep,
};
use tokio_util::task::TaskTracker;

use crate::failure::{Failure, FailureKind};

/// How long a client may take to send the head of a request.
const HEAD_PATIENCE: Duration = Duration::from_secs(10);

/// The largest head of a request, in bytes, and what is buffered of a body.
const HEAD_BYTES: usize = 64 * 1024;

/// The pause after a connection could not be taken: we are out of file descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A TCP port.
#[derive(Debug)]
pub(super) struct WebListener {
    listener: TcpListener,
    address: SocketAddr,
    room: Arc<Semaphore>,
}

/// A Unix socket. Its file goes with it.
#[derive(Debug)]
pub(super) struct LocalListener {
    listener: UnixListener,
    path: PathBuf,
    room: Arc<Semaphore>,
}

impl WebListener {
    /// Takes the port.
    ///
    /// # Errors
    /// When somebody has it, or we may not.
    pub(super) async fn bind(address: SocketAddr, connections: usize) -> Result<Self, Failure> {
        let failed = |error: io::Error| {
            let hint = if error.kind() == io::ErrorKind::AddrInUse { "; `--listen` takes another port" } else { "" };
            Failure::new(FailureKind::Unavailable, format!("cannot listen on {address}: {error}{hint}"))
        };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address, room: Arc::new(Semaphore::new(connections)) })
    }

    /// Where it is, its true port included.
    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the host stops, and then what is under way.
    pub(super) async fn serve(self, router: Router, stopping: watch::Receiver<bool>) {
        let accept = || async {
            let (stream, _) = self.listener.accept().await?;
            // A small answer that waits for more of it helps nobody.
            stream.set_nodelay(true)?;
            Ok(stream)
        };
        serve(accept, self.room, router, stopping).await;
    }
}

impl LocalListener {
    /// Takes the socket. What a dead host has left of it is replaced.
    ///
    /// # Errors
    /// When a host that lives has it, or something else is there.
    pub(super) fn bind(path: &Path, connections: usize) -> Result<Self, Failure> {
        let failed =
            |error| Failure::new(FailureKind::CannotCreate, format!("cannot listen on {}: {error}", path.display()));
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
            Ok(found) if !found.file_type().is_socket() => {
                return Err(failed(io::Error::other("there is a file that is no socket")));
            }
            Ok(_) if BlockingUnixStream::connect(path).is_ok() => {
                let line = format!("another host listens on {}; `--socket` takes another file", path.display());
                return Err(Failure::new(FailureKind::Temporary, line));
            }
            Ok(_) => fs::remove_file(path).map_err(failed)?,
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        // Until here others may have connected; who they are is looked at anyway.
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        Ok(Self { listener, path: path.to_owned(), room: Arc::new(Semaphore::new(connections)) })
    }

    /// Serves its own user, and root, until the host stops, and then what is under way.
    pub(super) async fn serve(self, router: Router, stopping: watch::Receiver<bool>) {
        let own = rustix::process::geteuid().as_raw();
        let accept = || async {
            loop {
                let (stream, _) = self.listener.accept().await?;
                match stream.peer_cred() {
                    Ok(peer) if peer.uid() == own || peer.uid() == 0 => return Ok(stream),
                    Ok(peer) => tracing::warn!(uid = peer.uid(), "a stranger was turned away from the socket"),
                    Err(error) => tracing::warn!(%error, "a peer of the socket is unknown and was turned away"),
                }
            }
        };
        serve(accept, Arc::clone(&self.room), router, stopping).await;
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "the socket stays behind");
        }
    }
}

async fn serve<S, A, F>(accept: A, room: Arc<Semaphore>, router: Router, mut stopping: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: Fn() -> F,
    F: Future<Output = io::Result<S>>,
{
    let connections = TaskTracker::new();
    loop {
        let taken = async {
            // Who comes when it is full waits in the queue of the system.
            let permit = Arc::clone(&room).acquire_owned().await.ok();
            (accept().await, permit)
        };
        let (stream, permit) = tokio::select! {
            biased;
            () = stopped(&mut stopping) => break,
            taken = taken => taken,
        };
        match stream {
            Ok(stream) => {
                let (router, stopping) = (router.clone(), stopping.clone());
                connections.spawn(async move {
                    serve_connection(stream, router, stopping).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be taken");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    connections.close();
    connections.wait().await;
}

async fn serve_connection<S>(stream: S, router: Router, mut stopping: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_PATIENCE).max_buf_size(HEAD_BYTES);
    let connection = server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = stopped(&mut stopping) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // It is the client that went away, or spoke something else than HTTP.
        tracing::debug!(%error, "a connection ended badly");
    }
}

/// Waits until the host stops. A sender that is gone has stopped too.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    drop(stopping.wait_for(|is_stopping| *is_stopping).await);
}

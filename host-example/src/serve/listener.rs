//! Where requests come in: a TCP port, and a Unix socket for the user of this host.
//!
//! It owns connections: how many there are, how long a client may take to say what it wants and to take its answer, and how they end
//! when the host does. It does not know what is asked.
//!
//! What is no HTTP never gets to the routes: hyper answers it by a status alone (400, 414 or 431, without a body) and closes, or just
//! closes. Everything else is answered by them, with a problem document if it fails.

use std::{
    fs,
    future::{Future, poll_fn},
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
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy, sink},
    net::{TcpListener, UnixListener},
    sync::{Semaphore, watch},
    time::{sleep, timeout},
};
use tokio_io_timeout::TimeoutStream;
use tokio_util::task::TaskTracker;

use crate::failure::{Failure, FailureKind};

/// How long a client may take to send the head of a request, the silence before it included.
const HEAD_PATIENCE: Duration = Duration::from_secs(10);

/// How long a client may take nothing of what it is sent. A stream that is cut by it can be taken up again.
const WRITE_PATIENCE: Duration = Duration::from_secs(20);

/// How long, and how much, is still read of a client that was answered before it had sent everything.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: u64 = 16 << 20;

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
    // Before the listener: a file that nobody listens behind is taken for that of a dead host.
    _file: SocketFile,
    listener: UnixListener,
    room: Arc<Semaphore>,
}

/// The file of a socket, which is removed with it.
#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            tracing::warn!(%error, path = %self.0.display(), "the socket stays behind");
        }
    }
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
            // A small answer that waits for more of it helps nobody. Where this cannot be said the client has gone.
            drop(stream.set_nodelay(true));
            Ok(stream)
        };
        let connections = accept_all(accept, &self.room, router, stopping).await;
        // Who comes from now on is refused, instead of waiting for an answer that nobody gives.
        drop(self);
        connections.wait().await;
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
        let listener = UnixListener::bind(path).map_err(|error| match error.kind() {
            // The system takes some hundred bytes.
            io::ErrorKind::InvalidInput => {
                failed(io::Error::other(format!("{error}; `--socket` takes a shorter path")))
            }
            _ => failed(error),
        })?;
        let file = SocketFile(path.to_owned());
        // Until here others may have connected; who they are is looked at anyway.
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        Ok(Self { _file: file, listener, room: Arc::new(Semaphore::new(connections)) })
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
        let connections = accept_all(accept, &self.room, router, stopping).await;
        drop(self);
        connections.wait().await;
    }
}

/// Takes connections until the host stops. Those that are left then are answered what they have asked, and end.
async fn accept_all<S, A, F>(
    accept: A,
    room: &Arc<Semaphore>,
    router: Router,
    mut stopping: watch::Receiver<bool>,
) -> TaskTracker
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: Fn() -> F,
    F: Future<Output = io::Result<S>>,
{
    let connections = TaskTracker::new();
    loop {
        let taken = async {
            // Who comes when it is full waits in the queue of the system.
            let permit = Arc::clone(room).acquire_owned().await.ok();
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
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::warn!(%error, "a connection could not be taken");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    connections.close();
    connections
}

async fn serve_connection<S>(stream: S, router: Router, mut stopping: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE_PATIENCE));
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_PATIENCE).max_buf_size(HEAD_BYTES);
    let service = TowerToHyperService::new(router);
    let mut connection = server.serve_connection(TokioIo::new(Box::pin(stream)), service);
    let ended = tokio::select! {
        ended = poll_fn(|context| connection.poll_without_shutdown(context)) => Some(ended),
        () = stopped(&mut stopping) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            std::pin::Pin::new(&mut connection).graceful_shutdown();
            poll_fn(|context| connection.poll_without_shutdown(context)).await
        }
    };
    if let Err(error) = ended {
        // It is the client that went away, or spoke something else than HTTP.
        tracing::debug!(%error, "a connection ended badly");
    }
    close(connection.into_parts().io.into_inner()).await;
}

/// Ends a connection so that the client gets its answer: a system that closes one on which something has come that nobody read resets it,
/// and the client loses what it has not read yet.
async fn close(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let lingering = async {
        stream.shutdown().await?;
        copy(&mut stream.take(LINGER_BYTES), &mut sink()).await
    };
    // The client did not close, or did it badly: either way it is over.
    drop(timeout(LINGER, lingering).await);
}

/// Waits until the host stops. A sender that is gone has stopped too.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    drop(stopping.wait_for(|is_stopping| *is_stopping).await);
}

//! How a client gets a connection.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio_util::bytes::BytesMut;

use super::admission::{Peer, trusts_server};
use super::frame::{self, FrameReader};
use super::message::{ClientMessage, Goodbye, Hello, ServerMessage, Welcome};

/// How long a server has for its greeting. One that does not say anything is none.
const WELCOME_WITHIN: Duration = Duration::from_secs(10);

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// Nobody serves the path.
    #[error("nobody serves {path}: {reason}", path = path.display())]
    NoServer {
        /// The path.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The server refused, or speaks something else.
    #[error(transparent)]
    Refused(#[from] Goodbye),
    /// The server belongs to somebody else: it is told nothing.
    #[error("the server belongs to user {found}, expected {expected}")]
    ForeignServer {
        /// Whom it has to belong to.
        expected: u32,
        /// Whom it belongs to.
        found: u32,
    },
    /// The server ended the connection, or said what is no greeting.
    #[error("expected a welcome of the server, got {found}")]
    NoWelcome {
        /// What came.
        found: String,
    },
    /// The server does not tell of commits, and the client has a source of changes that would go deaf.
    #[error("the registry that is served now does not tell of its commits, expected one that does")]
    DoesNotTell,
    /// The system gave no random number.
    #[error("no randomness for the identity of this client: {reason}")]
    Randomness {
        /// Why.
        reason: String,
    },
}

/// A connection whose ends know each other.
pub(super) struct Connected {
    pub(super) frames: FrameReader<OwnedReadHalf>,
    pub(super) writer: OwnedWriteHalf,
    pub(super) welcome: Welcome,
}

impl ConnectError {
    /// Whether another attempt may succeed without anybody doing anything about it.
    pub(super) const fn may_pass(&self) -> bool {
        match self {
            Self::NoServer { .. } | Self::NoWelcome { .. } => true,
            Self::Refused(goodbye) => matches!(goodbye, Goodbye::TooManyConnections { .. } | Goodbye::Stopping),
            Self::ForeignServer { .. } | Self::DoesNotTell | Self::Randomness { .. } => false,
        }
    }
}

/// Connects and greets, once.
pub(super) async fn connect(path: &Path, hello: &Hello) -> Result<Connected, ConnectError> {
    let no_server = |error: std::io::Error| ConnectError::NoServer { path: path.to_owned(), reason: error.to_string() };
    let stream = UnixStream::connect(path).await.map_err(no_server)?;
    let peer = stream.peer_cred().map(Peer::from).map_err(no_server)?;
    trusts_server(peer).map_err(|expected| ConnectError::ForeignServer { expected, found: peer.user })?;
    let (reader, mut writer) = stream.into_split();
    let mut frames = FrameReader::new(reader);
    let no_welcome = |found: String| ConnectError::NoWelcome { found };
    let mut buffer = BytesMut::new();
    frame::encode(&ClientMessage::Hello(hello.clone()))
        .and_then(|hello| frame::append(hello, &mut buffer))
        .map_err(|error| no_welcome(error.to_string()))?;
    // A server that has refused already does not read it; its reason is to be read all the same.
    drop(writer.write_all_buf(&mut buffer).await);
    let frame = match tokio::time::timeout(WELCOME_WITHIN, frames.next()).await {
        Ok(Some(Ok(frame))) => frame,
        Ok(Some(Err(error))) => return Err(no_welcome(error.to_string())),
        Ok(None) => return Err(no_welcome("the end of the connection".to_owned())),
        Err(_) => return Err(no_welcome(format!("nothing within {WELCOME_WITHIN:?}"))),
    };
    match serde_json::from_slice(&frame) {
        Ok(ServerMessage::Welcome(welcome)) => {
            welcome.check()?;
            frames.allow(usize::try_from(hello.answer_bytes).unwrap_or(usize::MAX));
            Ok(Connected { frames, writer, welcome })
        }
        Ok(ServerMessage::Goodbye(goodbye)) => Err(goodbye.into()),
        Ok(_) => Err(no_welcome("another message".to_owned())),
        Err(error) => Err(no_welcome(error.to_string())),
    }
}

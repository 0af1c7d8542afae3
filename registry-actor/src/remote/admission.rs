//! Who may connect.

use rustix::process::geteuid;
use tokio::net::unix::UCred;

/// Who is at the other end of a connection, as the kernel says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Its effective user.
    pub user: u32,
    /// Its process, where the system tells.
    pub pid: Option<i32>,
}

/// Says who may connect. It is asked once for each connection, before a byte of it is read.
pub trait Admission: Send + Sync {
    /// The user that a peer has to be, if this one may not connect.
    ///
    /// # Errors
    /// The expected user.
    fn admit(&self, peer: Peer) -> Result<(), u32>;
}

/// The user of this process, and root.
#[derive(Debug, Clone, Copy, Default)]
pub struct SameUser;

impl Admission for SameUser {
    fn admit(&self, peer: Peer) -> Result<(), u32> {
        let own = geteuid().as_raw();
        if peer.user == own || peer.user == 0 { Ok(()) } else { Err(own) }
    }
}

impl From<UCred> for Peer {
    fn from(credentials: UCred) -> Self {
        Self { user: credentials.uid(), pid: credentials.pid() }
    }
}

/// Whether a server of this user may be trusted with commands: one of another user could read them.
pub(super) fn trusts_server(server: Peer) -> Result<(), u32> {
    // Root may ask anybody's registry.
    if geteuid().is_root() { Ok(()) } else { SameUser.admit(server) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_user_and_root_are_admitted_and_nobody_else() {
        let own = geteuid().as_raw();
        let peer = |user| Peer { user, pid: None };
        assert_eq!(SameUser.admit(peer(own)), Ok(()));
        assert_eq!(SameUser.admit(peer(0)), Ok(()));
        assert_eq!(SameUser.admit(peer(own + 1)), Err(own));
    }
}

//! Whose host a socket leads to, and whether this user may tell it anything: one of another user could read the commands.
//!
//! It owns the rule and the words for who breaks it. It does not know what would be sent.

use std::{
    fs::{self, Metadata},
    io, iter,
    os::{
        fd::AsFd,
        unix::fs::{FileTypeExt, MetadataExt},
    },
    path::Path,
};

use rustix::{
    net::sockopt::socket_peercred,
    process::{Uid, geteuid},
};

use crate::failure::{Failure, FailureKind};

/// Checks who listens at the other end of this connection, and whose the file is that led there.
///
/// # Errors
/// When either is another user than this one and root, or is not to be told.
pub(super) fn check(path: &Path, connection: impl AsFd) -> Result<(), Failure> {
    let unknown = |error: io::Error| {
        let line = format!("cannot tell who listens behind the socket {}: {error}", path.display());
        Failure::new(FailureKind::Unavailable, line)
    };
    let peer = socket_peercred(connection).map_err(|errno| unknown(errno.into()))?;
    // A link counts too: who may set it leads us where they want.
    let file = match fs::symlink_metadata(path) {
        Ok(file) => Some((kind_of(&file), Uid::from_raw(file.uid()))),
        // The host has just stopped, and whoever asks it learns that.
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(unknown(error)),
    };
    let own = geteuid();
    for (what, found) in iter::once(("a host", peer.uid)).chain(file) {
        if !is_trusted(own, found) {
            let line = format!(
                "nothing was sent to the socket {}: expected a host of the user with id {own} or of root, found {what} of the user with id \
                 {found}; `--socket` names another one, and a host of another user is asked with `--url` and a token",
                path.display(),
                own = own.as_raw(),
                found = found.as_raw(),
            );
            return Err(Failure::new(FailureKind::NoPermission, line));
        }
    }
    Ok(())
}

/// Root is not asked to trust everybody: it would hand out what it may see.
fn is_trusted(own: Uid, found: Uid) -> bool {
    found == own || found.is_root()
}

fn kind_of(file: &Metadata) -> &'static str {
    if file.file_type().is_socket() { "a file" } else { "a link" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_user_and_root_are_trusted_and_root_trusts_nobody_else() {
        let (root, own, other) = (Uid::ROOT, Uid::from_raw(1_000), Uid::from_raw(65_534));
        assert!(is_trusted(own, own) && is_trusted(own, root) && is_trusted(root, root));
        assert!(!is_trusted(own, other) && !is_trusted(root, other));
    }
}

//! Who may ask this host what: the tokens of a store, in a file beside it that only its user can read.
//!
//! It owns the file and the comparison of secrets. It does not know how a token comes with a request.

use std::{
    fs::{self, OpenOptions},
    io::{ErrorKind, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use axum_extra::extract::cookie::Key;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use clap::ValueEnum;
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use super::config::beside;
use crate::failure::{Failure, FailureKind};

/// What a caller may do; each scope holds the ones before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Deserialize, Serialize, ValueEnum, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Scope {
    /// Look at everything.
    Read,
    /// Start processes, and ask them to do or to end something.
    Write,
    /// Prune, verify and back up the store, and let browsers in.
    Operate,
}

/// Somebody who was recognised.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Caller {
    /// How logs and limits call it.
    pub(crate) name: String,
    /// What it may do.
    pub(crate) scope: Scope,
}

/// The tokens of a store.
pub(crate) struct Credentials {
    key: Key,
    tokens: Vec<(SecretDigest, Caller)>,
}

type SecretDigest = [u8; 32];

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct CredentialsFile {
    /// Signs what browsers are given, so that they stay let in when the host is started again.
    key: String,
    token: Vec<Token>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Token {
    name: String,
    scope: Scope,
    secret: String,
}

/// The name of the token that is made at the first start.
const FIRST_TOKEN: &str = "owner";

impl Credentials {
    /// Reads the tokens of a store; at its first start makes one that may do everything.
    ///
    /// # Errors
    /// When the file cannot be read or made, or when others than its user may read it.
    pub(crate) fn load_or_create(store: &Path) -> Result<Self, Failure> {
        let path = Self::path(store);
        match create(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => {
                let line = format!("cannot create the tokens {}: {error}", path.display());
                return Err(Failure::new(FailureKind::CannotCreate, line));
            }
        }
        let CredentialsFile { key, token } = read(&path)?;
        let wrong = |what: String| Failure::new(FailureKind::Data, format!("tokens {}: {what}", path.display()));
        let key = BASE64_URL_SAFE_NO_PAD.decode(key).map_err(|error| wrong(format!("the key: {error}")))?;
        let key = Key::try_from(key.as_slice()).map_err(|error| wrong(format!("the key: {error}")))?;
        if let Some(token) = token.iter().find(|token| token.secret.len() < 16) {
            return Err(wrong(format!("the secret of `{}` has fewer than 16 characters", token.name)));
        }
        let tokens =
            token.into_iter().map(|Token { name, scope, secret }| (digest(&secret), Caller { name, scope })).collect();
        Ok(Self { key, tokens })
    }

    /// The file of a store's tokens.
    pub(crate) fn path(store: &Path) -> PathBuf {
        beside(store, "tokens")
    }

    /// Who shows this secret. The comparison is of digests, so that its time says nothing of a secret.
    pub(crate) fn caller_of(&self, secret: &str) -> Option<&Caller> {
        let shown = digest(secret);
        self.tokens.iter().find(|(known, _)| *known == shown).map(|(_, caller)| caller)
    }

    /// The key that signs what browsers are given.
    pub(crate) const fn key(&self) -> &Key {
        &self.key
    }
}

fn digest(secret: &str) -> SecretDigest {
    Sha256::digest(secret.as_bytes()).into()
}

/// A text that nobody guesses.
///
/// # Errors
/// When the system gives no randomness.
pub(crate) fn random_text<const BYTES: usize>() -> Result<String, getrandom::Error> {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes)?;
    Ok(BASE64_URL_SAFE_NO_PAD.encode(bytes))
}

fn create(path: &Path) -> std::io::Result<()> {
    if path.exists() {
        return Err(ErrorKind::AlreadyExists.into());
    }
    let random = |error: getrandom::Error| std::io::Error::other(error.to_string());
    let contents = CredentialsFile {
        key: random_text::<64>().map_err(random)?,
        token: vec![Token {
            name: FIRST_TOKEN.to_owned(),
            scope: Scope::Operate,
            secret: random_text::<32>().map_err(random)?,
        }],
    };
    let text = toml::to_string(&contents).map_err(std::io::Error::other)?;
    // Complete under its name or not there at all.
    let hidden = beside(path, &format!("{}.new", std::process::id()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&hidden)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all())?;
    let linked = fs::hard_link(&hidden, path);
    fs::remove_file(&hidden)?;
    linked
}

fn read(path: &Path) -> Result<CredentialsFile, Failure> {
    let unreadable =
        |error| Failure::new(FailureKind::Io, format!("cannot read the tokens {}: {error}", path.display()));
    // What is looked at is what is read, and no other file by way of a link.
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)
        .map_err(unreadable)?;
    let found = file.metadata().map_err(unreadable)?;
    let own = rustix::process::geteuid().as_raw();
    if found.uid() != own {
        let line =
            format!("the tokens {} belong to the user {}, and this host is of {own}", path.display(), found.uid());
        return Err(Failure::new(FailureKind::NoPermission, line));
    }
    let mode = found.mode() & 0o777;
    if mode & 0o077 != 0 {
        let line = format!(
            "others may read the tokens {}: expected mode 600, found {mode:o}; use `chmod 600`",
            path.display()
        );
        return Err(Failure::new(FailureKind::NoPermission, line));
    }
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(unreadable)?;
    toml::from_str(&text).map_err(|error| {
        // The error of the parser would show the line, and with it the secret.
        Failure::new(FailureKind::Data, format!("tokens {}: {}", path.display(), error.message()))
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn secret_in(path: &Path) -> String {
        read(path).expect("tokens").token.remove(0).secret
    }

    #[test]
    fn the_first_start_makes_a_token_that_later_ones_know() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = directory.path().join("s.db");
        let first = Credentials::load_or_create(&store).expect("tokens");
        let path = Credentials::path(&store);
        assert_eq!(fs::metadata(&path).expect("a file").mode() & 0o777, 0o600);
        let secret = secret_in(&path);
        let caller = Caller { name: FIRST_TOKEN.to_owned(), scope: Scope::Operate };
        assert_eq!(first.caller_of(&secret), Some(&caller));
        assert_eq!(first.caller_of(&secret[1..]), None);
        let again = Credentials::load_or_create(&store).expect("tokens");
        assert_eq!((again.caller_of(&secret), again.key() == first.key()), (Some(&caller), true));
    }

    #[test]
    fn tokens_that_others_may_read_are_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = directory.path().join("s.db");
        drop(Credentials::load_or_create(&store).expect("tokens"));
        fs::set_permissions(Credentials::path(&store), fs::Permissions::from_mode(0o640)).expect("a mode");
        let refused = Credentials::load_or_create(&store).err().expect("refused").to_string();
        assert!(refused.contains("expected mode 600, found 640"), "{refused}");
    }

    #[test]
    fn what_is_wrong_with_a_file_is_told_without_its_secrets() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = directory.path().join("s.db");
        drop(Credentials::load_or_create(&store).expect("tokens"));
        let path = Credentials::path(&store);
        let secret = secret_in(&path);
        let broken = fs::read_to_string(&path).expect("text").replace("operate", "owner");
        fs::write(&path, broken).expect("written");
        let refused = Credentials::load_or_create(&store).err().expect("refused").to_string();
        assert!(refused.contains("owner") && !refused.contains(&secret), "{refused}");
    }
}

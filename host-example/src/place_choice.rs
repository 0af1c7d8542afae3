//! Where a verb finds processes: with a host that runs, or in stores that it reads itself.
//!
//! It owns the options, the variables that stand for them, and which of them wins. It does not know what is asked there.

use std::{
    fs,
    path::{self, Path, PathBuf},
};

use clap::Args;
use registry_actor::domain::ProcessId;
use serde::Deserialize;

use crate::{
    client::HostClient,
    failure::{Failure, FailureKind},
    notice::say,
    process_source::ProcessSource,
    serve::config::{beside, place_of_user},
    store::StoreReader,
    store_choice::{open_member, typed_id},
    store_set::StoreSet,
    suggestion,
};

/// How many ids of each place are looked through for the one that was meant.
const SUGGESTED_FROM: usize = 10_000;

/// The choice of a host or of stores.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct PlaceChoice {
    /// The store, whose host is asked where there is one; by default all of the user's stores. PROCTOR_STORE says the same.
    #[arg(long, value_name = "FILE", help_heading = "Place")]
    store: Option<PathBuf>,
    /// The address of a running host, such as `http://127.0.0.1:7117`. PROCTOR_URL says the same.
    #[arg(long, value_name = "URL", conflicts_with_all = ["store", "socket"], help_heading = "Place")]
    url: Option<String>,
    /// The Unix socket of a running host; by default that beside the store. PROCTOR_SOCKET says the same.
    #[arg(long, value_name = "FILE", help_heading = "Place")]
    socket: Option<PathBuf>,
    /// The token for `--url`. Others can see it in the list of processes: better give it in PROCTOR_TOKEN.
    #[arg(long, value_name = "TOKEN", conflicts_with = "token_file", help_heading = "Place")]
    token: Option<String>,
    /// A file that holds the token for `--url`, alone or as the host wrote it beside its store. PROCTOR_TOKEN_FILE says the same.
    #[arg(long, value_name = "FILE", help_heading = "Place")]
    token_file: Option<PathBuf>,
}

/// What the environment says of the same.
#[derive(Clone, Debug, Default)]
struct PlaceVariables {
    store: Option<PathBuf>,
    url: Option<String>,
    socket: Option<PathBuf>,
    token: Option<String>,
    token_file: Option<PathBuf>,
}

/// What is meant.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Place {
    Web { url: String, token: Option<TokenChoice> },
    Socket(PathBuf),
    Store { path: PathBuf, socket: PathBuf },
    UserStores,
}

/// Where a token comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
enum TokenChoice {
    Text(String),
    File(PathBuf),
}

/// A file of tokens, as far as a client reads it.
#[derive(Deserialize)]
struct TokenFile {
    token: Vec<Token>,
}

#[derive(Deserialize)]
struct Token {
    secret: String,
}

/// What was opened of what is meant.
struct Opened {
    sources: Vec<ProcessSource>,
    /// Why the others were not.
    failed: Vec<Failure>,
}

/// Where a new process goes.
pub(crate) enum NewPlace {
    /// To a host that runs.
    Host(HostClient),
    /// Into a store that has none.
    Store {
        /// The store.
        path: PathBuf,
        /// Where its host will listen.
        socket: PathBuf,
    },
}

impl PlaceVariables {
    fn of_environment() -> Self {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let text = |name: &str| variable(name).map(|value| value.to_string_lossy().into_owned());
        let path = |name: &str| variable(name).map(PathBuf::from);
        Self {
            store: path("PROCTOR_STORE"),
            url: text("PROCTOR_URL"),
            socket: path("PROCTOR_SOCKET"),
            token: text("PROCTOR_TOKEN"),
            token_file: path("PROCTOR_TOKEN_FILE"),
        }
    }
}

impl PlaceChoice {
    /// Options before variables, and among each of them an address before a store.
    fn place(&self, variables: PlaceVariables) -> Result<Place, Failure> {
        let token = match (&self.token, &self.token_file) {
            (Some(text), _) => Some(TokenChoice::Text(text.clone())),
            (None, Some(path)) => Some(TokenChoice::File(path.clone())),
            (None, None) => None,
        };
        let is_named_here = self.store.is_some() || self.socket.is_some();
        if let Some(url) = self.url.clone().or(variables.url.filter(|_| !is_named_here)) {
            let token = token
                .or_else(|| variables.token.map(TokenChoice::Text))
                .or_else(|| variables.token_file.map(TokenChoice::File));
            return Ok(Place::Web { url, token });
        }
        if token.is_some() {
            let line =
                "a token is for a host with an address: name it with --url; through its socket a host asks for none";
            return Err(Failure::new(FailureKind::Usage, line));
        }
        let socket = self.socket.clone().or(variables.socket.filter(|_| self.store.is_none()));
        // A socket that is named alone is that of a host whose store need not be known.
        Ok(match (self.store.clone().or(variables.store.filter(|_| self.socket.is_none())), socket) {
            (Some(path), Some(socket)) => Place::Store { path, socket },
            (Some(path), None) => Place::Store { socket: beside(&path, "sock"), path },
            (None, Some(socket)) => Place::Socket(socket),
            (None, None) => Place::UserStores,
        })
    }

    fn chosen(&self) -> Result<Place, Failure> {
        Ok(match self.place(PlaceVariables::of_environment())? {
            Place::Store { path, socket } if self.socket.is_none() && socket == beside(&path, "sock") => {
                Place::Store { socket: configured_socket(&path).unwrap_or(socket), path }
            }
            place => place,
        })
    }

    /// Opens what is meant; of the user's stores, all that can be read. Of the others people are told.
    ///
    /// # Errors
    /// When none of them can be read, or when no host is where it should be.
    pub(crate) fn open(&self) -> Result<Vec<ProcessSource>, Failure> {
        let Opened { sources, failed } = self.opened()?;
        let mut failed = failed.into_iter();
        if sources.is_empty()
            && let Some(first) = failed.next()
        {
            return Err(first);
        }
        failed.for_each(skipped);
        Ok(sources)
    }

    fn opened(&self) -> Result<Opened, Failure> {
        let only = |source| Ok(Opened { sources: vec![source], failed: Vec::new() });
        match self.chosen()? {
            Place::Web { url, token } => only(ProcessSource::of_host(web_client(&url, token)?)),
            Place::Socket(socket) => only(ProcessSource::of_host(socket_client(&socket)?)),
            Place::Store { path, socket } => only(ProcessSource::of_store(StoreReader::open(&path)?, socket)),
            Place::UserStores => user_stores(),
        }
    }

    /// Opens the one place that knows the process.
    ///
    /// # Errors
    /// When none does, or several do. Where none does and one cannot be read, why it cannot.
    pub(crate) async fn open_with(&self, typed: &str) -> Result<(ProcessSource, ProcessId), Failure> {
        let id = typed_id(typed)?;
        let mut found: Option<ProcessSource> = None;
        let Opened { sources, mut failed } = self.opened()?;
        let are_several = sources.len() + failed.len() > 1;
        for source in &sources {
            match source.process(&id).await {
                Ok(Some(_)) => {}
                Ok(None) => continue,
                Err(failure) => {
                    failed.push(failure);
                    continue;
                }
            }
            if let Some(earlier) = &found {
                let line = format!("process `{id}` is in {earlier} and in {source}: name one of them with --store");
                return Err(Failure::new(FailureKind::Usage, line));
            }
            found = Some(source.clone());
        }
        let mut failed = failed.into_iter();
        if let Some(source) = found {
            failed.for_each(skipped);
            return Ok((source, id));
        }
        let Some(first) = failed.next() else { return Err(self.unknown(&id, &sources).await) };
        failed.for_each(skipped);
        if are_several {
            return Err(first.while_doing(&format!("process `{id}` is in none of the stores that can be read")));
        }
        Err(first)
    }

    /// Where a new process goes: to the host, or where it will be.
    ///
    /// # Errors
    /// When the host that was named is not there.
    pub(crate) fn for_new(&self) -> Result<NewPlace, Failure> {
        let (path, socket) = match self.chosen()? {
            Place::Web { url, token } => return Ok(NewPlace::Host(web_client(&url, token)?)),
            Place::Socket(socket) => return Ok(NewPlace::Host(socket_client(&socket)?)),
            Place::Store { path, socket } => (path, socket),
            Place::UserStores => {
                let served = place_of_user()?;
                (served.store, served.socket)
            }
        };
        Ok(match HostClient::at_socket(&socket)? {
            Some(client) => NewPlace::Host(client),
            None => NewPlace::Store { path, socket },
        })
    }

    /// The store of the host to which new processes go, where it is at hand: it is read on when the host is gone.
    pub(crate) fn beside_host(&self) -> Option<ProcessSource> {
        let (path, socket) = match self.chosen().ok()? {
            Place::Web { .. } | Place::Socket(_) => return None,
            Place::Store { path, socket } => (path, socket),
            Place::UserStores => {
                let served = place_of_user().ok()?;
                (served.store, served.socket)
            }
        };
        Some(ProcessSource::of_store(StoreReader::open(&path).ok()?, socket))
    }

    /// The host that is meant; without a word, that of the user.
    ///
    /// # Errors
    /// When it is not there.
    pub(crate) fn host(&self) -> Result<HostClient, Failure> {
        match self.for_new()? {
            NewPlace::Host(client) => Ok(client),
            NewPlace::Store { path, .. } => Err(no_host(&path)),
        }
    }

    async fn unknown(&self, id: &ProcessId, sources: &[ProcessSource]) -> Failure {
        let place = match (sources, StoreSet::of_user()) {
            ([only], _) => only.to_string(),
            (_, Ok(set)) => set.directory().display().to_string(),
            (_, Err(_)) => "any store".to_owned(),
        };
        let mut known = Vec::new();
        for source in sources {
            if let Some(state) = source.pruned_as(id).await {
                return Failure::new(FailureKind::NoInput, format!("process `{id}` ended as {state} and was pruned"));
            }
            // What was meant is a help. That it cannot be read is none.
            known.extend(source.ids(SUGGESTED_FROM).await.unwrap_or_default());
        }
        let hint = suggestion::among(id.as_str(), known.iter().map(String::as_str));
        Failure::new(FailureKind::NoInput, format!("unknown process `{id}` in {place}{hint}"))
    }
}

/// The user's stores, and that of the user's host wherever it is.
fn user_stores() -> Result<Opened, Failure> {
    let mut failed = Vec::new();
    let paths = StoreSet::of_user()?.existing()?;
    let mut places: Vec<_> = paths.into_iter().map(|path| (beside(&path, "sock"), path)).collect();
    match place_of_user() {
        Ok(served) => match places.iter_mut().find(|(_, path)| is_same(path, &served.store)) {
            Some((socket, _)) => *socket = served.socket,
            None if served.store.exists() => places.push((served.socket, served.store)),
            None => {}
        },
        Err(failure) => failed.push(failure),
    }
    let mut sources = Vec::new();
    for (socket, path) in places {
        match open_member(&path) {
            Ok(reader) => sources.push(ProcessSource::of_store(reader, socket)),
            Err(failure) => failed.push(failure),
        }
    }
    Ok(Opened { sources, failed })
}

/// The socket that the settings of the user's host say, if that is the host of this store.
fn configured_socket(store: &Path) -> Option<PathBuf> {
    // Settings that cannot be read are no matter of a store that was named.
    place_of_user().ok().filter(|served| is_same(&served.store, store)).map(|served| served.socket)
}

fn is_same(one: &Path, other: &Path) -> bool {
    let absolute = |path| path::absolute(path).ok();
    one == other || absolute(one).is_some_and(|one| absolute(other) == Some(one))
}

/// One bad file is no reason to know nothing of the others.
fn skipped(failure: Failure) {
    say(format_args!("skipped: {failure}"));
}

/// Nobody has this store.
pub(crate) fn no_host(store: &Path) -> Failure {
    let line = format!("no host is running on {}: `proctor serve` starts one", store.display());
    Failure::new(FailureKind::Unavailable, line)
}

fn socket_client(socket: &Path) -> Result<HostClient, Failure> {
    HostClient::at_socket(socket)?.ok_or_else(|| {
        let line = format!("no host listens on {}: `proctor serve` starts one", socket.display());
        Failure::new(FailureKind::Unavailable, line)
    })
}

fn web_client(url: &str, token: Option<TokenChoice>) -> Result<HostClient, Failure> {
    let token = token
        .map(|choice| match choice {
            TokenChoice::Text(text) => Ok(text),
            TokenChoice::File(path) => token_in(&path),
        })
        .transpose()?;
    if let Some(token) = &token
        && token.chars().any(|character| !character.is_ascii_graphic())
    {
        return Err(Failure::new(FailureKind::Usage, "a token is of visible ASCII characters: this one is not"));
    }
    HostClient::at_url(url, token)
}

/// The token in a file: the first one of a host's own file, or all that is there.
fn token_in(path: &Path) -> Result<String, Failure> {
    let text = fs::read_to_string(path).map_err(|error| {
        let kind = match error.kind() {
            std::io::ErrorKind::NotFound => FailureKind::NoInput,
            std::io::ErrorKind::PermissionDenied => FailureKind::NoPermission,
            _ => FailureKind::Io,
        };
        Failure::new(kind, format!("cannot read the token in {}: {error}", path.display()))
    })?;
    token_of(&text)
        .ok_or_else(|| Failure::new(FailureKind::Data, format!("expected a token in {}, found none", path.display())))
}

fn token_of(text: &str) -> Option<String> {
    let listed = toml::from_str::<TokenFile>(text).ok();
    match listed {
        Some(file) => file.token.into_iter().next().map(|token| token.secret),
        None => Some(text.trim().to_owned()).filter(|text| !text.is_empty() && !text.contains(char::is_whitespace)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(store: Option<&str>, url: Option<&str>) -> PlaceVariables {
        PlaceVariables { store: store.map(PathBuf::from), url: url.map(str::to_owned), ..PlaceVariables::default() }
    }

    fn store_place(path: &str) -> Place {
        Place::Store { path: path.into(), socket: format!("{path}.sock").into() }
    }

    #[test]
    fn what_is_typed_wins_over_the_environment() {
        let typed = PlaceChoice { store: Some("/a".into()), ..PlaceChoice::default() };
        assert_eq!(typed.place(variables(Some("/b"), Some("http://h"))).expect("a place"), store_place("/a"));
        let silent = PlaceChoice::default();
        assert_eq!(silent.place(variables(Some("/b"), None)).expect("a place"), store_place("/b"));
        let web = Place::Web { url: "http://h".to_owned(), token: None };
        assert_eq!(silent.place(variables(Some("/b"), Some("http://h"))).expect("a place"), web);
        assert_eq!(silent.place(PlaceVariables::default()).expect("a place"), Place::UserStores);
    }

    #[test]
    fn a_socket_alone_is_a_host_and_beside_a_store_it_is_that_of_its_host() {
        let alone = PlaceChoice { socket: Some("/x".into()), ..PlaceChoice::default() };
        assert_eq!(alone.place(variables(Some("/b"), None)).expect("a place"), Place::Socket("/x".into()));
        let both = PlaceChoice { store: Some("/a".into()), ..alone };
        let expected = Place::Store { path: "/a".into(), socket: "/x".into() };
        assert_eq!(both.place(PlaceVariables::default()).expect("a place"), expected);
    }

    #[test]
    fn a_token_goes_to_an_address_only() {
        let choice = PlaceChoice { token: Some("t".to_owned()), ..PlaceChoice::default() };
        let refused = choice.place(PlaceVariables::default()).expect_err("no address");
        assert!(refused.to_string().contains("--url"), "{refused}");
        let web = choice.place(variables(None, Some("http://h"))).expect("a place");
        assert_eq!(web, Place::Web { url: "http://h".to_owned(), token: Some(TokenChoice::Text("t".to_owned())) });
        let of_environment = PlaceVariables { token: Some("u".to_owned()), ..PlaceVariables::default() };
        assert_eq!(PlaceChoice::default().place(of_environment).expect("a place"), Place::UserStores);
    }

    #[test]
    fn a_token_is_read_from_both_kinds_of_file() {
        assert_eq!(token_of("secret\n").as_deref(), Some("secret"));
        let listed = "key = 'k'\n[[token]]\nname = 'owner'\nscope = 'operate'\nsecret = 'first'\n";
        assert_eq!(token_of(listed).as_deref(), Some("first"));
        for text in ["", "\n", "two words"] {
            assert_eq!(token_of(text), None, "{text:?}");
        }
    }
}

//! What `proctor serve` is told: flags, then the environment, then a file, then what holds unless something is said.
//!
//! It owns the settings, their names in all three places, and which of them wins. It does not know what they do.

use std::{
    collections::BTreeSet,
    fs,
    io::ErrorKind,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::{
    command_policy::CommandPolicy,
    duration_text,
    failure::{Failure, FailureKind},
    store_set::StoreSet,
};

/// Where HTTP is served unless said otherwise.
const DEFAULT_LISTEN: &str = "127.0.0.1:7117";

/// The most of anything that is counted at the same time.
const MOST: usize = 1 << 30;

/// The settings that may come from a flag, a variable or the file; the same names everywhere.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ServeSettings {
    /// The store; it is created if need be. By default `serve.db` among the user's stores.
    #[arg(long, value_name = "FILE", env = "PROCTOR_STORE")]
    store: Option<PathBuf>,
    /// Where to serve HTTP. Beyond loopback no commands are run unless `--allow-command` names them. By default 127.0.0.1:7117; port 0
    /// takes a free one.
    #[arg(long, value_name = "ADDRESS:PORT", env = "PROCTOR_LISTEN")]
    listen: Option<SocketAddr>,
    /// The Unix socket for the command line of this user. By default beside the store, with `.sock` at the end.
    #[arg(long, value_name = "FILE", env = "PROCTOR_SOCKET")]
    socket: Option<PathBuf>,
    /// A further name by which browsers and clients may call this host, such as `proctor.example:7117`; may be given several times.
    #[arg(long = "allow-host", value_name = "NAME[:PORT]", env = "PROCTOR_ALLOW_HOST", value_delimiter = ',')]
    allow_host: Option<Vec<String>>,
    /// A program that may be started, by its name or its whole path as it is written in the command, and then without variables of the
    /// caller; may be given several times. By default any on loopback, and none elsewhere.
    #[arg(long = "allow-command", value_name = "PROGRAM", env = "PROCTOR_ALLOW_COMMAND", value_delimiter = ',')]
    allow_command: Option<Vec<String>>,
    /// How many commands run at the same time. By default 4.
    #[arg(long, value_name = "N", env = "PROCTOR_CONCURRENT_RUNS")]
    concurrent_runs: Option<usize>,
    /// What becomes of running commands when the host is stopped: `cancel` ends them, `wait` lets them end first. By default `cancel`.
    #[arg(long, value_name = "WHAT", env = "PROCTOR_ON_STOP")]
    on_stop: Option<OnStop>,
    /// How long a stop may wait for commands and connections, such as `30s`; a command that is asked to end then has its grace all the same. By default 30s.
    #[arg(long, value_name = "DURATION", env = "PROCTOR_STOP_PATIENCE")]
    stop_patience: Option<Span>,
    /// How long ended processes are kept, such as `30d`: the older ones are pruned every hour. By default for ever.
    #[arg(long, value_name = "DURATION", env = "PROCTOR_RETAIN")]
    retain: Option<Span>,
    /// The largest body of a request, in bytes. By default 1048576.
    #[arg(long, value_name = "BYTES", env = "PROCTOR_MAX_BODY_BYTES")]
    max_body_bytes: Option<usize>,
    /// How many event streams may be open at the same time; one caller may have half of them. By default 2000.
    #[arg(long, value_name = "N", env = "PROCTOR_MAX_STREAMS")]
    max_streams: Option<usize>,
    /// How many connections may be open at the same time. By default 4096.
    #[arg(long, value_name = "N", env = "PROCTOR_MAX_CONNECTIONS")]
    max_connections: Option<usize>,
    /// How many requests each token may make in a second, in the long run; 0 is without a limit. By default 1000.
    #[arg(long, value_name = "N", env = "PROCTOR_REQUESTS_PER_SECOND")]
    requests_per_second: Option<u32>,
    /// How lines of the log are written: `text` or `json`. By default `text`.
    #[arg(long, value_name = "FORMAT", env = "PROCTOR_LOG_FORMAT")]
    log_format: Option<LogFormat>,
}

/// How `proctor serve` is called.
#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    settings: ServeSettings,
    /// A file of settings in TOML, by the names of the flags with `_` for `-`. By default `serve.toml` in the user's configuration,
    /// if it is there.
    #[arg(long, value_name = "FILE", env = "PROCTOR_CONFIG")]
    config: Option<PathBuf>,
    /// Print the settings that hold, as such a file, and end.
    #[arg(long)]
    pub(crate) print_config: bool,
}

/// The settings that hold.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct ServeConfig {
    /// The store.
    pub(crate) store: PathBuf,
    /// Where HTTP is served.
    pub(crate) listen: SocketAddr,
    /// The Unix socket.
    pub(crate) socket: PathBuf,
    /// Further names of this host.
    pub(crate) allow_host: BTreeSet<String>,
    /// The programs that may be started, if that is limited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) allow_command: Option<BTreeSet<String>>,
    /// How many commands run at the same time.
    pub(crate) concurrent_runs: usize,
    /// What becomes of running commands at a stop.
    pub(crate) on_stop: OnStop,
    /// How long a stop may wait.
    pub(crate) stop_patience: Span,
    /// How long ended processes are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) retain: Option<Span>,
    /// The largest body of a request, in bytes.
    pub(crate) max_body_bytes: usize,
    /// How many event streams at the same time.
    pub(crate) max_streams: usize,
    /// How many connections at the same time.
    pub(crate) max_connections: usize,
    /// How many requests a second for each token; 0 is without a limit.
    pub(crate) requests_per_second: u32,
    /// How lines of the log are written.
    pub(crate) log_format: LogFormat,
}

/// What becomes of running commands when the host is stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OnStop {
    /// They are asked to end: a rerunnable one goes on in the next host, any other is cancelled.
    #[default]
    Cancel,
    /// They may end by themselves, as long as the patience lasts.
    Wait,
}

/// How lines of the log are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One object in each line.
    Json,
}

/// A length of time, as it is typed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Span(pub(crate) Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        duration_text::to_ms(text).map(|ms| Self(Duration::from_millis(ms)))
    }
}

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Span> for String {
    fn from(span: Span) -> Self {
        duration_text::of_ms(u64::try_from(span.0.as_millis()).unwrap_or(u64::MAX))
    }
}

impl ServeConfig {
    /// Which commands may be started.
    pub(crate) fn command_policy(&self) -> CommandPolicy {
        CommandPolicy::new(self.allow_command.clone())
    }
}

impl ServeArgs {
    /// The settings that hold.
    ///
    /// # Errors
    /// When the file cannot be read, or says what no host understands.
    pub(crate) fn config(&self) -> Result<ServeConfig, Failure> {
        let file = match &self.config {
            Some(path) => read_file(path)?,
            None => match default_file() {
                Some(path) if path.exists() => read_file(&path)?,
                _ => ServeSettings::default(),
            },
        };
        self.settings.clone().or(file).config()
    }
}

impl ServeSettings {
    /// These settings, and where they say nothing, the others.
    fn or(self, other: Self) -> Self {
        Self {
            store: self.store.or(other.store),
            listen: self.listen.or(other.listen),
            socket: self.socket.or(other.socket),
            allow_host: self.allow_host.or(other.allow_host),
            allow_command: self.allow_command.or(other.allow_command),
            concurrent_runs: self.concurrent_runs.or(other.concurrent_runs),
            on_stop: self.on_stop.or(other.on_stop),
            stop_patience: self.stop_patience.or(other.stop_patience),
            retain: self.retain.or(other.retain),
            max_body_bytes: self.max_body_bytes.or(other.max_body_bytes),
            max_streams: self.max_streams.or(other.max_streams),
            max_connections: self.max_connections.or(other.max_connections),
            requests_per_second: self.requests_per_second.or(other.requests_per_second),
            log_format: self.log_format.or(other.log_format),
        }
    }

    fn config(self) -> Result<ServeConfig, Failure> {
        let store = match self.store {
            Some(store) => store,
            None => StoreSet::of_user()?.served(),
        };
        let listen = match self.listen {
            Some(listen) => listen,
            None => DEFAULT_LISTEN
                .parse()
                .map_err(|error| Failure::new(FailureKind::Software, format!("{DEFAULT_LISTEN}: {error}")))?,
        };
        let allow_command = match self.allow_command {
            Some(programs) => Some(programs.into_iter().collect()),
            // Whoever reaches the port from elsewhere runs nothing that was not named.
            None => (!listen.ip().is_loopback()).then(BTreeSet::new),
        };
        let at_least_one = |name: &str, value: usize| match value {
            0 => Err(Failure::new(FailureKind::Usage, format!("{name} has to be at least 1, got 0"))),
            value if value > MOST => {
                Err(Failure::new(FailureKind::Usage, format!("{name} has to be at most {MOST}, got {value}")))
            }
            value => Ok(value),
        };
        Ok(ServeConfig {
            socket: self.socket.unwrap_or_else(|| beside(&store, "sock")),
            store,
            listen,
            allow_host: self.allow_host.unwrap_or_default().into_iter().map(|name| name.to_ascii_lowercase()).collect(),
            allow_command,
            concurrent_runs: at_least_one("concurrent_runs", self.concurrent_runs.unwrap_or(4))?,
            on_stop: self.on_stop.unwrap_or_default(),
            stop_patience: self.stop_patience.unwrap_or(Span(Duration::from_secs(30))),
            retain: self.retain,
            max_body_bytes: at_least_one("max_body_bytes", self.max_body_bytes.unwrap_or(1 << 20))?,
            max_streams: at_least_one("max_streams", self.max_streams.unwrap_or(2_000))?,
            max_connections: at_least_one("max_connections", self.max_connections.unwrap_or(4_096))?,
            requests_per_second: self.requests_per_second.unwrap_or(1_000),
            log_format: self.log_format.unwrap_or_default(),
        })
    }
}

/// Where the host of this user is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ServedPlace {
    /// Its store.
    pub(crate) store: PathBuf,
    /// Its Unix socket.
    pub(crate) socket: PathBuf,
}

/// Where `proctor serve` is when it is told nothing on its command line.
///
/// # Errors
/// As of a host that comes up with these settings.
pub(crate) fn place_of_user() -> Result<ServedPlace, Failure> {
    let path = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let settings =
        ServeSettings { store: path("PROCTOR_STORE"), socket: path("PROCTOR_SOCKET"), ..ServeSettings::default() };
    let config = ServeArgs { settings, config: path("PROCTOR_CONFIG"), print_config: false }.config()?;
    Ok(ServedPlace { store: config.store, socket: config.socket })
}

/// The file beside a store that has its name with a further ending.
pub(crate) fn beside(store: &Path, ending: &str) -> PathBuf {
    let mut name = store.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}

fn default_file() -> Option<PathBuf> {
    use etcetera::base_strategy::{BaseStrategy, Xdg};
    Some(Xdg::new().ok()?.config_dir().join("proctor").join("serve.toml"))
}

fn read_file(path: &Path) -> Result<ServeSettings, Failure> {
    let text = fs::read_to_string(path).map_err(|error| {
        let kind = if error.kind() == ErrorKind::NotFound { FailureKind::NoInput } else { FailureKind::Io };
        Failure::new(kind, format!("cannot read the settings {}: {error}", path.display()))
    })?;
    toml::from_str(&text)
        .map_err(|error| Failure::new(FailureKind::Usage, format!("settings {}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> ServeSettings {
        toml::from_str(text).expect("settings")
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_what_holds_otherwise() {
        let flags = file("store = '/s'\nmax_streams = 7");
        let config = flags.or(file("max_streams = 9\non_stop = 'wait'\nretain = '720h'")).config().expect("a config");
        assert_eq!((config.max_streams, config.on_stop, config.concurrent_runs), (7, OnStop::Wait, 4));
        assert_eq!(config.socket, Path::new("/s.sock"));
        assert_eq!(config.retain, Some(Span(Duration::from_secs(30 * 24 * 3600))));
    }

    #[test]
    fn what_is_printed_reads_back_as_the_same() {
        let config = file("store = '/s'\nallow_command = ['ls']\nretain = '2h'").config().expect("a config");
        let printed = toml::to_string(&config).expect("text");
        assert_eq!(file(&printed).config().expect("a config"), config);
    }

    #[test]
    fn beyond_loopback_nothing_may_be_started_that_is_not_named() {
        let allowed = |text| file(text).config().expect("a config").allow_command;
        assert_eq!(allowed("store = '/s'"), None);
        assert_eq!(allowed("store = '/s'\nlisten = '0.0.0.0:1'"), Some(BTreeSet::new()));
        assert_eq!(allowed("store = '/s'\nlisten = '0.0.0.0:1'\nallow_command = ['ls']"), Some(["ls".into()].into()));
    }

    /// The settings as a table of Markdown: how `--help` explains them, and by which names the other places know them.
    fn table() -> String {
        let command = ServeArgs::augment_args(clap::Command::new("serve"));
        let mut table = "| flag | variable | in the file | what it says |\n|---|---|---|---|\n".to_owned();
        for arg in command.get_arguments() {
            let Some(flag) = arg.get_long() else { continue };
            let code = |name: &str| format!("`{name}`");
            let variable = arg.get_env().map_or_else(String::new, |name| code(&name.to_string_lossy()));
            let is_setting = !["config", "print-config"].contains(&flag);
            let key = if is_setting { code(&flag.replace('-', "_")) } else { String::new() };
            let help = arg.get_long_help().or_else(|| arg.get_help()).map(ToString::to_string).unwrap_or_default();
            let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
            table += &format!("| {} | {variable} | {key} | {help} |\n", code(&format!("--{flag}")));
        }
        table
    }

    #[test]
    fn the_documented_table_is_that_of_the_code() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
        let documented = fs::read_to_string(&path).expect("the documentation");
        let (begin, end) = ("<!-- settings -->\n", "<!-- end of settings -->");
        let (before, rest) = documented.split_once(begin).expect("the begin of the table");
        let (shown, after) = rest.split_once(end).expect("the end of the table");
        if std::env::var_os("PROCTOR_REWRITE_DOCS").is_some() {
            fs::write(&path, format!("{before}{begin}{}{end}{after}", table())).expect("written");
            return;
        }
        assert_eq!(shown, table(), "PROCTOR_REWRITE_DOCS=1 writes it anew");
    }

    #[test]
    fn each_setting_has_the_same_name_everywhere() {
        let command = ServeArgs::augment_args(clap::Command::new("serve"));
        let config = file("store = '/s'\nallow_command = ['ls']\nretain = '2h'").config().expect("a config");
        let printed: toml::Table = toml::to_string(&config).expect("text").parse().expect("a table");
        for arg in command.get_arguments().filter(|arg| arg.get_id() != "print_config" && arg.get_id() != "config") {
            let flag = arg.get_long().expect("a flag").to_owned();
            let variable = arg.get_env().expect("a variable").to_string_lossy().into_owned();
            assert_eq!(variable, format!("PROCTOR_{}", flag.replace('-', "_").to_uppercase()));
            assert!(printed.contains_key(&flag.replace('-', "_")), "{flag} is not printed");
        }
    }

    #[test]
    fn an_unknown_setting_is_refused_by_name() {
        let error = toml::from_str::<ServeSettings>("max_stream = 1").expect_err("a typo");
        assert!(error.to_string().contains("max_stream"), "{error}");
    }
}

//! The log of a host that stays: what is written, and in which form.

use tracing_subscriber::EnvFilter;

use super::config::LogFormat;

/// The variable that says what is logged, such as `PROCTOR_LOG=debug`.
const LOG_VARIABLE: &str = "PROCTOR_LOG";

/// What is logged unless the variable says otherwise.
const DEFAULT_LOG_FILTER: &str = "info";

/// Logs to stderr from now on.
pub(crate) fn start_logging(format: LogFormat) {
    let filter = EnvFilter::try_from_env(LOG_VARIABLE).unwrap_or_else(|_| EnvFilter::new(DEFAULT_LOG_FILTER));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
}

//! Whether and how colours are used on our own stdout.
//!
//! It owns the choice: a terminal, and nobody who forbids it by `NO_COLOR`. It does not know what is painted.

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};

/// What may be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Paint {
    /// Letters alone.
    Plain,
    /// Colours too.
    Coloured,
}

impl Paint {
    /// What stdout takes.
    pub(crate) fn of_stdout() -> Self {
        match AutoStream::choice(&std::io::stdout()) {
            ColorChoice::Never => Self::Plain,
            _ => Self::Coloured,
        }
    }

    /// The text in a style.
    pub(crate) fn with(self, style: Style, text: &str) -> String {
        match self {
            Self::Plain => text.to_owned(),
            Self::Coloured => format!("{style}{text}{style:#}"),
        }
    }

    /// The style of a status.
    pub(crate) fn of_status(status: &str) -> Style {
        match status {
            "running" => AnsiColor::Cyan.on_default(),
            "completed" => AnsiColor::Green.on_default(),
            "failed" => AnsiColor::Red.on_default(),
            "cancelled" => AnsiColor::Yellow.on_default(),
            "abandoned" => AnsiColor::Magenta.on_default(),
            _ => Style::new(),
        }
    }
}

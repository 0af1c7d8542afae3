//! An event as the interface and the command line show it, whether it was read from a store or told by a host.
//!
//! It owns the names of the JSON fields and the line for people. It does not know which route or verb asks.

use anstyle::{AnsiColor, Style};
use base64::{Engine, engine::general_purpose::STANDARD};
use registry_actor::domain::ProcessEvent;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use host_example::output::{LineEnd, OutputLine, Stream, Text};

use crate::{command_process::OUTPUT, paint::Paint, time_text};

/// An event of a process.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize, ToSchema)]
pub(crate) struct EventView {
    /// Its process.
    pub(crate) process_id: String,
    /// Its place in the process's log, from 1.
    pub(crate) sequence: u64,
    /// Its type.
    pub(crate) event_type: String,
    /// What it says.
    #[schema(value_type = Value)]
    pub(crate) payload: Value,
    /// When it was stored, in ms since the Unix epoch.
    pub(crate) occurred_at_ms: u64,
    /// What makes one event of several sendings, if anything does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) replay_key: Option<String>,
    /// Whether it came after the end of its process.
    pub(crate) late: bool,
}

impl EventView {
    /// The view of an event.
    pub(crate) fn new(event: &ProcessEvent) -> Self {
        Self {
            process_id: event.process_id.to_string(),
            sequence: event.sequence.0,
            event_type: event.event_type.to_string(),
            payload: event.payload.clone(),
            occurred_at_ms: event.occurred_at_ms,
            replay_key: event.replay_key.as_ref().map(ToString::to_string),
            late: event.late,
        }
    }

    /// The event as one JSON object.
    pub(crate) fn to_json(&self) -> Value {
        serde_json::json!(self)
    }

    /// The event as one line.
    pub(crate) fn to_text(&self, paint: Paint) -> String {
        let time = time_text::instant(self.occurred_at_ms);
        let (what, content) = match self.output() {
            Some((stream, text)) => (stream, printable(text)),
            None => (self.event_type.as_str(), self.payload.to_string()),
        };
        let dim = Style::new().dimmed();
        let of_kind = match what {
            "stdout" => Style::new(),
            "stderr" => AnsiColor::Yellow.on_default(),
            _ => AnsiColor::Cyan.on_default(),
        };
        let (head, what) = (format!("{:>6}  {time}", self.sequence), format!("{what:<6}"));
        format!("{}  {}  {content}", paint.with(dim, &head), paint.with(of_kind, &what))
    }

    /// The line of output that it is, byte for byte.
    pub(crate) fn output_line(&self) -> Option<OutputLine> {
        let (stream, text) = self.output()?;
        let stream = Stream::ALL.into_iter().find(|known| known.name() == stream)?;
        let bytes = self.payload.get("base64").and_then(Value::as_str).and_then(|bytes| STANDARD.decode(bytes).ok());
        let text = bytes.map_or_else(|| Text::Utf8(text.to_owned()), Text::from);
        let is_continued = self.payload.get("continued") == Some(&Value::Bool(true));
        Some(OutputLine { stream, text, end: if is_continued { LineEnd::Continued } else { LineEnd::Newline } })
    }

    /// The stream and the text of a line of output.
    fn output(&self) -> Option<(&str, &str)> {
        if self.event_type != OUTPUT {
            return None;
        }
        Some((self.payload.get("stream")?.as_str()?, self.payload.get("text")?.as_str()?))
    }
}

/// What a command wrote may hold anything; what moves the cursor or changes the terminal is shown as what it is.
fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() && character != '\t' {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(event_type: &str, payload: Value) -> EventView {
        EventView {
            process_id: "p".to_owned(),
            sequence: 7,
            event_type: event_type.to_owned(),
            payload,
            occurred_at_ms: 1_795_505_701_250,
            replay_key: None,
            late: false,
        }
    }

    #[test]
    fn output_is_shown_as_lines_that_leave_the_terminal_alone() {
        let line = event(OUTPUT, json!({"stream": "stderr", "text": "a\tb\u{1b}[31m"}));
        assert_eq!(line.to_text(Paint::Plain), "     7  2026-11-24 07:35:01.250Z  stderr  a\tb\\u{1b}[31m");
    }

    #[test]
    fn other_events_are_shown_with_their_payload() {
        let shown = event("command.guarded", json!({"attempt": 1})).to_text(Paint::Plain);
        assert!(shown.ends_with(r#"command.guarded  {"attempt":1}"#), "{shown}");
    }

    #[test]
    fn an_event_as_json_has_the_promised_fields() {
        let expected = json!({
            "process_id": "p", "sequence": 7, "event_type": "t", "payload": null, "occurred_at_ms": 1_795_505_701_250_u64,
            "late": false,
        });
        assert_eq!(event("t", Value::Null).to_json(), expected);
    }

    #[test]
    fn output_comes_back_byte_for_byte() {
        for line in [
            OutputLine { stream: Stream::Stdout, text: Text::Utf8("grün".to_owned()), end: LineEnd::Newline },
            OutputLine { stream: Stream::Stderr, text: Text::Bytes(b"a\xff".to_vec()), end: LineEnd::Continued },
        ] {
            assert_eq!(event(OUTPUT, line.to_payload()).output_line(), Some(line));
        }
        assert_eq!(event("other", json!({"stream": "stdout", "text": "x"})).output_line(), None);
        assert_eq!(event(OUTPUT, json!({"stream": "else", "text": "x"})).output_line(), None);
    }
}

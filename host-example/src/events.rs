//! `proctor events`: the log of one process, beside the host that writes it or long after.
//!
//! It owns how an event is shown. It reads and writes page by page, so that a log may be longer than the memory.

use std::process::ExitCode;

use clap::Args;
use registry_actor::{
    domain::{ProcessEvent, Sequence},
    port::EventPage,
};
use serde_json::{Value, json};

use crate::{
    command_process::OUTPUT,
    failure::Failure,
    sheet::Sheet,
    store_choice::{StoreChoice, typed_id},
    time_text,
};

/// The events that are read at a time.
const PAGE_EVENTS: u32 = if EventPage::MAX_LIMIT < 1_000 { EventPage::MAX_LIMIT } else { 1_000 };

/// Shows the events of one process.
#[derive(Args, Debug)]
pub(crate) struct EventsArgs {
    #[command(flatten)]
    stores: StoreChoice,
    /// The process.
    #[arg(value_name = "ID")]
    id: String,
    /// Only events after this sequence.
    #[arg(long, value_name = "N", default_value_t = 0)]
    after: u64,
    /// At most so many events.
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
}

/// Runs the verb.
///
/// # Errors
/// When the process is unknown, or its store cannot be read.
pub(crate) async fn run(args: EventsArgs) -> Result<ExitCode, Failure> {
    let id = typed_id(&args.id)?;
    let store = args.stores.open_with(&id).await?;
    let mut sheet = Sheet::new();
    let mut after = Sequence(args.after);
    let mut left = args.limit.unwrap_or(u64::MAX);
    while left > 0 && sheet.is_read() {
        let limit = u32::try_from(left).unwrap_or(u32::MAX).min(PAGE_EVENTS);
        let page = store.events(&id, after, limit).await?;
        for event in &page.events {
            if args.json {
                sheet.line(to_json(event))?;
            } else {
                sheet.line(to_text(event))?;
            }
        }
        sheet.flush()?;
        left = left.saturating_sub(page.events.len() as u64);
        match page.events.last() {
            Some(last) if page.has_more => after = last.sequence,
            _ => break,
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn to_json(event: &ProcessEvent) -> Value {
    let mut shown = json!({
        "process_id": event.process_id,
        "sequence": event.sequence,
        "event_type": event.event_type,
        "payload": event.payload,
        "occurred_at_ms": event.occurred_at_ms,
    });
    if let Some(key) = &event.replay_key {
        shown["replay_key"] = json!(key);
    }
    if event.late {
        shown["late"] = true.into();
    }
    shown
}

fn to_text(event: &ProcessEvent) -> String {
    let time = time_text::instant(event.occurred_at_ms);
    let (what, content) = match output_of(event) {
        Some((stream, text)) => (stream, printable(text)),
        None => (&*event.event_type, event.payload.to_string()),
    };
    format!("{:>6}  {time}  {what:<6}  {content}", event.sequence)
}

/// The stream and the text of a line of output.
fn output_of(event: &ProcessEvent) -> Option<(&str, &str)> {
    if *event.event_type != *OUTPUT {
        return None;
    }
    Some((event.payload.get("stream")?.as_str()?, event.payload.get("text")?.as_str()?))
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
    use std::sync::Arc;

    use registry_actor::domain::{ProcessEventSemantics, ProcessId};

    use super::*;

    fn event(event_type: &str, payload: Value) -> ProcessEvent {
        ProcessEvent {
            process_id: ProcessId::new("p").expect("an id"),
            sequence: Sequence(7),
            event_type: Arc::from(event_type),
            payload,
            replay_key: None,
            semantics: ProcessEventSemantics::default(),
            occurred_at_ms: 1_795_505_701_250,
            late: false,
        }
    }

    #[test]
    fn output_is_shown_as_lines_that_leave_the_terminal_alone() {
        let line = event(OUTPUT, json!({"stream": "stderr", "text": "a\tb\u{1b}[31m"}));
        assert_eq!(to_text(&line), "     7  2026-11-24 07:35:01.250Z  stderr  a\tb\\u{1b}[31m");
    }

    #[test]
    fn other_events_are_shown_with_their_payload() {
        let shown = to_text(&event("command.guarded", json!({"attempt": 1})));
        assert!(shown.ends_with(r#"command.guarded  {"attempt":1}"#), "{shown}");
    }

    #[test]
    fn an_event_as_json_has_the_promised_fields() {
        let expected = json!({
            "process_id": "p", "sequence": 7, "event_type": "t", "payload": null, "occurred_at_ms": 1_795_505_701_250_u64,
        });
        assert_eq!(to_json(&event("t", Value::Null)), expected);
    }
}

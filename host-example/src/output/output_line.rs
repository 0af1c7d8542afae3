//! One line of output as a value and as the payload of an event.
//!
//! It owns the form of the payload. It does not know how lines come about or where payloads go.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::line_splitter::{LineEnd, Piece};

/// The two streams that a command writes to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// The command's stdout.
    Stdout,
    /// The command's stderr.
    Stderr,
}

impl Stream {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::Stdout, Self::Stderr];

    /// The stream's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// The content of a line, lossless whether it is text or not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Text {
    /// It is valid UTF-8.
    Utf8(String),
    /// It is not.
    Bytes(Vec<u8>),
}

impl Text {
    /// The exact bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Utf8(text) => text.as_bytes(),
            Self::Bytes(bytes) => bytes,
        }
    }
}

impl From<Vec<u8>> for Text {
    fn from(bytes: Vec<u8>) -> Self {
        String::from_utf8(bytes).map_or_else(|error| Self::Bytes(error.into_bytes()), Self::Utf8)
    }
}

/// A line of a command's output, or a part of one that is too long.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OutputLine {
    /// Where it was written.
    pub stream: Stream,
    /// What was written, without a newline.
    pub text: Text,
    /// What followed it in the stream.
    pub end: LineEnd,
}

impl OutputLine {
    /// The line that a piece of `stream` is.
    #[must_use]
    pub fn new(stream: Stream, piece: Piece) -> Self {
        Self { stream, text: piece.bytes.into(), end: piece.end }
    }

    /// The payload of the event that records the line. Only a part that the next line of the same stream continues
    /// says so; the exact bytes are added only where the text cannot hold them.
    #[must_use]
    pub fn to_payload(&self) -> Value {
        let mut payload = json!({
            "stream": self.stream.name(),
            "text": String::from_utf8_lossy(self.text.as_bytes()),
        });
        if let Text::Bytes(bytes) = &self.text {
            payload["base64"] = STANDARD.encode(bytes).into();
        }
        if self.end == LineEnd::Continued {
            payload["continued"] = true.into();
        }
        payload
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(stream: Stream, bytes: &[u8], end: LineEnd) -> Value {
        OutputLine::new(stream, Piece { bytes: bytes.to_vec(), end }).to_payload()
    }

    #[test]
    fn a_line_of_text_is_its_stream_and_its_text() {
        let expected = json!({"stream": "stdout", "text": "grün"});
        assert_eq!(payload(Stream::Stdout, "grün".as_bytes(), LineEnd::Newline), expected);
        assert_eq!(payload(Stream::Stdout, "grün".as_bytes(), LineEnd::EndOfStream), expected);
    }

    #[test]
    fn bytes_that_are_no_text_are_there_twice() {
        let expected = json!({"stream": "stderr", "text": "a\u{fffd}b", "base64": "Yf9i"});
        assert_eq!(payload(Stream::Stderr, b"a\xffb", LineEnd::Newline), expected);
    }

    #[test]
    fn a_part_that_is_continued_says_so() {
        let expected = json!({"stream": "stdout", "text": "abc", "continued": true});
        assert_eq!(payload(Stream::Stdout, b"abc", LineEnd::Continued), expected);
    }
}

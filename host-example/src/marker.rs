//! The marker: a random value in the environment of a guard, its command and whatever these start.
//!
//! An environment survives `fork`, `exec`, `setsid` and the death of every parent, which no process group and no pid
//! does. It owns the value and the name of its variable; it does not know how processes are searched for it.

use std::{ffi::OsStr, fmt, io, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The variable that carries the marker.
pub const MARKER_VARIABLE: &str = "PROCTOR_MARKER";

const MARKER_BYTES: usize = 16;

/// A value that no two attempts share: 32 lower-case hexadecimal digits.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Marker(String);

/// The text is not a marker.
#[derive(Debug, Error)]
#[error("marker {text:?} is not {digits} lower-case hexadecimal digits", digits = 2 * MARKER_BYTES)]
pub struct MarkerError {
    text: String,
}

impl Marker {
    /// Draws a new marker from the kernel's random numbers.
    ///
    /// # Errors
    ///
    /// When the kernel gives no random numbers.
    pub fn random() -> io::Result<Self> {
        let mut bytes = [0_u8; MARKER_BYTES];
        getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Self(format!("{:032x}", u128::from_ne_bytes(bytes))))
    }

    /// The marker as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `environ`, as the kernel shows it in `/proc/PID/environ`, carries this marker.
    #[must_use]
    pub fn is_in(&self, environ: &[u8]) -> bool {
        environ.split(|&byte| byte == 0).any(|entry| {
            entry
                .strip_prefix(MARKER_VARIABLE.as_bytes())
                .and_then(|rest| rest.strip_prefix(b"="))
                .is_some_and(|value| value == self.0.as_bytes())
        })
    }
}

impl AsRef<OsStr> for Marker {
    fn as_ref(&self) -> &OsStr {
        self.0.as_ref()
    }
}

impl fmt::Display for Marker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Marker {
    type Err = MarkerError;

    fn from_str(text: &str) -> Result<Self, MarkerError> {
        let digits = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        // An empty or short marker would match too much, and what matches is killed.
        if digits && text.len() == 2 * MARKER_BYTES {
            Ok(Self(text.to_owned()))
        } else {
            Err(MarkerError { text: text.to_owned() })
        }
    }
}

impl TryFrom<String> for Marker {
    type Error = MarkerError;

    fn try_from(text: String) -> Result<Self, MarkerError> {
        text.parse()
    }
}

impl From<Marker> for String {
    fn from(marker: Marker) -> Self {
        marker.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marker() -> Marker {
        "00112233445566778899aabbccddeeff".parse().expect("the marker is well formed")
    }

    #[test]
    fn two_random_markers_differ_and_parse_again() {
        let (one, other) = (Marker::random().expect("random numbers"), Marker::random().expect("random numbers"));
        assert_ne!(one, other);
        assert_eq!(one, one.as_str().parse().expect("a random marker is well formed"));
    }

    #[test]
    fn a_short_or_upper_case_marker_is_refused() {
        for text in ["", "0011", "00112233445566778899AABBCCDDEEFF", "00112233445566778899aabbccddeeffa"] {
            assert!(text.parse::<Marker>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_marker_is_found_among_other_variables() {
        assert!(marker().is_in(b"PATH=/bin\0PROCTOR_MARKER=00112233445566778899aabbccddeeff\0A=b\0"));
    }

    #[test]
    fn only_the_whole_variable_with_the_whole_value_counts() {
        for environ in [
            &b""[..],
            b"PROCTOR_MARKER=\0",
            b"XPROCTOR_MARKER=00112233445566778899aabbccddeeff\0",
            b"PROCTOR_MARKER=00112233445566778899aabbccddeeff0\0",
            b"PROCTOR_MARKER=00112233445566778899aabbccddeef\0",
            b"NOTE=PROCTOR_MARKER=00112233445566778899aabbccddeeff\0",
        ] {
            assert!(!marker().is_in(environ), "{}", String::from_utf8_lossy(environ));
        }
    }
}

//! SHA-256 values: registration hashes, record checksums and the links of an event chain.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// A SHA-256 value. Serialised as lowercase hex.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Hash of the parts, each preceded by its length, so that no two lists of parts share one input.
    #[must_use]
    pub fn of_parts<const N: usize>(parts: [&[u8]; N]) -> Self {
        let mut hasher = Sha256::new();
        for part in parts {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        Self(hasher.finalize().into())
    }

    /// Hash of the canonical JSON of a value: compact, and the keys of every object sorted.
    ///
    /// The keys are sorted here rather than trusted to come sorted: a host whose dependencies switch on the
    /// `preserve_order` feature of serde_json would otherwise hash by the order of insertion, and a value would not have
    /// the hash that it had before a restart.
    ///
    /// # Errors
    /// What serde reports of a value that has no JSON form.
    pub fn of_json<T: Serialize>(value: &T) -> Result<Self, serde_json::Error> {
        let mut canonical = Vec::new();
        write_canonical(&serde_json::to_value(value)?, &mut canonical)?;
        Ok(Self(Sha256::digest(canonical).into()))
    }

    /// The thirty-two bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first eight bytes: enough to recognise a value among few, as cursors do.
    #[must_use]
    pub fn short(&self) -> [u8; 8] {
        let mut short = [0; 8];
        short.copy_from_slice(&self.0[..8]);
        short
    }

    /// Takes thirty-two stored bytes; `None` for any other length.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Reads lowercase or uppercase hex.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let text = text.as_bytes();
        let mut bytes = [0; 32];
        if text.len() != 2 * bytes.len() {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
            let high = char::from(pair[0]).to_digit(16)?;
            let low = char::from(pair[1]).to_digit(16)?;
            *byte = u8::try_from(high * 16 + low).ok()?;
        }
        Some(Self(bytes))
    }
}

fn write_canonical(value: &Value, out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => serde_json::to_writer(out, value),
        Value::Array(items) => {
            out.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_canonical(item, out)?;
            }
            out.push(b']');
            Ok(())
        }
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_unstable_by_key(|(name, _)| *name);
            out.push(b'{');
            for (index, (name, field)) in fields.into_iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                serde_json::to_writer(&mut *out, name)?;
                out.push(b':');
                write_canonical(field, out)?;
            }
            out.push(b'}');
            Ok(())
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            write!(formatter, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::from_hex(&text).ok_or_else(|| {
            serde::de::Error::custom(format_args!("a digest is 64 hexadecimal digits, got {} bytes", text.len()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_border_between_parts_counts() {
        assert_ne!(Digest::of_parts([b"ab", b"c"]), Digest::of_parts([b"a", b"bc"]));
    }

    /// The digest of a value used to follow the order in which its fields were written down, which `preserve_order`, a
    /// feature that any other crate of a host may switch on, makes the order of insertion.
    #[test]
    fn the_order_of_fields_does_not_count() {
        #[derive(Serialize)]
        struct Backwards {
            b: [u8; 2],
            a: &'static str,
        }
        let canonical = Digest(Sha256::digest(br#"{"a":"\"x\"","b":[1,2]}"#).into());
        let digest = Digest::of_json(&Backwards { b: [1, 2], a: "\"x\"" }).expect("has a JSON form");
        assert_eq!(digest, canonical);
        let sorted = serde_json::json!({"a": "\"x\"", "b": [1, 2]});
        assert_eq!(Digest::of_json(&sorted).expect("has a JSON form"), canonical);
    }

    #[test]
    fn hex_reads_back() {
        let digest = Digest::of_parts([b"x"]);
        assert_eq!(Digest::from_hex(&digest.to_string()), Some(digest));
        assert_eq!(Digest::from_hex("zz"), None);
        assert_eq!(Digest::from_hex(&"é".repeat(32)), None);
    }
}

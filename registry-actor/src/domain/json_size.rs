//! How large a JSON value is when it is written.

use serde::Serialize;
use serde_json::Value;

use super::{Limits, Measure, Refusal};

/// Refuses a value whose JSON form is larger than a payload may be.
pub(crate) fn check_size(what: &str, value: &Value) -> Result<(), Refusal> {
    // Writing a value in order to measure it would cost every append; few come near the limit.
    if upper_bound(value) <= Limits::PAYLOAD_BYTES {
        return Ok(());
    }
    check_written_size(what, value)
}

/// The same for anything that has a JSON form. One that has none is refused later, where it is written.
pub(crate) fn check_written_size(what: &str, value: &impl Serialize) -> Result<(), Refusal> {
    match serde_json::to_vec(value) {
        Ok(written) if written.len() > Limits::PAYLOAD_BYTES => Err(Refusal::LimitExceeded {
            what: what.to_owned(),
            measure: Measure::Bytes,
            limit: Limits::PAYLOAD_BYTES as u64,
            found: written.len() as u64,
        }),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// No value is written with more bytes than this: a character takes six where it is escaped, a number never over 32.
fn upper_bound(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) => 5,
        Value::Number(_) => 32,
        Value::String(text) => text.len().saturating_mul(6).saturating_add(2),
        Value::Array(items) => items.iter().fold(2, |sum: usize, item| sum.saturating_add(upper_bound(item) + 1)),
        Value::Object(fields) => fields.iter().fold(2, |sum: usize, (name, field)| {
            sum.saturating_add(name.len().saturating_mul(6)).saturating_add(upper_bound(field).saturating_add(4))
        }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_bound_is_never_below_what_is_written() {
        for value in [
            json!(null),
            json!(-1.797_693_134_862_315_7e308),
            json!("\u{1}\u{1f680}\\\""),
            json!([[], {}, {"\u{1}": [false, u64::MAX]}]),
        ] {
            assert!(upper_bound(&value) >= value.to_string().len(), "{value}");
        }
    }

    #[test]
    fn the_limit_is_inclusive() {
        let of_size = |bytes: usize| Value::String("x".repeat(bytes - 2));
        assert_eq!(check_size("payload", &of_size(Limits::PAYLOAD_BYTES)), Ok(()));
        let found = Limits::PAYLOAD_BYTES as u64 + 1;
        let refused = check_size("payload", &of_size(Limits::PAYLOAD_BYTES + 1));
        assert!(matches!(refused, Err(Refusal::LimitExceeded { found: bytes, .. }) if bytes == found), "{refused:?}");
    }
}

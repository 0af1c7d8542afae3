//! How deep JSON values may nest.
//!
//! The codec of stored events gives up at 128 levels when it reads, but not when it writes: without a bound of its own,
//! one append could store an event that no reader ever gets past.

use serde_json::Value;

/// How many arrays and objects may stand in one another in a value that a caller hands in. What the registry puts
/// around such a value (event, outcome, receipt, page) stays within the remaining levels.
pub(crate) const MAX_LEVELS: usize = 96;

/// What a value that nests deeper is refused with.
pub(crate) fn too_deep() -> String {
    format!("nested deeper than {MAX_LEVELS} levels")
}

/// Whether the value has at most so many levels. Its own recursion ends with them, so that no value can exhaust the
/// stack here.
pub(crate) fn nests_within(value: &Value, levels: usize) -> bool {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
        Value::Array(items) => levels > 0 && items.iter().all(|item| nests_within(item, levels - 1)),
        Value::Object(fields) => levels > 0 && fields.values().all(|field| nests_within(field, levels - 1)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_array_and_object_is_one_level() {
        assert!(nests_within(&json!("text"), 0));
        assert!(!nests_within(&json!([]), 0));
        assert!(nests_within(&json!([{"a": 1}, 2]), 2));
        assert!(!nests_within(&json!([{"a": []}]), 2));
    }

    /// A value of a hundred thousand levels is as good a caller's mistake as one of a hundred.
    #[test]
    fn the_depth_of_the_value_does_not_cost_stack() {
        let mut value = json!(0);
        for _ in 0..100_000 {
            value = Value::Array(vec![value]);
        }
        assert!(!nests_within(&value, MAX_LEVELS));
        // Dropping it is recursive in serde_json itself.
        std::mem::forget(value);
    }
}

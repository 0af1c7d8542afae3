//! Payload schemas. The dialect is JSON Schema 2020-12 as the `jsonschema` crate implements it, without references
//! that leave the document: nothing is fetched or read to check a payload.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError};

use jsonschema::Validator;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Digest;

/// How many compiled schemas are kept for reuse by other processes that declare the same.
const COMPILED_SCHEMAS_KEPT: usize = 256;

/// Schema of an event payload. Serialised as `{"schema": …}`.
#[derive(Clone, Serialize, Deserialize)]
pub struct PayloadSchema {
    schema: Value,
    #[serde(skip)]
    compiled: OnceLock<Result<Arc<Validator>, String>>,
}

impl PayloadSchema {
    /// Takes a JSON Schema document. Whether it is one shows at registration.
    #[must_use]
    pub const fn new(schema: Value) -> Self {
        Self { schema, compiled: OnceLock::new() }
    }

    /// Accepts every payload.
    #[must_use]
    pub fn any() -> Self {
        Self::new(json!({}))
    }

    /// An object with these properties, more allowed, of which the `required` ones must be there.
    #[must_use]
    pub fn object(properties: Value, required: &[&str]) -> Self {
        let mut schema = json!({"type": "object", "properties": properties, "additionalProperties": true});
        if !required.is_empty() {
            schema["required"] = json!(required);
        }
        Self::new(schema)
    }

    /// The document.
    #[must_use]
    pub const fn as_value(&self) -> &Value {
        &self.schema
    }

    /// Whether the document is a usable schema.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        if self.accepts_all() { Ok(()) } else { self.validator().map(|_| ()) }
    }

    /// Whether the payload fits.
    ///
    /// # Errors
    /// One reason for each place that does not fit, with its path, joined by `; `.
    pub fn validate(&self, payload: &Value) -> Result<(), String> {
        if self.accepts_all() {
            return Ok(());
        }
        let validator = self.validator()?;
        let reasons: Vec<String> = validator
            .iter_errors(payload)
            .map(|error| {
                let path = error.instance_path().to_string();
                if path.is_empty() { error.to_string() } else { format!("{path}: {error}") }
            })
            .collect();
        if reasons.is_empty() { Ok(()) } else { Err(reasons.join("; ")) }
    }

    fn accepts_all(&self) -> bool {
        match &self.schema {
            Value::Bool(accepts) => *accepts,
            Value::Object(keywords) => keywords.is_empty(),
            _ => false,
        }
    }

    fn validator(&self) -> Result<&Arc<Validator>, String> {
        self.compiled.get_or_init(|| compiled(&self.schema)).as_ref().map_err(Clone::clone)
    }
}

/// Compiling costs tens of microseconds and kilobytes, and a host registers thousands of processes with the same few
/// schemas: the compiled form is shared. It is a memo of a pure function, hence no state that a test could see.
fn compiled(schema: &Value) -> Result<Arc<Validator>, String> {
    static MEMO: LazyLock<Mutex<HashMap<Digest, Arc<Validator>>>> = LazyLock::new(Mutex::default);
    let key = Digest::of_json(schema).map_err(|error| error.to_string())?;
    if let Some(known) = MEMO.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
        return Ok(Arc::clone(known));
    }
    let validator = Arc::new(jsonschema::validator_for(schema).map_err(|error| error.to_string())?);
    let mut memo = MEMO.lock().unwrap_or_else(PoisonError::into_inner);
    if memo.len() >= COMPILED_SCHEMAS_KEPT {
        memo.clear();
    }
    memo.insert(key, Arc::clone(&validator));
    Ok(validator)
}

impl PartialEq for PayloadSchema {
    fn eq(&self, other: &Self) -> bool {
        self.schema == other.schema
    }
}

impl fmt::Debug for PayloadSchema {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("PayloadSchema").field(&self.schema).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_that_does_not_fit_is_told_where_and_why() {
        let schema = PayloadSchema::object(json!({"line": {"type": "integer"}}), &["line"]);
        assert_eq!(schema.validate(&json!({"line": 3, "extra": true})), Ok(()));
        let missing = schema.validate(&json!({})).expect_err("line is required");
        assert!(missing.contains("\"line\" is a required property"), "{missing}");
        let wrong = schema.validate(&json!({"line": "x"})).expect_err("a text is no integer");
        assert!(wrong.starts_with("/line: "), "{wrong}");
    }

    #[test]
    fn a_document_that_is_no_schema_is_refused_by_the_check() {
        assert!(PayloadSchema::new(json!({"type": 7})).check().is_err());
        assert!(PayloadSchema::new(json!("text")).check().is_err());
        assert!(PayloadSchema::new(json!({"$ref": "https://example.invalid/s.json"})).check().is_err());
        assert!(PayloadSchema::new(json!({"$ref": "file:///etc/passwd"})).check().is_err());
        assert!(PayloadSchema::any().check().is_ok());
        assert!(PayloadSchema::new(json!(false)).validate(&json!(1)).is_err());
    }
}

//! Value selectors: how a declared event type picks values out of a payload.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::nesting;

/// Picks or builds a value from an event payload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessValueSelector {
    /// The whole payload.
    Payload,
    /// What an RFC 6901 pointer names; a miss is an error, the empty pointer is the whole payload.
    Pointer(String),
    /// A constant.
    Const(Value),
    /// A text with `{name}` placeholders.
    Template {
        /// The text. It is read once: a substituted text is never expanded again, and an unknown placeholder stays.
        template: String,
        /// What each placeholder stands for.
        #[serde(default)]
        fields: BTreeMap<String, Self>,
    },
    /// Whether a pointer resolves. An explicit null counts as present.
    Present(String),
}

/// A selector that does not fit its payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum SelectorError {
    /// The pointer names nothing.
    #[error("payload pointer `{pointer}` did not match")]
    PointerMissed {
        /// The pointer.
        pointer: String,
    },
}

impl ProcessValueSelector {
    /// Evaluates the selector over a payload.
    ///
    /// # Errors
    /// [`SelectorError::PointerMissed`] where a pointer names nothing.
    pub fn select(&self, payload: &Value) -> Result<Value, SelectorError> {
        match self {
            Self::Payload => Ok(payload.clone()),
            Self::Pointer(pointer) => payload
                .pointer(pointer)
                .cloned()
                .ok_or_else(|| SelectorError::PointerMissed { pointer: pointer.clone() }),
            Self::Const(value) => Ok(value.clone()),
            Self::Template { template, fields } => {
                let mut texts = BTreeMap::new();
                for (name, field) in fields {
                    texts.insert(name.as_str(), stringify(&field.select(payload)?));
                }
                Ok(Value::String(render(template, &texts)))
            }
            Self::Present(pointer) => Ok(Value::Bool(payload.pointer(pointer).is_some())),
        }
    }

    /// Whether its JSON form has at most so many levels.
    pub(crate) fn nests_within(&self, levels: usize) -> bool {
        match self {
            Self::Payload => true,
            Self::Pointer(_) | Self::Present(_) => levels >= 1,
            Self::Const(value) => levels >= 1 && nesting::nests_within(value, levels - 1),
            // `{"template": {"fields": {name: …}}}`
            Self::Template { fields, .. } => levels >= 3 && fields.values().all(|field| field.nests_within(levels - 3)),
        }
    }
}

/// A string's contents; anything else as compact JSON.
pub(crate) fn stringify(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Whether a condition holds: null does not, a bool is itself, texts, arrays and objects hold unless empty, and every
/// number holds, zero included.
pub(crate) fn is_truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(_) => true,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

fn render(template: &str, texts: &BTreeMap<&str, String>) -> String {
    let mut rendered = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(open) = rest.find('{') {
        rendered.push_str(&rest[..open]);
        let after_open = &rest[open + 1..];
        let known = after_open.find('}').and_then(|close| Some((close, texts.get(&after_open[..close])?)));
        if let Some((close, text)) = known {
            rendered.push_str(text);
            rest = &after_open[close + 1..];
        } else {
            rendered.push('{');
            rest = after_open;
        }
    }
    rendered.push_str(rest);
    rendered
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn selected(selector: Value, payload: &Value) -> Result<Value, SelectorError> {
        serde_json::from_value::<ProcessValueSelector>(selector).expect("a selector").select(payload)
    }

    #[test]
    fn each_selector_picks_what_its_form_says() {
        let payload = json!({"a": {"b": [1, null]}, "text": "t"});
        assert_eq!(selected(json!("payload"), &payload), Ok(payload.clone()));
        assert_eq!(selected(json!({"pointer": "/a/b/0"}), &payload), Ok(json!(1)));
        assert_eq!(selected(json!({"pointer": ""}), &payload), Ok(payload.clone()));
        assert_eq!(selected(json!({"const": {"k": 1}}), &payload), Ok(json!({"k": 1})));
        assert_eq!(selected(json!({"present": "/a/b/1"}), &payload), Ok(json!(true)), "an explicit null is present");
        assert_eq!(selected(json!({"present": "/nope"}), &payload), Ok(json!(false)));
        assert_eq!(
            selected(json!({"pointer": "/nope"}), &payload).expect_err("missing").to_string(),
            "payload pointer `/nope` did not match"
        );
    }

    /// The peer replaced one field after the other, so that a text which came from the payload could pull in another
    /// field: with a = "{b}" and b = "secret" the template "{a}" gave "secret".
    #[test]
    fn a_substituted_text_is_not_expanded_again() {
        let template = json!({"template": {
            "template": "{a} {b} {unknown} {",
            "fields": {"a": {"pointer": "/a"}, "b": {"pointer": "/b"}},
        }});
        let payload = json!({"a": "{b}", "b": ["secret"]});
        assert_eq!(selected(template, &payload), Ok(json!("{b} [\"secret\"] {unknown} {")));
    }

    #[test]
    fn a_template_with_a_missing_field_is_an_error() {
        let template = json!({"template": {"template": "x", "fields": {"a": {"pointer": "/a"}}}});
        assert!(selected(template, &json!({})).is_err());
    }

    #[test]
    fn every_number_is_truthy_and_every_empty_container_is_not() {
        for value in [json!(true), json!(0), json!(0.0), json!("x"), json!([0]), json!({"a": null})] {
            assert!(is_truthy(&value), "{value}");
        }
        for value in [json!(null), json!(false), json!(""), json!([]), json!({})] {
            assert!(!is_truthy(&value), "{value}");
        }
    }
}

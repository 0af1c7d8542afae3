//! Value selectors: how a declared event type picks values out of a payload.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Limits, nesting};

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
    /// Templates put together more text than they may.
    #[error("templates must put together at most {limit} bytes of text, got {found}")]
    TooLarge {
        /// [`Limits::TEMPLATE_BYTES`], inclusive.
        limit: u64,
        /// How far it had come when it was given up.
        found: u64,
    },
}

impl ProcessValueSelector {
    /// Evaluates the selector over a payload.
    ///
    /// # Errors
    /// [`SelectorError::PointerMissed`] where a pointer names nothing, [`SelectorError::TooLarge`] where templates put
    /// together more text than they may.
    pub fn select(&self, payload: &Value) -> Result<Value, SelectorError> {
        self.select_within(payload, &mut TextBudget::default())
    }

    fn select_within(&self, payload: &Value, budget: &mut TextBudget) -> Result<Value, SelectorError> {
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
                    let text = stringify(&field.select_within(payload, budget)?);
                    budget.take(text.len())?;
                    texts.insert(name.as_str(), text);
                }
                render(template, &texts, budget).map(Value::String)
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

/// What the templates of one evaluation have put together so far. A template can name one field as often as it likes, and
/// a field can be a template: without a bound, a declaration and a payload of a megabyte each make texts of terabytes.
#[derive(Default)]
struct TextBudget {
    taken: usize,
}

impl TextBudget {
    fn take(&mut self, bytes: usize) -> Result<(), SelectorError> {
        self.taken = self.taken.saturating_add(bytes);
        if self.taken > Limits::TEMPLATE_BYTES {
            let [limit, found] = [Limits::TEMPLATE_BYTES, self.taken].map(|bytes| bytes as u64);
            return Err(SelectorError::TooLarge { limit, found });
        }
        Ok(())
    }
}

fn render(template: &str, texts: &BTreeMap<&str, String>, budget: &mut TextBudget) -> Result<String, SelectorError> {
    let mut rendered = String::new();
    let mut rest = template;
    while let Some(open) = rest.find('{') {
        let after_open = &rest[open + 1..];
        let known = after_open.find('}').and_then(|close| Some((close, texts.get(&after_open[..close])?)));
        let (text, after) = known.map_or(("{", after_open), |(close, text)| (text.as_str(), &after_open[close + 1..]));
        budget.take(open.saturating_add(text.len()))?;
        rendered.push_str(&rest[..open]);
        rendered.push_str(text);
        rest = after;
    }
    budget.take(rest.len())?;
    rendered.push_str(rest);
    Ok(rendered)
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
    fn what_templates_put_together_is_bounded() {
        let text = |bytes: usize| Value::String("x".repeat(bytes));
        let half = Limits::TEMPLATE_BYTES / 2;
        let once = || json!({"template": {"template": "{a}", "fields": {"a": {"pointer": "/a"}}}});
        assert_eq!(selected(once(), &json!({"a": text(half)})), Ok(text(half)), "made once and put in once");
        let limit = Limits::TEMPLATE_BYTES as u64;
        let too_large = |found: usize| Err(SelectorError::TooLarge { limit, found: found as u64 });
        assert_eq!(selected(once(), &json!({"a": text(half + 1)})), too_large(2 * (half + 1)));
        let often = json!({"template": {"template": "{a}".repeat(100_000), "fields": {"a": {"pointer": "/a"}}}});
        assert_eq!(selected(often, &json!({"a": text(half / 4)})), too_large(half / 4 * 9));
        // Sixteen fields of each of five levels would be a million texts.
        let wide = (0..5).fold(json!("payload"), |inner, _| {
            let fields: BTreeMap<_, _> = (0..16).map(|name| (name.to_string(), inner.clone())).collect();
            json!({"template": {"template": "", "fields": fields}})
        });
        assert!(matches!(selected(wide, &text(1_000)), Err(SelectorError::TooLarge { .. })));
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

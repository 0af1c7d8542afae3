//! Names: what may stand where a caller names something.

use super::{Limits, Measure, Refusal};

/// Refuses a name that is blank, too long, or holds control characters.
pub(crate) fn check_name(what: &str, name: &str) -> Result<(), Refusal> {
    if name.trim().is_empty() {
        return Err(Refusal::EmptyName { what: what.to_owned() });
    }
    if name.len() > Limits::NAME_BYTES {
        return Err(Refusal::LimitExceeded {
            what: what.to_owned(),
            measure: Measure::Bytes,
            limit: Limits::NAME_BYTES as u64,
            found: name.len() as u64,
        });
    }
    match name.chars().find(|character| character.is_control()) {
        Some(found) => Err(Refusal::ControlCharacter { what: what.to_owned(), found }),
        None => Ok(()),
    }
}

//! How deep a JSON text nests. A reader of such texts gives up at 128 levels: what nests deeper is not sent, so that it is
//! refused as what it is and does not end the connection.

/// How many levels a message may have. What is around a value of the allowed depth fits in, so that the registry can refuse
/// one that is a little deeper itself.
pub(super) const MAX_LEVELS: usize = 120;

/// The levels of a text that was written by a serializer. Does not recurse.
pub(super) fn levels(json: &[u8]) -> usize {
    let (mut level, mut deepest, mut in_text, mut escaped) = (0_usize, 0, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => {
                level += 1;
                deepest = deepest.max(level);
            }
            b']' | b'}' if !in_text => level = level.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_count_and_those_in_texts_do_not() {
        assert_eq!(levels(b"7"), 0);
        assert_eq!(levels(br#"{"a":[1,[2]],"b":{}}"#), 3);
        assert_eq!(levels(br#"["[[[\"[[","\\",[]]"#), 2);
    }
}

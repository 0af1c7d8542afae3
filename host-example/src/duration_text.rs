//! Lengths of time as people write and read them: `90s`, `5m`, `1h 30m`, `30d`. A day has 24 hours.

use jiff::{SignedDuration, Span, SpanRelativeTo};

/// The duration that was typed, in ms, at least 1.
///
/// # Errors
/// What is wrong with it, in words.
pub(crate) fn to_ms(text: &str) -> Result<u64, String> {
    let expected = "expected a duration such as `250ms`, `90s` or `1h 30m`";
    let wrong = |error: jiff::Error| format!("{expected}: {error}");
    let span: Span = text.parse().map_err(wrong)?;
    let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(wrong)?;
    match u64::try_from(duration.as_millis()) {
        Ok(0) | Err(_) => Err(format!("{expected} of at least 1ms, got `{text}`")),
        Ok(ms) => Ok(ms),
    }
}

/// A length of time for people; above a second, to the second.
pub(crate) fn of_ms(ms: u64) -> String {
    let shown = if ms < 1_000 { ms } else { ms / 1_000 * 1_000 };
    i64::try_from(shown).map_or_else(|_| format!("{ms} ms"), |ms| format!("{:#}", SignedDuration::from_millis(ms)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        let read: Vec<_> = ["250ms", "90s", "5m", "1h 30m", "1 hour 30 minutes", "PT2S", "1.5s", "30d"]
            .map(to_ms)
            .into_iter()
            .collect();
        let expected = [250, 90_000, 300_000, 5_400_000, 5_400_000, 2_000, 1_500, 2_592_000_000].map(Ok);
        assert_eq!(read, expected);
    }

    #[test]
    fn what_is_no_duration_is_refused_in_words() {
        for text in ["", "90", "soon", "0s", "-5s", "1us", "3 months"] {
            let refused = to_ms(text).expect_err(text);
            assert!(refused.starts_with("expected a duration such as `250ms`"), "{text}: {refused}");
        }
    }

    #[test]
    fn durations_are_shown_to_the_second() {
        assert_eq!([0, 250, 1_999, 90_000, 5_400_000].map(of_ms), ["0s", "250ms", "1s", "1m 30s", "1h 30m"]);
        assert_eq!(of_ms(u64::MAX), format!("{} ms", u64::MAX));
    }
}

//! Points in time as people read them.

use jiff::Timestamp;

/// A time in UTC, to the second.
pub(crate) fn second(epoch_ms: u64) -> String {
    shown(epoch_ms, "%Y-%m-%d %H:%M:%SZ")
}

/// A time of day in UTC, to the millisecond.
pub(crate) fn instant(epoch_ms: u64) -> String {
    shown(epoch_ms, "%Y-%m-%d %H:%M:%S%.3fZ")
}

/// How long ago it was, in its largest unit; a time to come is now.
pub(crate) fn age(epoch_ms: u64, now_ms: u64) -> String {
    let seconds = now_ms.saturating_sub(epoch_ms) / 1_000;
    let units = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let largest = units.into_iter().find(|(unit, _)| seconds >= *unit);
    largest.map_or_else(|| "now".to_owned(), |(unit, name)| format!("{}{name} ago", seconds / unit))
}

fn shown(epoch_ms: u64, format: &str) -> String {
    let timestamp = i64::try_from(epoch_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    // A clock that far off is shown as what it says.
    timestamp.map_or_else(|| format!("{epoch_ms} ms"), |timestamp| timestamp.strftime(format).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_shown_in_its_largest_unit() {
        let ages = [0, 999, 1_000, 59_999, 60_000, 3_600_000, 86_399_999, 86_400_000, 40 * 86_400_000];
        let shown = ages.map(|age_ms| age(1_000_000_000_000, 1_000_000_000_000 + age_ms));
        assert_eq!(shown, ["now", "now", "1s ago", "59s ago", "1m ago", "1h ago", "23h ago", "1d ago", "40d ago"]);
        assert_eq!(age(2_000, 1_000), "now");
    }

    #[test]
    fn a_time_is_shown_in_utc() {
        assert_eq!(second(1_795_505_701_250), "2026-11-24 07:35:01Z");
        assert_eq!(instant(1_795_505_701_250), "2026-11-24 07:35:01.250Z");
        assert_eq!(second(u64::MAX), format!("{} ms", u64::MAX));
    }
}

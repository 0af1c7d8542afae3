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

fn shown(epoch_ms: u64, format: &str) -> String {
    let timestamp = i64::try_from(epoch_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    // A clock that far off is shown as what it says.
    timestamp.map_or_else(|| format!("{epoch_ms} ms"), |timestamp| timestamp.strftime(format).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_shown_in_utc() {
        assert_eq!(second(1_795_505_701_250), "2026-11-24 07:35:01Z");
        assert_eq!(instant(1_795_505_701_250), "2026-11-24 07:35:01.250Z");
        assert_eq!(second(u64::MAX), format!("{} ms", u64::MAX));
    }
}

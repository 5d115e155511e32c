//! The time in the Namespace's annotation [`BYPASS_UNTIL`](podwitness_core::labels::BYPASS_UNTIL).

use k8s_openapi::jiff::Timestamp;

/// Seconds since 1970 until which sidecars pass everything on unrecorded; `None` for what is no RFC 3339 time, which has
/// no effect.
#[must_use]
pub fn bypass_until(annotation: &str) -> Option<i64> {
    annotation.parse::<Timestamp>().ok().map(Timestamp::as_second)
}

/// A time in UTC, as RFC 3339 has it; empty for one that no calendar holds.
#[must_use]
pub fn rfc3339(seconds: i64) -> String {
    Timestamp::from_second(seconds).map(|time| time.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_written_as_rfc_3339() {
        for (text, expected) in [
            ("2027-01-15T08:00:00Z", Some(1_800_000_000)),
            ("2027-01-15T09:00:00+01:00", Some(1_800_000_000)),
            ("tomorrow", None),
            ("2027-01-15", None),
            ("2027-01-15T08:00:00", None),
            ("2027-13-15T08:00:00Z", None),
            ("", None),
        ] {
            assert_eq!(bypass_until(text), expected, "{text:?}");
        }
        assert_eq!(rfc3339(1_800_000_000), "2027-01-15T08:00:00Z");
        assert_eq!(rfc3339(i64::MAX), "");
    }
}

//! Parsers for settings: `None` for any text that is not what it should be.

use std::{str::FromStr, time::Duration};

/// Any text.
#[must_use]
pub fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

/// Whatever the type itself parses.
#[must_use]
pub fn from_str<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

/// `true` or `false`.
#[must_use]
pub fn flag(text: &str) -> Option<bool> {
    from_str(text)
}

/// A whole number with unit: `250ms`, `30s`, `5m`, `12h`, `10d`.
#[must_use]
pub fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = split_unit(text)?;
    let seconds = match unit {
        "ms" => return Some(Duration::from_millis(number)),
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86400,
        _ => return None,
    };
    number.checked_mul(seconds).map(Duration::from_secs)
}

/// A size in bytes, alone or with a binary suffix: `1048576`, `64Ki`, `1Mi`, `2Gi`.
#[must_use]
pub fn bytes(text: &str) -> Option<u64> {
    let (number, unit) = split_unit(text)?;
    let factor = match unit {
        "" => 1,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(factor)
}

/// A percentage below a hundred: `10%`.
#[must_use]
pub fn percent(text: &str) -> Option<u8> {
    text.strip_suffix('%')?.parse().ok().filter(|percent| *percent < 100)
}

fn split_unit(text: &str) -> Option<(u64, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits)?;
    Some((number.parse().ok()?, unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_need_a_known_unit() {
        assert_eq!(duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(duration("5m"), Some(Duration::from_secs(300)));
        assert_eq!(bytes("64Mi"), Some(64 << 20));
        assert_eq!(bytes("4096"), Some(4096));
        for wrong in ["", "s", "5", "5 m", "-5m", "5w", "99999999999999999999s", "18446744073709551615d"] {
            assert_eq!(duration(wrong), None, "{wrong:?}");
        }
        for wrong in ["", "Mi", "5M", "5k", "17179869184Gi"] {
            assert_eq!(bytes(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_percentage_is_below_a_hundred_and_says_that_it_is_one() {
        assert_eq!((percent("0%"), percent("99%")), (Some(0), Some(99)));
        for wrong in ["", "%", "10", "100%", "-1%", "1.5%", "10 %"] {
            assert_eq!(percent(wrong), None, "{wrong:?}");
        }
    }
}

//! Times that senders state, and what is believed of them.
//!
//! A session is listed under the time at which it began, which only its sender knows. Where that cannot be, it is the
//! recorder's: a start in the far future would stay on top of every list, one in the far past would be found in none. The
//! recording keeps what was stated.

/// How far a start may lie ahead of the recorder's clock, in seconds: clocks differ.
const AHEAD: i64 = 300;
/// How far before its upload a session may have begun, in seconds: it may last long, and be uploaded late.
const BEHIND: i64 = 400 * 86_400;

/// The start of a session, Unix seconds, of which its sender says `stated` and which was `received` then (Unix
/// milliseconds).
#[must_use]
pub fn start(stated: i64, received: i64) -> i64 {
    let received = received.div_euclid(1000);
    let earliest = received.saturating_sub(BEHIND).max(1);
    if (earliest..=received.saturating_add(AHEAD)).contains(&stated) { stated } else { received }
}

/// The length in seconds of what began at `start` (Unix seconds) and ended by the recorder's clock at `end` (Unix
/// milliseconds), of which its last line says `stated`.
#[must_use]
pub fn duration(stated: f64, start: i64, end: i64) -> f64 {
    let lasted = end.div_euclid(1000).saturating_sub(start).clamp(0, BEHIND);
    // Exact: the range is far below 2^53.
    let (lasted, tolerance) = (lasted as f64, AHEAD as f64);
    if (0.0..=lasted + tolerance).contains(&stated) { stated } else { lasted }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: i64 = 1_700_000_000;

    #[test]
    fn a_start_is_the_senders_where_it_can_be() {
        for stated in [NOW, NOW + AHEAD, NOW - 86_400, NOW - BEHIND] {
            assert_eq!(start(stated, NOW * 1000 + 999), stated);
        }
        // The year 292 billion, the beginning of time, and what says nothing.
        for stated in [i64::MAX, i64::MIN, -1, 0, 1, NOW + AHEAD + 1, NOW - BEHIND - 1] {
            assert_eq!(start(stated, NOW * 1000 + 999), NOW, "{stated}");
        }
    }

    #[test]
    fn a_session_lasts_no_longer_than_it_can_have() {
        for (stated, expected) in [
            (2.5, 2.5),
            (3600.0, 3600.0),
            (3600.0 + 299.0, 3899.0),
            (4000.0, 3600.0),
            (1e300, 3600.0),
            (-1.0, 3600.0),
            (f64::NAN, 3600.0),
            (f64::INFINITY, 3600.0),
        ] {
            assert_eq!(
                duration(stated, NOW, (NOW + 3600) * 1000).to_bits(),
                f64::to_bits(expected),
                "{stated}"
            );
        }
        assert_eq!(duration(1e9, NOW, 0).to_bits(), 0.0_f64.to_bits(), "a clock that was set back");
    }

    proptest! {
        #[test]
        fn whatever_is_stated_what_is_believed_is_near_the_recorders_clock(
            stated in any::<i64>(),
            length in any::<f64>(),
            received in 0..4_000_000_000_000_i64,
        ) {
            let start = start(stated, received);
            prop_assert!(start <= received / 1000 + AHEAD && start >= received / 1000 - BEHIND);
            let length = duration(length, start, received);
            prop_assert!((0.0..=(BEHIND + AHEAD) as f64).contains(&length));
        }
    }
}

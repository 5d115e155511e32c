//! What stands in place of lines that were changed while they waited in the spool.
//!
//! Places in the journal are those of the lines that were appended. What recorders get is counted in *positions*: the
//! same, but that a stretch of lines that fails its check counts as what is said in its place. Uploads know positions
//! alone.

use bytes::Bytes;

/// Stretches of a journal that are not read any more, in order.
#[derive(Debug, Default)]
pub(super) struct Rewrites(Vec<Rewrite>);

#[derive(Debug)]
struct Rewrite {
    from: u64,
    to: u64,
    text: Bytes,
}

/// What stands at a position.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Spot {
    /// What the journal has at that place.
    Place(u64),
    /// This, in place of what begins there in the journal.
    Text(Bytes, u64),
}

impl Rewrites {
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Puts `text` in place of what stands between two places, and of what was put there before.
    pub(super) fn put(&mut self, from: u64, to: u64, text: Bytes) {
        self.0.retain(|it| it.to <= from || it.from >= to);
        let at = self.0.partition_point(|it| it.from < from);
        self.0.insert(at, Rewrite { from, to, text });
    }

    /// What stands at a position.
    pub(super) fn at(&self, position: u64) -> Spot {
        let (mut place, mut passed) = (0, 0);
        for it in &self.0 {
            let start = passed + (it.from - place);
            let Some(inside) = position.checked_sub(start) else { break };
            let rest = usize::try_from(inside).ok().filter(|inside| *inside < it.text.len());
            if let Some(inside) = rest {
                return Spot::Text(it.text.slice(inside..), it.from);
            }
            (place, passed) = (it.to, start + it.text.len() as u64);
        }
        Spot::Place(place + (position - passed))
    }

    /// The place before which everything is acknowledged if everything before a position is.
    pub(super) fn place(&self, position: u64) -> u64 {
        match self.at(position) {
            Spot::Place(place) | Spot::Text(_, place) => place,
        }
    }

    /// The position of a place; within a stretch, that of its beginning.
    pub(super) fn position(&self, place: u64) -> u64 {
        let (mut behind, mut passed) = (0, 0);
        for it in self.0.iter().take_while(|it| it.from < place) {
            let start = passed + (it.from - behind);
            if place < it.to {
                return start;
            }
            (behind, passed) = (it.to, start + it.text.len() as u64);
        }
        passed + (place - behind)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_was_put_is_read_in_place_of_the_lines() {
        let mut rewrites = Rewrites::default();
        rewrites.put(10, 20, Bytes::from_static(b"gap"));
        rewrites.put(20, 30, Bytes::new());
        assert_eq!(rewrites.at(9), Spot::Place(9));
        assert_eq!(rewrites.at(10), Spot::Text(Bytes::from_static(b"gap"), 10));
        assert_eq!(rewrites.at(12), Spot::Text(Bytes::from_static(b"p"), 10));
        assert_eq!(rewrites.at(13), Spot::Place(30));
        assert_eq!([5, 10, 15, 30, 31].map(|place| rewrites.position(place)), [5, 10, 10, 13, 14]);
        rewrites.put(5, 20, Bytes::from_static(b"more"));
        assert_eq!(
            (rewrites.at(5), rewrites.at(9)),
            (Spot::Text(Bytes::from_static(b"more"), 5), Spot::Place(30))
        );
    }

    proptest! {
        #[test]
        fn positions_and_places_belong_together(
            stretches in prop::collection::vec((1u64..50, 1u64..50, 0usize..40), 0..8), place in 0u64..900,
        ) {
            let (mut rewrites, mut at) = (Rewrites::default(), 0);
            for (apart, len, text) in stretches {
                rewrites.put(at + apart, at + apart + len, vec![b'x'; text].into());
                at += apart + len;
            }
            let inside = rewrites.0.iter().any(|it| (it.from..it.to).contains(&place));
            if !inside {
                prop_assert_eq!(rewrites.at(rewrites.position(place)), Spot::Place(place));
            }
            prop_assert!(rewrites.position(place) <= rewrites.position(place + 1));
            prop_assert!(rewrites.place(place) <= rewrites.place(place + 1));
        }
    }
}

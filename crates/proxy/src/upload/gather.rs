//! Lines on their way from the journal into the body, gathered: a piece of the body is a frame and at least a packet.
//!
//! `journal --lines--> gather --piece--> body`. A piece is full with [`FRAME`] bytes. Less goes out at once where
//! nothing is on its way to the recorder, and otherwise after [`COMPANY`]: whoever types waits for nobody, and what
//! comes faster than it is acknowledged comes together.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use podwitness_wire::pack::{self, FRAME};
use tokio::time::Instant;

/// A piece with less room than this is full: for the little that fits in, everything would be copied.
const SCANT: usize = FRAME / 4;
/// How long a little waits for more.
const COMPANY: Duration = Duration::from_millis(20);

/// Whole lines that wait: less than a piece, and behind that what the journal gave last. They are shared with the
/// journal, which counts them.
#[derive(Debug, Default)]
pub(super) struct Gather {
    held: VecDeque<Bytes>,
    len: usize,
    /// When the first of them came.
    since: Option<Instant>,
}

impl Gather {
    pub(super) fn push(&mut self, lines: Bytes) {
        self.len += lines.len();
        self.held.push_back(lines);
        self.since.get_or_insert_with(Instant::now);
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether a piece need not wait.
    pub(super) const fn is_full(&self) -> bool {
        self.len > FRAME - SCANT
    }

    /// When a piece goes out however little it is.
    pub(super) fn due(&self) -> Option<Instant> {
        self.since.map(|since| since + COMPANY)
    }

    /// The next piece.
    pub(super) fn take(&mut self) -> Bytes {
        let (mut parts, mut taken) = (Vec::new(), 0);
        while let Some(lines) = self.held.front_mut() {
            let len = if taken == 0 { pack::cut(lines) } else { fitting(lines, FRAME.saturating_sub(taken)) };
            if len == 0 {
                break;
            }
            parts.push(lines.split_to(len));
            taken += len;
            if !lines.is_empty() {
                break;
            }
            self.held.pop_front();
            if FRAME.saturating_sub(taken) < SCANT {
                break;
            }
        }
        self.len -= taken;
        self.since = (self.len > 0).then(Instant::now);
        match parts.pop() {
            Some(only) if parts.is_empty() => only,
            last => parts.into_iter().chain(last).collect::<Vec<_>>().concat().into(),
        }
    }
}

/// How many bytes of whole lines fit into so much room.
fn fitting(lines: &[u8], room: usize) -> usize {
    match lines.get(..room) {
        Some(within) if room < lines.len() => {
            within.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1)
        }
        _ => lines.len(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(len: usize) -> Vec<u8> {
        [&vec![b'x'; len.max(1) - 1][..], b"\n"].concat()
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_is_due_with_its_first_line_and_what_is_left_waits_anew() {
        let mut gather = Gather::default();
        gather.push(line(1000).into());
        let due = gather.due();
        tokio::time::advance(COMPANY / 2).await;
        gather.push(line(1000).repeat(65).into());
        assert_eq!(gather.due(), due, "company does not make the first line wait longer");
        assert!(gather.is_full());
        assert_eq!(gather.take().len(), 65_000);
        assert_eq!((gather.len(), gather.is_full()), (1000, false));
        assert_eq!(gather.due(), Some(Instant::now() + COMPANY));
        assert_eq!(gather.take().len(), 1000);
        assert_eq!((gather.is_empty(), gather.due()), (true, None));
        assert!(gather.take().is_empty());
    }

    #[test]
    fn a_whole_piece_of_the_journal_is_not_copied() {
        let mut gather = Gather::default();
        let lines = Bytes::from(line(FRAME));
        gather.push(lines.clone());
        assert_eq!(gather.take().as_ptr(), lines.as_ptr());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn pieces_are_whole_lines_of_about_the_size_of_a_frame_and_together_what_came(
            batches in prop::collection::vec(prop::collection::vec(1..90_000_usize, 1..4), 1..12),
        ) {
            let (mut gather, mut all) = (Gather::default(), vec![]);
            for lengths in batches {
                let lines = lengths.into_iter().flat_map(line).collect::<Vec<u8>>();
                all.extend_from_slice(&lines);
                gather.push(lines.into());
            }
            prop_assert_eq!(gather.len(), all.len());
            let mut at = 0;
            while !gather.is_empty() {
                let piece = gather.take();
                let most = &all[at..][..pack::cut(&all[at..])];
                prop_assert!(most.starts_with(&piece) && piece.ends_with(b"\n"));
                prop_assert!(piece.len() == most.len() || piece.len() > FRAME - SCANT, "{} bytes", piece.len());
                at += piece.len();
                prop_assert_eq!(gather.len(), all.len() - at);
            }
        }
    }
}

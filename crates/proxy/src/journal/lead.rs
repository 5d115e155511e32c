//! How old the oldest line is that nobody has acknowledged.

use std::{collections::VecDeque, time::Duration};

use podwitness_core::{
    failure::{Lead, MAX_AGE_DURABLE, MAX_AGE_PLAIN},
    grant::AckLevel,
};
use tokio::time::Instant;

/// Lines within this time count as old as the first of them.
const GRAIN: Duration = Duration::from_millis(50);
/// Cap on marks. Reached only under fail open, where no age is asked for; the youngest mark then stands for more.
const MAX_MARKS: usize = 1024;

/// When lines were appended, coarsely: each mark is a place and the time at which lines from there on began to come.
#[derive(Debug, Default)]
pub(super) struct Ages {
    marks: VecDeque<(u64, Instant)>,
}

impl Ages {
    /// Lines were appended at `place`.
    pub(super) fn note(&mut self, place: u64, now: Instant) {
        let fresh = self.marks.back().is_none_or(|(_, at)| now.duration_since(*at) >= GRAIN);
        if fresh && self.marks.len() < MAX_MARKS {
            self.marks.push_back((place, now));
        }
    }

    /// Everything before `place` is acknowledged.
    pub(super) fn release(&mut self, place: u64, appended: u64) {
        if place >= appended {
            self.marks.clear();
        }
        while self.marks.get(1).is_some_and(|(next, _)| *next <= place) {
            self.marks.pop_front();
        }
    }

    /// The session's lead of `bytes` at `now`, paused since then, against acknowledgements of that level.
    pub(super) fn lead(
        &self,
        bytes: u64,
        now: Instant,
        paused: Option<Instant>,
        level: Option<AckLevel>,
    ) -> Lead {
        Lead {
            bytes,
            age: self.marks.front().map(|(_, at)| now.duration_since(*at)).unwrap_or_default(),
            max_age: if level.is_some() { MAX_AGE_DURABLE } else { MAX_AGE_PLAIN },
            paused: paused.map(|since| now.duration_since(since)).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_age_is_that_of_the_oldest_line_left() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut ages = Ages::default();
        ages.note(0, at(0));
        ages.note(10, at(20));
        ages.note(20, at(100));
        let age = |ages: &Ages| ages.lead(1, at(1000), None, None).age.as_millis();
        assert_eq!(age(&ages), 1000);
        ages.release(19, 30);
        assert_eq!(age(&ages), 1000);
        ages.release(20, 30);
        assert_eq!(age(&ages), 900);
        ages.release(30, 30);
        assert_eq!(age(&ages), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn durable_acknowledgements_may_be_less_old() {
        let now = Instant::now();
        let max = |level| Ages::default().lead(0, now, None, level).max_age;
        assert_eq!((max(None), max(Some(AckLevel::Process))), (MAX_AGE_PLAIN, MAX_AGE_DURABLE));
    }
}

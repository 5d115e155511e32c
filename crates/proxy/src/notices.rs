//! What people should know of this pod, told to the control plane, which makes Events of it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use podwitness_core::control::Notice;
use tokio::{sync::mpsc, time::Instant};

/// How long one notice stands before it is given again.
const AGAIN: Duration = Duration::from_secs(600);
/// Cap on different notices in that time; further ones, each of another server, are lost.
const MAX_GIVEN: usize = 16;

/// Where notice is given. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Notices {
    to: mpsc::Sender<Notice>,
    given: Arc<Mutex<HashMap<Notice, Instant>>>,
}

impl Notices {
    pub(crate) fn new(to: mpsc::Sender<Notice>) -> Self {
        Self { to, given: Arc::default() }
    }

    /// Gives notice, once in a while. Nobody waits: where the control plane is away for long, it is lost.
    pub(crate) fn give(&self, notice: Notice) {
        let now = Instant::now();
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        given.retain(|_, at| now.duration_since(*at) < AGAIN);
        if given.contains_key(&notice)
            || given.len() >= MAX_GIVEN && matches!(notice, Notice::UnknownServer(_))
        {
            return;
        }
        if self.to.try_send(notice).is_ok() {
            given.insert(notice, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn notice_is_given_once_in_a_while() {
        let (to, mut heard) = mpsc::channel(4);
        let notices = Notices::new(to);
        for _ in 0..3 {
            notices.give(Notice::NoGrant);
            notices.give(Notice::Bypassed);
        }
        advance(AGAIN).await;
        notices.give(Notice::NoGrant);
        drop(notices);
        let mut all = Vec::new();
        while let Some(notice) = heard.recv().await {
            all.push(notice);
        }
        assert_eq!(all, [Notice::NoGrant, Notice::Bypassed, Notice::NoGrant]);
    }

    #[tokio::test(start_paused = true)]
    async fn of_many_servers_a_few_are_named_and_everything_else_is_still_said() {
        let (to, mut heard) = mpsc::channel(100);
        let notices = Notices::new(to);
        for port in 1..100 {
            notices.give(Notice::UnknownServer(([192, 0, 2, 7], port).into()));
        }
        notices.give(Notice::Bypassed);
        drop(notices);
        let mut all = Vec::new();
        while let Some(notice) = heard.recv().await {
            all.push(notice);
        }
        assert_eq!((all.len(), all.last()), (MAX_GIVEN + 1, Some(&Notice::Bypassed)));
    }

    #[tokio::test(start_paused = true)]
    async fn notice_that_nobody_takes_is_given_again() {
        let (to, mut heard) = mpsc::channel(1);
        let notices = Notices::new(to);
        notices.give(Notice::NoGrant);
        notices.give(Notice::Bypassed);
        assert_eq!(heard.recv().await, Some(Notice::NoGrant));
        notices.give(Notice::Bypassed);
        assert_eq!(heard.recv().await, Some(Notice::Bypassed));
    }
}

//! Refusals by the failure policy, told to people: one line of the log for each reason in a while, and an Event.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use http::Response;
use podwitness_core::{control::Notice, request_info::RequestInfo, status::Status};
use tokio::time::Instant;

use super::{answer, answer_request};
use crate::{body::Body, notices::Notices};

/// How long a reason is not logged again. The next line has the number of refusals in between.
const AGAIN: Duration = Duration::from_secs(60);
/// Cap on different reasons in that time; further ones are not logged, but counted in the metrics like all.
const MAX_REASONS: usize = 16;

/// Reports refusals.
pub(crate) struct RefusalReporter {
    notices: Notices,
    reasons: Mutex<HashMap<String, Reason>>,
}

/// A reason that was logged.
struct Reason {
    at: Instant,
    /// Refusals since then.
    unlogged: u64,
}

impl RefusalReporter {
    pub(crate) fn new(notices: Notices) -> Self {
        Self { notices, reasons: Mutex::default() }
    }

    /// Refuses a request, or a session before it is known who asks for it. `info` is `None` where the path cannot be read.
    pub(crate) fn request(&self, status: &Status, info: Option<&RequestInfo>) -> Response<Body> {
        self.notice(status, Notice::RecordingRefused);
        self.log(status, info);
        answer_request(status, info)
    }

    /// Refuses a session, of which the access log has a line already.
    pub(crate) fn session(&self, status: &Status) -> Response<Body> {
        self.notice(status, Notice::RecordingRefused);
        answer(status)
    }

    /// Refuses a request on a connection with a client certificate.
    pub(crate) fn client_certificate(&self, status: &Status, info: Option<&RequestInfo>) -> Response<Body> {
        self.notice(status, Notice::ClientCertificate);
        self.log(status, info);
        answer_request(status, info)
    }

    /// What passes within seconds, such as the time before the first netmap, is no Event.
    fn notice(&self, status: &Status, notice: Notice) {
        if status.details.is_none() {
            self.notices.give(notice);
        }
    }

    fn log(&self, status: &Status, info: Option<&RequestInfo>) {
        let Some(before) = self.due(&status.message) else { return };
        tracing::warn!(
            code = status.code,
            verb = info.map(|info| &*info.verb).unwrap_or_default(),
            resource = info.map(|info| &*info.resource).unwrap_or_default(),
            namespace = info.map(|info| &*info.namespace).unwrap_or_default(),
            refused_since_last_line = before,
            reason = status.message,
            "a request is refused"
        );
    }

    /// How many refusals for this reason were not logged, where it is to be logged now.
    fn due(&self, reason: &str) -> Option<u64> {
        let now = Instant::now();
        let mut reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        // A reason of which refusals are uncounted stays one period longer.
        reasons.retain(|_, it| now.duration_since(it.at) < if it.unlogged > 0 { 2 * AGAIN } else { AGAIN });
        if let Some(it) = reasons.get_mut(reason) {
            if now.duration_since(it.at) < AGAIN {
                it.unlogged = it.unlogged.saturating_add(1);
                return None;
            }
            it.at = now;
            return Some(std::mem::take(&mut it.unlogged));
        }
        if reasons.len() >= MAX_REASONS {
            return None;
        }
        reasons.insert(reason.to_owned(), Reason { at: now, unlogged: 0 });
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        sync::mpsc,
        time::{advance, pause},
    };

    use super::*;

    fn reporter() -> (RefusalReporter, mpsc::Receiver<Notice>) {
        let (to, told) = mpsc::channel(8);
        (RefusalReporter::new(Notices::new(to)), told)
    }

    #[tokio::test]
    async fn a_reason_is_logged_once_in_a_while_with_the_number_in_between() {
        pause();
        let (reporter, _told) = reporter();
        assert_eq!([reporter.due("a"), reporter.due("a"), reporter.due("a")], [Some(0), None, None]);
        assert_eq!(reporter.due("b"), Some(0));
        advance(AGAIN).await;
        assert_eq!([reporter.due("a"), reporter.due("b")], [Some(2), Some(0)]);
    }

    #[tokio::test]
    async fn reasons_are_capped() {
        let (reporter, _told) = reporter();
        let logged = (0..1000).filter(|n| reporter.due(&n.to_string()).is_some()).count();
        assert_eq!((logged, reporter.reasons.lock().unwrap().len()), (MAX_REASONS, MAX_REASONS));
    }

    #[tokio::test]
    async fn each_kind_of_refusal_is_noticed_once_and_what_passes_is_not() {
        let (reporter, mut told) = reporter();
        let status = Status::forbidden("no");
        for _ in 0..3 {
            let _ = reporter.request(&Status::unavailable("not yet", 2), None);
            let _ = reporter.request(&status, None);
            let _ = reporter.session(&status);
            let _ = reporter.client_certificate(&status, None);
        }
        assert_eq!(told.try_recv(), Ok(Notice::RecordingRefused));
        assert_eq!(told.try_recv(), Ok(Notice::ClientCertificate));
        assert!(told.try_recv().is_err());
    }
}

//! From a journal to recorders: live, late, or to the next one are the same loop, begun at another cursor.
//!
//! One task a recording, or a journal of API events. Each upload is a *part*: a whole cast with a full header that says where it begins. Which
//! recorder takes it is `pick`ed anew each time one is lost. The loop ends when everything is acknowledged, when
//! nobody wants the recording, or when the process ends and no recorder can be reached.

mod body;
mod connection;
mod error;
mod gather;
mod health;
mod heard;
mod order;
mod part;
pub(crate) mod pick;
mod plan;
mod posts;
mod v1;
mod v2;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use podwitness_core::grant::AckLevel;
use podwitness_runtime::drain;

use crate::{
    journal::Journal,
    session::{Ledger, Shipped},
};
use error::UploadError;
use part::{End, Progress};
pub(crate) use pick::{Picked, Uploads};
pub(crate) use plan::Plan;

/// How long a process that is told to end looks for a recorder.
const LAST_TRY: Duration = Duration::from_secs(10);

/// What a journal holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Form {
    /// One recording.
    Recording,
    /// API events.
    Events,
}

/// An open upload, of which nothing was sent.
pub(crate) enum Upload {
    /// Acknowledged as it goes.
    V2(v2::Upload),
    /// Not acknowledged before its end.
    V1(v1::Upload),
    /// Events one by one, each acknowledged.
    Posts(posts::Upload),
}

/// One recording on its way.
pub(crate) struct Shipment {
    /// Id of the session, for logs.
    pub(crate) session: String,
    /// What is shipped.
    pub(crate) journal: Journal,
    /// Whom to.
    pub(crate) plan: Plan,
    /// Number of its first part: parts of an earlier process have lower ones.
    pub(crate) first_part: u32,
    /// The process waits for it.
    pub(crate) guard: drain::Guard,
    /// What is counted.
    pub(crate) ledger: Ledger,
}

impl Shipment {
    /// Ships until all is done; `first` is an upload that was opened before the session started.
    pub(crate) async fn run(self, uploads: Arc<Uploads>, first: Option<Upload>) {
        let shipped = tokio::select! {
            shipped = self.ship(&uploads, first) => shipped,
            () = uploads.drain.over() => Shipped::Lost,
        };
        let left = self.journal.discard();
        if shipped == Shipped::Lost {
            tracing::warn!(session = self.session, bytes = left, "no recorder took the rest of a recording");
        }
        self.ledger.shipped(shipped);
        drop(self.guard);
    }

    async fn ship(&self, uploads: &Uploads, mut first: Option<Upload>) -> Shipped {
        let begun = async { self.journal.begun().await.ok_or(Shipped::Nothing) };
        let (header, plan) = match tokio::try_join!(begun, self.settle(uploads)) {
            Ok(found) => found,
            Err(shipped) => return shipped,
        };
        let mut progress = Progress::new(header, self.first_part);
        loop {
            let upload = match first.take() {
                Some(upload) => upload,
                None => match self.in_time(uploads, uploads.next(&plan)).await {
                    Some(Picked::Upload(upload)) => *upload,
                    Some(Picked::Unwanted) => return self.unwanted(),
                    None => return Shipped::Lost,
                },
            };
            let (recorder, acknowledges) = (upload.address(), upload.acknowledges());
            let before = self.journal.acked();
            self.journal.taken_by(recorder, upload.level());
            let ended = tokio::select! {
                biased;
                ended = upload.run(&self.journal, &mut progress) => Some(ended),
                next = uploads.successor(&plan, recorder), if acknowledges => {
                    if let Picked::Upload(next) = next {
                        first = Some(*next);
                    }
                    None
                }
            };
            self.journal.left_alone();
            let passed = self.journal.acked() - before;
            if !acknowledges {
                self.ledger.unacknowledged(passed);
            }
            let Some(ended) = ended else {
                tracing::info!(session = self.session, %recorder, "another recorder goes on, for this one is leaving");
                continue;
            };
            if ended.is_ok() || (passed > 0 && acknowledges) {
                uploads.health.recovered(recorder);
            }
            match ended {
                Ok(End::Complete) => return Shipped::Complete,
                Ok(End::Discarded) => return Shipped::Nothing,
                Err(error) => {
                    self.ledger.part_lost();
                    let cause = &error as &dyn std::error::Error;
                    tracing::info!(session = self.session, %recorder, error = cause, "upload broke off");
                    if error.is_final() {
                        return Shipped::Lost;
                    }
                    uploads.health.failed(recorder);
                }
            }
        }
    }

    /// The plan, once the grants are known. A session that is still going on is held to them from then on; one that is
    /// over, perhaps in an earlier process, goes where the grants of each moment say.
    async fn settle(&self, uploads: &Uploads) -> Result<Plan, Shipped> {
        if !self.plan.is_unknown() {
            return Ok(self.plan.clone());
        }
        let netmap = self.in_time(uploads, uploads.netmap()).await.ok_or(Shipped::Lost)?;
        let plan = self.plan.clone().settled(&netmap).ok_or_else(|| self.unwanted())?;
        if self.journal.tighten(plan.policy()) { Ok(plan) } else { Ok(self.plan.clone()) }
    }

    fn unwanted(&self) -> Shipped {
        self.journal.unwanted();
        Shipped::Unwanted
    }

    /// What is waited for; `None` where the process ends and it has not come in time.
    async fn in_time<T>(&self, uploads: &Uploads, what: impl Future<Output = T>) -> Option<T> {
        let ending = async {
            uploads.drain.draining().await;
            tokio::time::sleep(LAST_TRY).await;
        };
        tokio::select! {
            found = what => Some(found),
            () = ending => None,
        }
    }
}

impl Upload {
    /// The recorder.
    const fn address(&self) -> SocketAddr {
        match self {
            Self::V2(upload) => upload.address(),
            Self::V1(upload) => upload.address(),
            Self::Posts(upload) => upload.address(),
        }
    }

    /// What its acknowledgements survive, if it says so.
    const fn level(&self) -> Option<AckLevel> {
        match self {
            Self::V2(upload) => upload.level(),
            Self::V1(_) | Self::Posts(_) => None,
        }
    }

    const fn acknowledges(&self) -> bool {
        matches!(self, Self::V2(_) | Self::Posts(_))
    }

    /// Uploads what nobody has yet, and what comes, until the journal ends.
    async fn run(self, journal: &Journal, progress: &mut Progress) -> Result<End, UploadError> {
        match self {
            Self::V2(upload) => upload.run(journal, progress).await,
            Self::V1(upload) => upload.run(journal, progress).await,
            Self::Posts(upload) => upload.run(journal).await,
        }
    }
}

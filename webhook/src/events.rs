//! Events, published in the background: what reports one never waits.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, Recorder, Reporter},
};
use tokio::sync::mpsc;

/// handlers --events--> publisher; when it is full, further Events are dropped: they are for people, and whatever
/// causes that many is visible in the metrics.
pub(crate) const CAPACITY: usize = 256;

/// Where Events are handed in. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct EventQueue(mpsc::Sender<(Event, ObjectReference)>);

/// Publishes Events until every queue of its channel is dropped.
pub struct Publisher {
    queue: mpsc::Receiver<(Event, ObjectReference)>,
    recorder: Recorder,
}

/// Both ends, for Events of this reporter.
pub(crate) fn channel(client: Client, reporter: &'static str) -> (EventQueue, Publisher) {
    let (sender, queue) = mpsc::channel(CAPACITY);
    let recorder = Recorder::new(client, Reporter::from(reporter));
    (EventQueue(sender), Publisher { queue, recorder })
}

impl EventQueue {
    /// Hands in an Event on an object.
    pub(crate) fn hand_in(&self, event: Event, regarding: ObjectReference) {
        if let Err(error) = self.0.try_send((event, regarding)) {
            let (mpsc::error::TrySendError::Full((event, _)) | mpsc::error::TrySendError::Closed((event, _))) =
                error;
            tracing::debug!(reason = event.reason, "an Event is dropped");
        }
    }
}

impl Publisher {
    /// Publishes what is handed in.
    pub async fn run(mut self) {
        while let Some((event, reference)) = self.queue.recv().await {
            if let Err(error) = self.recorder.publish(&event, &reference).await {
                tracing::warn!(%error, reason = event.reason, "cannot publish an Event");
            }
        }
    }
}

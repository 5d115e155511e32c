//! Ships a part while it is written, one segment at a time: a megabyte, or what has waited for as long as it may.

use std::time::Duration;

use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use super::{Ended, Followed, PartShip, ShipError, Shipper, segment::MAX_SEGMENT};
use crate::{bucket::Class, store::Part};

/// How long bytes wait for company.
pub(super) const GATHER: Duration = Duration::from_secs(5);
/// The same where somebody waits for them.
pub(super) const AT_ONCE: Duration = Duration::from_millis(100);

/// The committer's end: says what is durable, and hears what is in the bucket. Dropped once the part has its end.
#[derive(Debug)]
pub struct Shipment {
    written: watch::Sender<u64>,
    shipped: watch::Receiver<u64>,
}

impl Shipment {
    /// So many bytes are durable on the volume.
    pub fn written(&self, bytes: u64) {
        self.written.send_replace(bytes);
    }

    /// Bytes that are in the bucket.
    #[must_use]
    pub fn shipped(&self) -> u64 {
        *self.shipped.borrow()
    }

    /// Completes when more is in the bucket than before. Never, where nothing is shipped any more.
    pub async fn changed(&mut self) {
        if self.shipped.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

struct Follower {
    shipper: Shipper,
    part: Followed,
    written: watch::Receiver<u64>,
    shipped: watch::Sender<u64>,
}

pub(super) fn start(shipper: &Shipper, part: &Part) -> Shipment {
    let ((written, reader), (sender, shipped)) = (watch::channel(0), watch::channel(0));
    let ship = Shipper::place(part.path())
        .map(|place| PartShip::new(shipper.bucket.clone(), shipper.store.root(), place, part.meta()));
    if let Some(Ok(ship)) = ship {
        let held = shipper.followed.begin(part.path().to_owned());
        let part = Followed { ship, waits: shipper.status.waits(), _held: held };
        let follower = Follower { shipper: shipper.clone(), part, written: reader, shipped: sender };
        shipper.tasks.spawn(follower.run());
    }
    Shipment { written, shipped }
}

impl Follower {
    async fn run(mut self) {
        let stop = self.shipper.stop.clone();
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = self.follow() => {
                // Full: the next look at the volume finds it.
                let _ = self.shipper.ended.try_send(Ended::Part(Box::new(self.part)));
            }
        }
    }

    /// Until the part has ended.
    async fn follow(&mut self) {
        while self.gather().await {
            let limit = *self.written.borrow_and_update();
            let done = self.segment(limit).await;
            // What failed is tried again, when the gate lets it; a volume that cannot be read, at the next look.
            match done {
                Ok(size) => {
                    self.shipper.status.shipped_bytes(size);
                    self.shipped.send_replace(self.part.ship.shipped());
                    self.part.waits.left(limit.saturating_sub(self.part.ship.shipped()));
                }
                Err(ShipError::Local { .. }) => sleep(GATHER).await,
                Err(ShipError::Bucket(error)) if error.class() == Class::Conflict => return,
                Err(ShipError::Bucket(_)) => {}
            }
        }
    }

    /// Ships a segment of what is durable up to `limit`. That may have to wait for long, and more comes meanwhile.
    async fn segment(&mut self, limit: u64) -> Result<u64, ShipError> {
        let Self { shipper, part: Followed { ship, waits, .. }, written, .. } = self;
        let before = ship.shipped();
        let mut asked = std::pin::pin!(shipper.ask(async || ship.segment(limit).await));
        let mut lasts = true;
        loop {
            tokio::select! {
                biased;
                done = &mut asked => return done,
                changed = written.changed(), if lasts => {
                    lasts = changed.is_ok();
                    waits.bytes(written.borrow_and_update().saturating_sub(before));
                }
            }
        }
    }

    /// Waits until enough has gathered, or has waited for long enough. False where the part has ended.
    async fn gather(&mut self) -> bool {
        let mut since = None;
        loop {
            let waiting = self.written.borrow_and_update().saturating_sub(self.part.ship.shipped());
            self.part.waits.bytes(waiting);
            if waiting >= MAX_SEGMENT as u64 {
                return true;
            }
            let until = (waiting > 0).then(|| *since.get_or_insert_with(Instant::now) + self.shipper.gather);
            let due = async {
                match until {
                    Some(until) => sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                changed = self.written.changed() => {
                    if changed.is_err() {
                        return false;
                    }
                }
                () = due => return true,
            }
        }
    }
}

//! Memory of connections: one budget, from which everything is taken that a client can make the proxy hold.
//!
//! | taken by | while | bytes |
//! |---|---|---|
//! | a connection | it is open | [`CONNECTION`], and what has been read of a ClientHello |
//! | the same ([`meter`]) | a head is not whole | what was read of it; in HTTP/2 what it may be unpacked to |
//! | the same | the client does not read | answers that were given to the HTTP library and not yet to TLS |
//! | a request ([`Flight`]) | it is under way | its head, and the windows of its two bodies |
//! | an answer | the API server is silent | [`SILENT`] |
//! | a session | it is open | what both directions may always read ahead |
//!
//! What is idle is given to others, that which has been idle for the longest time first: connections between requests or
//! with half a request, and requests that wait for their client for longer than [`STALL`]. Their connection is ended.
//! A request that finds no room waits up to [`PATIENCE`] and is then answered 503; whatever else finds none ends its
//! connection. Nothing grows beyond the budget.

pub(crate) mod body;
mod flight;
pub(crate) mod meter;

use std::collections::HashMap;
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError, Weak,
    atomic::{AtomicU64, Ordering},
};

use podwitness_runtime::{
    connection::ConnectionHandle,
    quota::{Quota, QuotaExceeded, QuotaKey, QuotaLimits, QuotaMetrics},
};
use tokio::time::{Duration, Instant};

pub(crate) use flight::Flight;
use flight::Shared;

/// Of every connection: its tasks, the state of TLS, and the buffers of reads and writes.
pub(crate) const CONNECTION: usize = 32 << 10;
/// What TLS keeps of what its connection does not take (`rustls`, `DEFAULT_BUFFER_LIMIT`).
const TLS: usize = 64 << 10;
/// Of a request whose answer is silent, such as a watch.
pub(crate) const SILENT: usize = 16 << 10;
/// How long a request may wait for its client before its memory counts as idle.
const STALL: Duration = Duration::from_secs(2);
/// How long a request waits for memory.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it looks.
const AGAIN: Duration = Duration::from_millis(50);

/// The budget of one proxy.
#[derive(Debug)]
pub(crate) struct Memory {
    quota: Quota,
    /// Containers of a pod cannot be told apart.
    key: QuotaKey,
    flights: Mutex<HashMap<u64, Weak<Shared>>>,
    next: AtomicU64,
}

impl Memory {
    /// A budget of `limit` bytes.
    pub(crate) fn new(limit: u64, metrics: QuotaMetrics) -> Arc<Self> {
        let total = usize::try_from(limit).unwrap_or(usize::MAX);
        let quota = Quota::new(QuotaLimits { total, per_key: total }, metrics);
        let key = QuotaKey::Name("pod".into());
        Arc::new(Self { quota, key, flights: Mutex::default(), next: AtomicU64::new(0) })
    }

    /// Lets a connection hold exactly `bytes`.
    ///
    /// # Errors
    /// Where there is no room.
    pub(crate) fn hold(&self, connection: &ConnectionHandle, bytes: usize) -> Result<(), QuotaExceeded> {
        self.with_stalled(|| connection.hold(&self.quota, &self.key, bytes))
    }

    /// Takes `bytes` for a request of a connection.
    ///
    /// # Errors
    /// Where there is no room.
    pub(crate) fn open(
        self: &Arc<Self>,
        connection: &ConnectionHandle,
        bytes: usize,
    ) -> Result<Flight, QuotaExceeded> {
        let lease = self.quota.open(self.key.clone(), connection.revocation());
        lease.set_busy(true);
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let flight = Flight::new(self, number, lease);
        self.lock().insert(number, flight.weak());
        flight.resize(bytes)?;
        Ok(flight)
    }

    /// Takes memory; where there is too little, what waits for its client is idle from now on.
    fn with_stalled(&self, take: impl Fn() -> Result<(), QuotaExceeded>) -> Result<(), QuotaExceeded> {
        match take() {
            Err(QuotaExceeded::PerKey | QuotaExceeded::Total) => {
                let now = Instant::now();
                let flights: Vec<_> = self.lock().values().filter_map(Weak::upgrade).collect();
                flights.iter().for_each(|flight| flight.note_stall(now));
                take()
            }
            taken => taken,
        }
    }

    fn forget(&self, number: u64) {
        self.lock().remove(&number);
    }

    /// Each change leaves it whole.
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Weak<Shared>>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;

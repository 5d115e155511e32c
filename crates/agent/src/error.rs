//! What can go wrong between an agent and the control plane. No variant holds a token or an assertion.

use std::{io, net::SocketAddr, path::PathBuf};

use podwitness_core::address::KeyError;
use thiserror::Error;

/// A step on the way to a netmap that failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AgentError {
    /// The PEM text holds no usable root.
    #[error("the roots of the control API hold no certificate; expected PEM")]
    Roots,
    /// The control API's name cannot stand in a certificate.
    #[error("{0:?} is no DNS name")]
    Name(String),
    /// The key to enrol is none.
    #[error("the tunnel key cannot be enrolled")]
    Key(#[source] KeyError),
    /// TLS cannot be set up at all.
    #[error("TLS cannot be configured")]
    Config(#[source] rustls::Error),
    /// The token file cannot be read.
    #[error("cannot read the token file {path}; is the projected token mounted?")]
    Token {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The token file holds no token.
    #[error("the token file {0} holds no token")]
    TokenForm(PathBuf),
    /// The name could not be resolved.
    #[error("cannot resolve {name}")]
    Resolve {
        /// The name.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// There is no address to dial.
    #[error("{0} has no address")]
    NoAddress(String),
    /// No connection.
    #[error("cannot connect to the control API at {address}")]
    Dial {
        /// The last address that was tried.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The TLS handshake failed.
    #[error("the control API at {address} failed the TLS handshake; is its root the one we were given?")]
    Tls {
        /// Its address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// HTTP failed.
    #[error("the connection to the control API failed")]
    Http(#[from] hyper::Error),
    /// A request could not be built.
    #[error("the request cannot be built")]
    Request(#[from] http::Error),
    /// The control plane said no.
    #[error("the control API answered {code} to {path}: {message}")]
    Refused {
        /// Path of the request.
        path: &'static str,
        /// HTTP status.
        code: u16,
        /// The Status' message, shortened.
        message: String,
    },
    /// No answer in time.
    #[error("the control API sent nothing for {0} s")]
    Silence(u64),
    /// A line or a body above its cap.
    #[error("the control API sent more than {0} bytes at once")]
    TooLong(usize),
    /// An answer that cannot be read.
    #[error("the control API's answer cannot be read")]
    Malformed(#[from] serde_json::Error),
    /// The control plane put the key at an address that does not follow from it.
    #[error("the control API derives another address from our key; do both run the same version?")]
    Address,
}

//! Attacks by a user with a shell in a recorded pod: one file for each promise that they must not break.

mod stream_framing;
mod tls_hello;
mod two_credentials;

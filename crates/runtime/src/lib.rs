//! What every Podwitness program repeats: configuration, telemetry, drain, readiness, the read-only admin server,
//! TLS with certificates that change under live connections, bounded accept loops, and the one wall clock.
//!
//! Invariant: everything here has a cap and an end. Accept loops bound their connections in all and per source, servers
//! bound the time and size of a request head, and whatever is alive when a drain is over is told so.

pub mod accept;
pub mod admin;
pub mod clock;
pub mod config;
pub mod connection;
pub mod descriptors;
pub mod drain;
pub mod health;
pub mod http;
pub mod keyed_semaphore;
pub mod memory;
pub mod metrics;
pub mod quota;
pub mod readiness;
pub mod telemetry;
pub mod tls;
pub mod version;

//! Recorded sessions between a client, an API server and recorders that are all in-process: duplex pipes, paused
//! clocks.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test may fail by panicking"
)]

mod access;
mod archives;
mod bulk;
mod closed;
mod forward;
mod go;
mod kit;
mod lines;
mod old;
mod open;
mod packed;
mod pings;
mod plain;
mod recorder;
mod refuse;
mod rolling;
mod tampered;
mod tighten;
mod undecoded;

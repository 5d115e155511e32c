//! The proxy between real HTTP clients and a real HTTP server, over pipes in memory and real TLS.
#![cfg(test)]

mod answers;
mod events;
mod eviction;
mod harness;
mod http;
mod identity;
mod idle;
mod intercept;
mod limits;
mod memory;
mod pool;
mod raw;
#[expect(dead_code, reason = "the tests of sessions use more of it")]
#[path = "../session/recorder.rs"]
mod recorder;
mod server_names;
mod stepping_aside;
mod trust;
mod unrecorded;
mod upgrade;

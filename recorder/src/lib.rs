//! The recorder: `ingest` takes recordings in through the tunnel, `view` shows them on loopback.
//!
//! The two are containers of one pod and meet only in [`store`], so that no viewer can hurt recording.

pub mod app;
pub mod bucket;
pub mod config;
pub mod enrol;
pub mod ingest;
pub mod memory;
pub mod metrics;
pub mod peers;
pub mod privileged;
pub mod ship;
pub mod store;
pub mod view;

//! `kubectl witness`: commands for those who write grants.
//!
//! Invariant: what a grant means is asked of `podwitness-core`, the same code that a sidecar runs; nothing here decides
//! anything itself, and nothing is written to the cluster.

pub mod app;
pub mod args;
pub mod cluster;
pub mod explain;
pub mod import;

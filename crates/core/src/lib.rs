//! The contract that all parts of Podwitness share: what admission injects and the sidecar reads, how a request of
//! the Kubernetes API is classified, which grant applies, and what follows when a recording cannot be made.
//!
//! Invariant: nothing here does I/O or knows a Kubernetes client. Every function is total on its input, so that each
//! contract can be tested as a table.

pub mod address;
pub mod allow;
pub mod assertion;
pub mod control;
pub mod event;
pub mod exempt;
pub mod failure;
pub mod grant;
pub mod identity;
pub mod inject;
pub mod labels;
pub mod mask;
pub mod nearest;
pub mod outcome;
pub mod request_info;
pub mod status;
pub mod trust;

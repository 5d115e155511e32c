//! What tests and measurements put around a sidecar and a recorder: network namespaces, servers under a CA of their
//! own, and a control plane that believes everyone.

#![allow(
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    reason = "whoever uses this is of no use without it, and ends where it fails"
)]

mod authority;
pub mod control;
pub mod https;
mod netns;

pub use authority::Authority;
pub use control::Control;
pub use netns::{Netns, random, run};

//! What tests and measurements put around a sidecar and a recorder: network namespaces, servers under a CA of their
//! own, a control plane that believes everyone, and the rules of service meshes.

#![allow(
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    reason = "whoever uses this is of no use without it, and ends where it fails"
)]

mod authority;
pub mod control;
pub mod https;
pub mod meshes;
mod netns;

pub use authority::Authority;
pub use control::Control;
pub use netns::{Netns, random, run};

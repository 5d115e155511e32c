//! The sidecar: a proxy inside a pod, between the pod and the API server.
//!
//! Rooms: [`kernel`] is the only one with a capability; everything else asks it.

pub mod credentials;
pub mod kernel;

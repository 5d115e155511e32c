//! The sidecar: a proxy inside a pod, between the pod and the API server.
//!
//! Rooms: [`kernel`] alone holds a capability; [`interception`] keeps connections coming to [`listen`], which hands
//! them to the proxy; [`credentials`] and [`certificate`] keep what clients trust; [`enrol`], [`netmap`] and [`tunnel`] are the way to
//! the control plane and to recorders; [`app`] puts them together.

pub mod api_server;
pub mod app;
pub mod certificate;
pub mod config;
pub mod credentials;
mod ending;
pub mod enrol;
pub mod interception;
pub mod kernel;
pub mod listen;
pub mod log_socket;
pub mod memory;
pub mod metrics;
pub mod netmap;
pub mod sockets;
pub mod state;
pub mod tunnel;

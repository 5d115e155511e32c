//! Admission and control plane of Podwitness: one image, two Deployments.
//!
//! `admit` adds the sidecar to pods and needs nothing but what it reads by watch; `control` keeps certificates, enrols
//! pods and publishes netmaps. They are apart so that a busy control plane cannot stop the creation of pods: what
//! they share is the certificate room, where `control` issues and both serve.

pub mod admit;
pub mod app;
pub mod certs;
pub mod config;
pub mod control;
mod events;
mod failures;
pub mod grants;
pub mod recorders;
pub mod sockets;

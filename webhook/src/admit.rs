//! Admission: adds the sidecar to pods of labelled namespaces, or says why not, and says of which namespaces nothing
//! would be recorded.
//!
//! The core is [`mutate()`], a pure function of the pod and its [`Settings`]. Around it: what is known of the cluster
//! (`world`), the verdict on a pod (`decide`), reviews (`review`) and the server. Nothing here has side effects:
//! a dry run is answered like any other review.

mod api_server;
mod baseline;
mod body;
mod bundle;
mod cache;
mod capabilities;
mod check;
mod container;
mod debug;
mod decide;
mod dirs;
mod labelled;
mod metrics;
mod mutate;
mod namespaces;
mod patch;
mod pod;
pub(crate) mod quantity;
mod refusal;
mod resources;
mod review;
mod run;
mod server;
mod settings;
#[cfg(test)]
mod testing;
mod tuning;
mod volumes;
mod world;

pub use mutate::mutate;
pub use refusal::{Reason, Refusal};
pub use run::{AdmitError, run};
pub use settings::Settings;

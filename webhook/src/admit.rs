//! Admission: adds the sidecar to pods of labelled namespaces, or says why not, and says of which namespaces nothing
//! would be recorded.
//!
//! The core is [`mutate()`], a pure function of the pod and its [`Settings`]. Around it: what is known of the cluster
//! (`world`), the verdict on a pod (`decide`), reviews (`review`) and the server. What has a side effect,
//! the Event on a pod that is let through (`events`), is left out of a dry run, which is answered like any other review.

mod annotations;
mod api_server;
mod baseline;
mod body;
mod bundle;
mod cache;
mod capabilities;
mod check;
mod constraints;
mod container;
mod debug;
mod decide;
mod dirs;
mod ephemeral_storage;
mod events;
mod fit;
mod grants;
mod keys;
mod labelled;
mod metrics;
mod mutate;
mod namespaces;
mod older;
mod patch;
mod pod;
mod ports;
pub(crate) mod quantity;
mod quota;
mod ranges;
mod refusal;
mod resources;
mod review;
mod run;
mod server;
mod settings;
#[cfg(test)]
mod testing;
mod token_volume;
mod totals;
mod tuning;
mod volume_lists;
mod volumes;
mod windows;
mod world;

pub use mutate::mutate;
pub use quota::Quota;
pub use ranges::{BothBounds, Bounds, Ranges};
pub use refusal::{Reason, Refusal};
pub use run::{AdmitError, run};
pub use settings::Settings;
pub use tuning::{Amount, Amounts};

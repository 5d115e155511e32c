//! Admission: adds the sidecar to pods of labelled namespaces, or says why not.

mod check;
mod container;
mod dirs;
mod mutate;
mod patch;
mod pod;
mod quantity;
mod refusal;
mod resources;
mod settings;
#[cfg(test)]
mod testing;
mod tuning;
mod volumes;

pub use mutate::mutate;
pub use refusal::{Reason, Refusal};
pub use settings::Settings;

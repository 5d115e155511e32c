//! Recorders that run in the cluster: from a `Recorder` object to the objects that make it up, and back to its status.
//!
//! [`desired()`] says what there should be, and nothing else does; [`controller`] makes it so and keeps it so; [`status`]
//! says what came of it. The parts meet in [`outcome`].
//!
//! Invariants: an object that is not controlled by the Recorder is neither changed nor deleted; a claim is never deleted
//! here; what a Recorder may add cannot replace what recording rests on.

pub mod controller;
pub mod desired;
mod effect;
pub mod objects;
pub mod outcome;
mod pod;
pub mod status;
mod storage;
mod valid;

pub use controller::Controller;
pub use desired::{Settings, desired};
pub use outcome::Outcomes;
pub(crate) use status::date;
pub use status::{Seen, reconcile};

//! The read side: a catalogue of what the store and the bucket hold, and an API over it.
//!
//! Invariant: nothing here writes, so that the volume can be mounted read-only; and one file that cannot be read
//! never hides another.

pub mod api;
mod bucket_index;
mod cast;
mod catalogue;
mod events;
mod readable;
mod scan;
mod session;

pub use catalogue::Catalogue;
pub use events::EventTable;

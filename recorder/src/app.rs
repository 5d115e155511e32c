//! Puts each role together: bind everything first, then run until told to stop.

pub mod ingest;
pub mod view;

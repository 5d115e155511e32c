//! Sans-IO codecs for everything that Podwitness looks at or writes on a wire.
//!
//! Contract of every decoder here: bytes go in as they come, in pieces of any size, and the result does not depend
//! on how they were cut. A decoder owns no socket and no clock, holds no payload beyond a stated cap, and its errors
//! are typed and terminal: after one, every further call gives the same error. Nothing panics on input.

pub mod ack;
pub mod archive;
pub mod cast;
pub mod channel;
pub mod forward;
pub mod hello;
mod objects;
pub mod pack;
pub mod session;
pub mod spdy;
pub mod spool;
pub mod streams;
#[cfg(test)]
mod testing;
pub mod ws;

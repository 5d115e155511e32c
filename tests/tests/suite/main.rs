//! Everything that needs a cluster, in one program: it links once, and its tests fill each other's waits.
//!
//! What takes away what all share, [`failure`] and [`matrix::without`], has to run alone; hack/test says in which order.

mod attacks;
mod cli;
mod crowd;
mod evasion;
mod events;
mod failure;
mod forward;
mod grants;
mod injection;
mod interop;
mod isolation;
mod java;
mod matrix;
mod outside;
mod policies;
mod proxies;
mod recorders;
mod recording;
mod secrets;
mod storage;
mod unknown;
mod verbs;

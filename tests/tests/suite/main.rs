//! Everything that needs a cluster, in one program: it links once, and its tests fill each other's waits.
//! `podwitness_e2e::schedule` decides which of them run at the same time; hack/test gives each a thread.

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
mod trust;
mod unknown;
mod verbs;

//! Everything that needs a cluster, in one program: it links once, and its tests fill each other's waits.
//! `podwitness_e2e::schedule` decides which of them run at the same time; hack/test gives each a thread.

mod attacks;
mod cli;
mod closed;
mod crowd;
mod declared;
mod draining;
mod evasion;
mod events;
mod failure;
mod fitting;
mod forward;
mod grants;
mod idle_connections;
mod injection;
mod interop;
mod isolation;
mod java;
mod labelling;
mod matrix;
mod meshes;
mod ordinary_pods;
mod outside;
mod policies;
mod proxies;
mod recorders;
mod recording;
mod secrets;
mod slow_readers;
mod stepping_aside;
mod storage;
mod token_volumes;
mod trust;
mod unknown;
mod verbs;
mod viewer;

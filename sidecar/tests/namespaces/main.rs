//! The network rules on a real kernel: a pod and its world in two network namespaces.
//!
//! Every test needs root, `ip` and `nft`, and says so; `cargo test -- --include-ignored` runs them.

#[cfg(test)]
mod certificates;
#[cfg(test)]
mod cluster;
#[cfg(test)]
mod lab;
#[cfg(test)]
mod listing;
#[cfg(test)]
mod meshes;
#[cfg(test)]
mod proof;
#[cfg(test)]
mod redirect;
#[cfg(test)]
mod restart;
#[cfg(test)]
mod sidecar;
#[cfg(test)]
mod through;
#[cfg(test)]
mod translated;
#[cfg(test)]
mod tunnel;

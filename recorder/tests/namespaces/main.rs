//! The recorder on a real network: its own tunnel, a control plane and a pod, in two network namespaces.
//!
//! Every test needs root, `ip` and `nft`, and says so; `cargo test -- --include-ignored` runs them.

#[cfg(test)]
mod lab;
#[cfg(test)]
mod outside;
#[cfg(test)]
mod tunnel;

//! The tunnel between network namespaces: real interfaces, real sockets, nothing outside this process.
//!
//! Each test makes its own namespaces, which go with their threads; the only names it leaves on the machine while it
//! runs are those of configuration sockets, which carry random interface names. Root is needed, hence `--ignored`.
//! The tests of module `with_kernel_wireguard` want a kernel with WireGuard; `hack/vm` brings one.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod ends;
mod flood;
mod gate;
mod lab;
mod relay;
mod scenarios;
mod userspace;
mod with_kernel_wireguard;

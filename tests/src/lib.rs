//! Harness of the end-to-end suite: a temporary namespace per test, kubectl as a process, recordings through the
//! viewer's API, and a dump of what the cluster says when a test fails.
//!
//! It needs `KUBECONFIG` and `kubectl` as `hack/cluster env` prints them, and Podwitness as `hack/install` leaves it.
#![expect(clippy::print_stdout, reason = "a test tells its story on standard output")]

pub mod bucket;
pub mod cluster;
pub mod counting;
pub mod events;
pub mod faulty;
pub mod forward;
pub mod grants;
pub mod kubectl;
pub mod namespace;
pub mod outage;
pub mod pods;
pub mod pty;
pub mod recorders;
pub mod recordings;
pub mod replicas;
pub mod report;
pub mod schedule;
pub mod stage;
pub mod table;
pub mod wait;

pub use counting::Counting;
pub use events::Events;
pub use forward::Forward;
pub use kubectl::{Kubectl, Run};
pub use namespace::Namespace;
pub use recordings::{Recording, Viewer};
pub use table::Table;
pub use wait::eventually;

/// Image with a shell and kubectl.
pub const TOOLBOX: &str = "podwitness.dev/toolbox:dev";
/// Image with other people's clients.
pub const CLIENTS: &str = "podwitness.dev/clients:dev";
/// Image with a client that runs in a Java runtime.
pub const CLIENTS_JAVA: &str = "podwitness.dev/clients-java:dev";
/// Image with an S3 server.
pub const VERSITYGW: &str = "podwitness.dev/versitygw:dev";
/// Namespace of the control plane and the recorder.
pub const SYSTEM: &str = podwitness_core::labels::SYSTEM_NAMESPACE;

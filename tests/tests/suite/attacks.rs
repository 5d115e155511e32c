//! Attacks on what is promised where recording is required, one file for each promise: by a user with a shell in an app
//! container, by the author of a pod, and by any pod of the cluster.

mod absurd_times;
mod api_server_addresses;
mod enrolment;
mod exhaustion;
mod host_access;
mod node_proxy_paths;
mod recorder_space;
mod sidecar_memory;
mod stream_framing;
mod tampered_spool;
mod tls_hello;
mod two_credentials;
mod ways_round;

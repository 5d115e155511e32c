//! The way to the control plane: the shared agent, over sockets that our own rules let pass.

use std::{path::Path, sync::Arc};

use podwitness_agent::{Agent, AgentError, BoxedStream, CertificateOrder, Dial, Driver, Options};
use podwitness_core::control::Notice;
use podwitness_tunnel::PublicKey;
use tokio::sync::mpsc;

use crate::{config::Config, kernel::Kernel, state};

/// Notices that wait for the control plane; each kind is given once in a while.
const NOTICES: usize = 8;

/// The agent, its driver, and what they take.
pub struct Enrolment {
    /// What is known.
    pub agent: Agent,
    /// Learns.
    pub driver: Driver,
    /// Takes notices.
    pub notices: mpsc::Sender<Notice>,
    /// Takes requests for certificates, one at a time.
    pub orders: mpsc::Sender<CertificateOrder>,
}

/// Prepares the agent; nothing is dialled before its driver runs.
///
/// # Errors
/// Where admission's settings can never work.
pub fn agent(config: &Config, key: PublicKey, kernel: &Kernel) -> Result<Enrolment, AgentError> {
    let (notices, taken) = mpsc::channel(NOTICES);
    let (orders, ordered) = mpsc::channel(1);
    let (agent, driver) = podwitness_agent::new(Options {
        control: config.env.control.clone(),
        roots: config.env.control_ca.clone(),
        token: config.paths.token.clone(),
        public_key: key.to_string(),
        cache: Some(Path::join(&config.paths.state, state::NETMAP)),
        dial: dial(kernel.clone()),
        notices: Some(taken),
        certificates: Some(ordered),
    })?;
    Ok(Enrolment { agent, driver, notices, orders })
}

fn dial(kernel: Kernel) -> Dial {
    Arc::new(move |to| {
        let connecting = kernel.dial(to);
        Box::pin(async move { Ok(Box::new(connecting.await?) as BoxedStream) })
    })
}

//! The way to the control plane: the shared agent, over sockets that our own rules let pass.

use std::{path::Path, sync::Arc};

use podwitness_agent::{Agent, AgentError, BoxedStream, Dial, Driver, Options};
use podwitness_core::control::Notice;
use podwitness_tunnel::PublicKey;
use tokio::sync::mpsc;

use crate::{config::Config, kernel::Kernel, state};

/// Notices that wait for the control plane; there are four kinds.
const NOTICES: usize = 8;

/// Prepares the agent, which takes notices; nothing is dialled before its driver runs.
///
/// # Errors
/// Where admission's settings can never work.
pub fn agent(
    config: &Config,
    key: PublicKey,
    kernel: &Kernel,
) -> Result<(Agent, Driver, mpsc::Sender<Notice>), AgentError> {
    let (notices, taken) = mpsc::channel(NOTICES);
    let (agent, driver) = podwitness_agent::new(Options {
        control: config.env.control.clone(),
        roots: config.env.control_ca.clone(),
        token: config.paths.token.clone(),
        public_key: key.to_string(),
        cache: Some(Path::join(&config.paths.state, state::NETMAP)),
        dial: dial(kernel.clone()),
        notices: Some(taken),
        certificates: None,
    })?;
    Ok((agent, driver, notices))
}

fn dial(kernel: Kernel) -> Dial {
    Arc::new(move |to| {
        let connecting = kernel.dial(to);
        Box::pin(async move { Ok(Box::new(connecting.await?) as BoxedStream) })
    })
}

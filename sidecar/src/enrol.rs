//! The way to the control plane: the shared agent, over sockets that our own rules let pass.

use std::{path::Path, sync::Arc};

use podwitness_agent::{Agent, AgentError, BoxedStream, Dial, Driver, Options};
use podwitness_tunnel::PublicKey;

use crate::{config::Config, kernel::Kernel, state};

/// Prepares the agent; nothing is dialled before its driver runs.
///
/// # Errors
/// Where admission's settings can never work.
pub fn agent(config: &Config, key: PublicKey, kernel: &Kernel) -> Result<(Agent, Driver), AgentError> {
    podwitness_agent::new(Options {
        control: config.env.control.clone(),
        roots: config.env.control_ca.clone(),
        token: config.paths.token.clone(),
        public_key: key.to_string(),
        cache: Some(Path::join(&config.paths.state, state::NETMAP)),
        dial: dial(kernel.clone()),
    })
}

fn dial(kernel: Kernel) -> Dial {
    Arc::new(move |to| {
        let connecting = kernel.dial(to);
        Box::pin(async move { Ok(Box::new(connecting.await?) as BoxedStream) })
    })
}

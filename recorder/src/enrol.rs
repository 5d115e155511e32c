//! How a recorder comes to a tunnel: a key that outlives the process, its enrolment at the control API or the join file
//! in its place, and the issuers whose assertions it believes.

pub mod issuers;
pub mod join;
pub mod key;
pub mod report;

use std::{
    io,
    path::{Path, PathBuf},
};

use podwitness_agent::{Agent, AgentError, Driver, Link, Options, dial_direct};
use podwitness_core::control::Notice;
use podwitness_runtime::readiness::BlockReady;
use podwitness_tunnel::{PrivateKey, PublicKey};
use thiserror::Error;
use tokio::sync::mpsc;

use crate::config::{Enrolment, Root, TunnelConfig};

/// Name of the kept netmap in the state directory.
const NETMAP_FILE: &str = "netmap.json";

/// Why there is no enrolment.
#[derive(Debug, Error)]
pub enum EnrolError {
    /// The key cannot be had.
    #[error(transparent)]
    Key(#[from] key::KeyFileError),
    /// The root cannot be read.
    #[error("cannot read the root of the control API from {path}")]
    Root {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The agent cannot begin.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// The join file cannot be used.
    #[error(transparent)]
    Join(#[from] join::JoinError),
}

/// The key to open the tunnel with: the kept one, or a new one.
///
/// # Errors
/// Where it can be neither read nor made.
pub fn key(config: &TunnelConfig) -> Result<PrivateKey, EnrolError> {
    Ok(key::load_or_create(config.state.as_deref())?)
}

/// Prepares the enrolment of `key`; what comes out of `notices` is told.
///
/// # Errors
/// Where the root cannot be read or the agent not begin.
pub fn agent(
    config: &Enrolment,
    state: Option<&Path>,
    key: &PublicKey,
    notices: mpsc::Receiver<Notice>,
) -> Result<(Agent, Driver), EnrolError> {
    let roots = match &config.root {
        Root::Pem(pem) => pem.clone(),
        Root::File(path) => {
            std::fs::read_to_string(path).map_err(|source| EnrolError::Root { path: path.clone(), source })?
        }
    };
    Ok(podwitness_agent::new(Options {
        control: config.control.clone(),
        roots,
        token: config.token.clone(),
        public_key: key.to_string(),
        cache: state.map(|state| state.join(NETMAP_FILE)),
        dial: dial_direct(),
        notices: Some(notices),
        certificates: None,
    })?)
}

/// Keeps the program unready until the control plane knows its key: now, or from before a restart.
pub async fn enrolled(mut agent: Agent, ready: BlockReady) {
    if agent.netmap.borrow().is_none() {
        // The driver lives as long as the program; without it nothing more is learned.
        let _ = agent.link.wait_for(|link| *link != Link::Offline).await;
    }
    ready.clear();
}

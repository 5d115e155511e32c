//! Reads the settings of a role and runs it.

use std::{io, process::ExitCode};

use podwitness_runtime::{
    config::{Mistakes, Strings, exit_usage},
    descriptors,
    telemetry::{self, TelemetryError},
};
use thiserror::Error;

use crate::{
    admit::{self, AdmitError},
    config::{AdmitConfig, Common, ControlConfig},
    control::{self, ControlError},
};

/// What this process is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// Serves the admission webhook.
    Admit,
    /// Keeps certificates, enrols pods, publishes netmaps.
    Control,
}

/// Why a role did not run, or ended by itself.
#[derive(Debug, Error)]
pub enum AppError {
    /// The settings cannot be used.
    #[error(transparent)]
    Config(#[from] Mistakes),
    /// Logs cannot be set up.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// There are no threads to run on.
    #[error("cannot start the threads of the runtime")]
    Runtime(#[source] io::Error),
    /// Admission failed.
    #[error(transparent)]
    Admit(#[from] AdmitError),
    /// The control plane failed.
    #[error(transparent)]
    Control(#[from] ControlError),
}

/// Runs a role until SIGTERM.
///
/// # Errors
/// Where it cannot start, or ends by itself.
pub fn run(role: Role, strings: &dyn Strings) -> Result<(), AppError> {
    match role {
        Role::Admit => {
            let config = AdmitConfig::read(strings)?;
            start(&config.common)?.block_on(admit::run(config))?;
        }
        Role::Control => {
            let config = ControlConfig::read(strings)?;
            start(&config.common)?.block_on(control::run(config))?;
        }
    }
    Ok(())
}

/// Reports an error on standard error, with its causes, and gives the code to exit with.
#[must_use]
pub fn exit(error: &AppError) -> ExitCode {
    if let AppError::Config(mistakes) = error {
        return exit_usage(mistakes);
    }
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    let text: Vec<String> = causes.map(|cause| format!(": {cause}")).collect();
    eprintln!("podwitness-webhook: {error}{}", text.concat());
    ExitCode::FAILURE
}

fn start(common: &Common) -> Result<tokio::runtime::Runtime, AppError> {
    telemetry::init(&common.log, common.json)?;
    descriptors::raise();
    tokio::runtime::Runtime::new().map_err(AppError::Runtime)
}

//! `podwitness-webhook admit|control`: parses the command line and hands over to the room.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use podwitness_runtime::{
    config::{EXIT_USAGE, Env, Mistakes, exit_usage},
    telemetry, tls,
};
use podwitness_webhook::{
    admit,
    config::{self, AdmitConfig, Common, ControlConfig},
    control,
};

/// Admission and control plane of Podwitness.
#[derive(Parser)]
#[command(version, about, after_help = config::HELP)]
struct Cli {
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    /// Serve the admission webhook: adds the sidecar to pods of labelled namespaces.
    Admit,
    /// Run the control plane: certificates, enrolment, netmaps.
    Control,
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { EXIT_USAGE } else { 0 };
            return error.print().map_or(ExitCode::FAILURE, |()| ExitCode::from(code));
        }
    };
    tls::install_provider();
    let outcome = match cli.role {
        Role::Admit => {
            AdmitConfig::read(&Env).map(|config| start(&config.common.clone(), admit::run(config)))
        }
        Role::Control => {
            ControlConfig::read(&Env).map(|config| start(&config.common.clone(), control::run(config)))
        }
    };
    finish(outcome)
}

fn start<E>(common: &Common, role: impl Future<Output = Result<(), E>>) -> anyhow::Result<()>
where
    E: std::error::Error + Send + Sync + 'static,
{
    telemetry::init(&common.log, common.json)?;
    tokio::runtime::Runtime::new()?.block_on(role)?;
    Ok(())
}

fn finish(outcome: Result<anyhow::Result<()>, Mistakes>) -> ExitCode {
    match outcome {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            eprintln!("podwitness-webhook: {error:#}");
            ExitCode::FAILURE
        }
        Err(mistakes) => exit_usage(&mistakes),
    }
}

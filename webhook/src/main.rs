//! `podwitness-webhook admit|control`: parses the command line and hands over to the role.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use podwitness_runtime::{
    config::{EXIT_USAGE, Env},
    tls,
    version::version,
};
use podwitness_webhook::{
    app::{self, Role},
    config,
};

/// Admission and control plane of Podwitness.
#[derive(Parser)]
#[command(version = version(), about, after_help = config::HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the admission webhook: adds the sidecar to pods of labelled namespaces.
    Admit,
    /// Run the control plane: certificates, enrolment, netmaps.
    Control,
}

fn main() -> ExitCode {
    let role = match Cli::try_parse().map(|cli| cli.command) {
        Ok(Command::Admit) => Role::Admit,
        Ok(Command::Control) => Role::Control,
        Err(error) => {
            let code = if error.use_stderr() { EXIT_USAGE } else { 0 };
            return error.print().map_or(ExitCode::FAILURE, |()| ExitCode::from(code));
        }
    };
    tls::install_provider();
    match app::run(role, &Env) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => app::exit(&error),
    }
}

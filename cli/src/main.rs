//! `kubectl-witness`: parses the command line and hands over to the command.

use std::{
    io::{Write as _, stderr, stdout},
    process::ExitCode,
};

use clap::Parser as _;
use podwitness_cli::{
    app,
    args::{Cli, EXIT_USAGE},
};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { EXIT_USAGE } else { 0 };
            return error.print().map_or(ExitCode::FAILURE, |()| ExitCode::from(code));
        }
    };
    match app::run(cli, &mut stdout(), &mut stderr()) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            // Where standard error is closed, the exit code says it.
            let _ = writeln!(stderr(), "kubectl-witness: {error:#}");
            ExitCode::from(app::exit_code(&error))
        }
    }
}

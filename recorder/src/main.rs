//! `podwitness-recorder ingest|view`: parses the command line and hands over to the role.

use std::{
    io::{self, Write as _},
    process::ExitCode,
    sync::Arc,
};

use clap::{Parser, Subcommand};
use mimalloc::MiMalloc;
use podwitness_recorder::{
    app,
    config::{self, Common, IngestConfig, ViewConfig},
    privileged::PrivilegedThread,
};
use podwitness_runtime::{
    config::{EXIT_USAGE, Env, Mistakes, Strings as _, exit_usage},
    descriptors,
    drain::shutdown_signal,
    telemetry, tls,
    version::version,
};
use podwitness_tunnel::Privileged;
use tokio::runtime::Runtime;

/// What many sessions took is given back when they have ended.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Takes recordings in, and shows them.
#[derive(Parser)]
#[command(version = version(), about, after_help = config::HELP)]
struct Cli {
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    /// Take recordings in through the tunnel.
    Ingest {
        /// Listen on this address too, for clients that bring their own tunnel; nothing they say is verified.
        #[arg(long, value_name = "ADDR")]
        listen_plain: Option<String>,
        /// File that names further issuers whose assertions are believed.
        #[arg(long, value_name = "FILE")]
        issuers: Option<String>,
        /// Join file: this recorder is outside the clusters that it names, and believes them.
        #[arg(long, value_name = "FILE")]
        join: Option<String>,
    },
    /// Show recordings on loopback.
    View,
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
        Role::Ingest { listen_plain, issuers, join } => {
            let settings = move |name: &str| match name {
                config::LISTEN_PLAIN if listen_plain.is_some() => listen_plain.clone(),
                config::ISSUERS if issuers.is_some() => issuers.clone(),
                config::JOIN if join.is_some() => join.clone(),
                _ => Env.get(name),
            };
            IngestConfig::read(&settings).map(ingest)
        }
        Role::View => ViewConfig::read(&Env).map(view),
    };
    finish(outcome)
}

fn ingest(config: IngestConfig) -> anyhow::Result<()> {
    start_logs(&config.common)?;
    // Before the runtime: its threads inherit what this one may do, which is then nothing.
    let privileged = config.tunnel.as_ref().map(|_| PrivilegedThread::start()).transpose()?;
    let privileged = privileged.map(|thread| Arc::new(thread) as Arc<dyn Privileged>);
    Runtime::new()?.block_on(async {
        let bound = app::ingest::bind(config, privileged).await?;
        if let Some(manifest) = &bound.manifest {
            // Logs go to the other stream, so that this can be piped; whoever reads it may be gone.
            if let Err(error) = io::stdout().write_all(manifest.as_bytes()) {
                tracing::warn!(%error, "cannot print the manifest of this recorder");
            }
        }
        bound.run(shutdown_signal()).await?;
        Ok(())
    })
}

fn view(config: ViewConfig) -> anyhow::Result<()> {
    start_logs(&config.common)?;
    Runtime::new()?.block_on(async {
        app::view::bind(config).await?.run(shutdown_signal()).await;
        Ok(())
    })
}

fn start_logs(common: &Common) -> anyhow::Result<()> {
    telemetry::init(&common.log, common.json)?;
    descriptors::raise();
    Ok(())
}

fn finish(outcome: Result<anyhow::Result<()>, Mistakes>) -> ExitCode {
    match outcome {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            eprintln!("podwitness-recorder: {error:#}");
            ExitCode::FAILURE
        }
        Err(mistakes) => exit_usage(&mistakes),
    }
}

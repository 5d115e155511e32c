//! The program of the injected container. It takes no arguments: admission writes its environment, and nothing that
//! is run beside it can stop or alter recording.

use std::process::ExitCode;

use anyhow::Context as _;
use mimalloc::MiMalloc;
use podwitness_runtime::{
    config::{Env, exit_usage},
    descriptors,
    drain::shutdown_signal,
    readiness::Readiness,
    telemetry, tls,
    version::version,
};
use podwitness_sidecar::{
    app,
    config::Config,
    kernel::{Kernel, privilege},
    log_socket::set_filter,
};
use tokio::{runtime::Builder, time::Instant};

/// What many sessions or watches took is given back when they have ended.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Threads that serve connections; a pod's API traffic seldom fills one.
const WORKERS: usize = 2;
/// Threads that read and write files.
const BLOCKING: usize = 4;
const STACK: usize = 1 << 20;

fn main() -> ExitCode {
    let begun = Instant::now();
    let resolv_conf = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let config = match Config::read(&Env, &resolv_conf) {
        Ok(config) => config,
        Err(error) => return exit_usage(&error),
    };
    match run(config, begun) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(config: Config, begun: Instant) -> anyhow::Result<()> {
    let log = telemetry::init(&config.env.log_level, true)?;
    descriptors::raise();
    tls::install_provider();
    privilege::confine()?;
    let kernel = Kernel::start()?;
    // From here on no other thread has a capability: each new one has those of its maker.
    privilege::renounce()?;
    let runtime = Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(BLOCKING)
        .thread_stack_size(STACK)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let bound = app::bind(config, kernel, set_filter(log)).await?;
        tokio::spawn(say_when_ready(bound.readiness(), begun));
        Ok(bound.run(shutdown_signal()).await?)
    })
}

/// The pod's other containers wait for this, so what it took is worth a line.
async fn say_when_ready(readiness: Readiness, begun: Instant) {
    readiness.ready().await;
    tracing::info!(version = version(), elapsed = ?begun.elapsed(), "ready");
}

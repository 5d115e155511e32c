//! A recorder that goes wrong on command: the real `ingest`, enrolled and reached like any other, behind a stage that
//! disturbs its connections. What it takes is stored by the real store, so the durable offset is that of the product.
//!
//! `tunnel --connection--> serve --bytes--> carry | impostor`; settings are those of `podwitness-recorder ingest`, the
//! fault is [`command`]ed. As `view` it is the product's viewer, which does nothing wrong. For tests only.

mod carry;
mod command;
mod fault;
mod impostor;
mod serve;

use std::{process::ExitCode, sync::Arc};

use podwitness_recorder::{
    app,
    config::{IngestConfig, ViewConfig},
    privileged::PrivilegedThread,
};
use podwitness_runtime::{
    config::{Env, exit_usage},
    drain::shutdown_signal,
    telemetry, tls,
};
use podwitness_tunnel::Privileged;
use tokio::runtime::Runtime;

use fault::Faults;

fn main() -> ExitCode {
    tls::install_provider();
    let outcome = match std::env::args().nth(1).as_deref() {
        Some("view") => ViewConfig::read(&Env).map(view),
        _ => IngestConfig::read(&Env).map(run),
    };
    match outcome {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            eprintln!("podwitness-faulty-recorder: {error:#}");
            ExitCode::FAILURE
        }
        Err(mistakes) => exit_usage(&mistakes),
    }
}

fn view(config: ViewConfig) -> anyhow::Result<()> {
    telemetry::init(&config.common.log, config.common.json)?;
    Runtime::new()?.block_on(async {
        app::view::bind(config).await?.run(shutdown_signal()).await;
        Ok(())
    })
}

fn run(config: IngestConfig) -> anyhow::Result<()> {
    telemetry::init(&config.common.log, config.common.json)?;
    // Before the runtime: its threads inherit what this one may do, which is then nothing.
    let privileged = config.tunnel.as_ref().map(|_| PrivilegedThread::start()).transpose()?;
    let privileged = privileged.map(|thread| Arc::new(thread) as Arc<dyn Privileged>);
    Runtime::new()?.block_on(async {
        let faults = Faults::default();
        let commands = command::bind().await?;
        let bound = app::ingest::bind(config, privileged).await?;
        tokio::spawn(command::follow(commands, faults.clone()));
        let serve = move |ingest, listener, door| serve::serve(ingest, listener, door, faults.clone());
        bound.run_with(serve, shutdown_signal()).await?;
        Ok(())
    })
}

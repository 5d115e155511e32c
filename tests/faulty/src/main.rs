//! A recorder that goes wrong on command: the real `ingest`, enrolled and reached like any other, behind a stage that
//! disturbs its connections. What it takes is stored by the real store, so the durable offset is that of the product.
//!
//! `tunnel --connection--> serve --bytes--> carry | impostor`; settings are those of `podwitness-recorder ingest`, the
//! fault is [`command`]ed. For tests only.

mod carry;
mod command;
mod fault;
mod impostor;
mod serve;

use std::{process::ExitCode, sync::Arc};

use podwitness_recorder::{app, config::IngestConfig, privileged::PrivilegedThread};
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
    match IngestConfig::read(&Env).map(run) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            eprintln!("podwitness-faulty-recorder: {error:#}");
            ExitCode::FAILURE
        }
        Err(mistakes) => exit_usage(&mistakes),
    }
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

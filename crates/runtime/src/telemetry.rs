//! Logs on standard error, as text or JSON, with a filter that can be changed while the program runs.

use std::io::IsTerminal as _;

use thiserror::Error;
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::ParseError,
    fmt,
    layer::SubscriberExt as _,
    reload,
    util::{SubscriberInitExt as _, TryInitError},
};

/// What stays quiet unless a filter names it: the WireGuard device tells of every peer it is given, and takes the end of
/// a control connection for an error.
const QUIET: &str = "gotatun=warn,gotatun::device::uapi=off";

/// Changes the filter of the running program. Clones change the same filter.
#[derive(Clone, Debug)]
pub struct LogHandle(reload::Handle<EnvFilter, Registry>);

/// Why logs cannot be set up as asked.
#[derive(Debug, Error)]
pub enum TelemetryError {
    /// The filter does not parse.
    #[error("log filter {filter:?} cannot be read; use a level such as info, or podwitness_proxy=debug,info")]
    Filter {
        /// The filter.
        filter: String,
        /// Why.
        #[source]
        source: ParseError,
    },
    /// The program has set up logs already.
    #[error("logs are set up already")]
    Twice(#[source] TryInitError),
    /// The subscriber is gone.
    #[error("the log filter can no longer be changed")]
    Gone(#[source] reload::Error),
}

/// Sets up logs for the whole process; once.
///
/// # Errors
/// Where the filter does not parse or logs are set up already.
pub fn init(filter: &str, json: bool) -> Result<LogHandle, TelemetryError> {
    let (filter, handle) = reload::Layer::new(parse(filter)?);
    let output: Box<dyn Layer<_> + Send + Sync> = if json {
        fmt::layer().json().flatten_event(true).with_writer(std::io::stderr).boxed()
    } else {
        let colours = std::io::stderr().is_terminal();
        fmt::layer().with_ansi(colours).with_writer(std::io::stderr).boxed()
    };
    tracing_subscriber::registry().with(filter).with(output).try_init().map_err(TelemetryError::Twice)?;
    Ok(LogHandle(handle))
}

impl LogHandle {
    /// Replaces the filter.
    ///
    /// # Errors
    /// Where the filter does not parse; the old one then stays.
    pub fn set(&self, filter: &str) -> Result<(), TelemetryError> {
        self.0.reload(parse(filter)?).map_err(TelemetryError::Gone)
    }
}

fn parse(filter: &str) -> Result<EnvFilter, TelemetryError> {
    EnvFilter::try_new(format!("{QUIET},{filter}"))
        .map_err(|source| TelemetryError::Filter { filter: filter.chars().take(256).collect(), source })
}

#[cfg(test)]
mod tests {
    use tracing::{Level, enabled};

    use super::*;

    #[test]
    fn the_filter_changes_while_the_program_runs_and_a_wrong_one_changes_nothing() {
        let handle = init("info", true).unwrap();
        assert!(enabled!(Level::INFO) && !enabled!(Level::DEBUG));
        handle.set("debug").unwrap();
        assert!(enabled!(Level::DEBUG));
        assert!(matches!(handle.set("info=what"), Err(TelemetryError::Filter { .. })));
        assert!(enabled!(Level::DEBUG));
        assert!(matches!(init("info", false), Err(TelemetryError::Twice(_))));
    }
}

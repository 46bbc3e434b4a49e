//! The log: one line for each event, on stderr, so that stdout carries data alone.

use std::io::IsTerminal as _;

use tracing_subscriber::{EnvFilter, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use crate::config::{Log, LogFormat};

/// Why the log could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter's directives cannot be read.
    #[error("the log filter cannot be used")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// There is a log already.
    #[error("the log is started already")]
    Started(#[from] tracing_subscriber::util::TryInitError),
}

/// Starts the log of this process.
pub fn start(log: &Log) -> Result<(), Error> {
    let registry = tracing_subscriber::registry().with(EnvFilter::try_new(&log.filter)?);
    match log.format {
        LogFormat::Text => {
            let lines = tracing_subscriber::fmt::layer()
                .with_writer(std::io::stderr)
                .with_ansi(std::io::stderr().is_terminal())
                .with_target(false);
            registry.with(lines).try_init()?;
        }
        LogFormat::Json => {
            let lines = tracing_subscriber::fmt::layer()
                .json()
                .flatten_event(true)
                .with_writer(std::io::stderr);
            registry.with(lines).try_init()?;
        }
    }
    Ok(())
}

/// An error and everything that caused it, in one line.
#[must_use]
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !line.ends_with(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        source = cause.source();
    }
    line
}

//! Logs and traces. Logs go to stderr, because stdout belongs to what a command was asked for (a token, the
//! start banner); traces to a collector, if one is set ([`crate::traces`]).

use std::io::{IsTerminal, Write};

use tracing::Subscriber;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{EnvFilter, Layer as _, Registry};

use crate::traces::TraceExport;

/// What is logged when `RUST_LOG` says nothing: the services' own events, and of the libraries
/// only what somebody should look at.
const DEFAULT_FILTER: &str =
    "info,sqlx=warn,sea_orm=warn,sea_orm_migration=info,hyper=warn,h2=warn,reqwest=warn,rustls=warn,librdkafka=warn,tower=warn";

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// `RUST_LOG` cannot be parsed.
    #[error("RUST_LOG is {read:?}, but must be like \"info,sqlx=debug\": {reason}")]
    Filter {
        /// What was read.
        read: String,
        /// What the parser says.
        reason: String,
    },
    /// Traces cannot be exported.
    #[cfg(feature = "otlp")]
    #[error(transparent)]
    Export(#[from] crate::traces::export::ExportError),
    /// It was set up before, by somebody else.
    #[error(transparent)]
    AlreadyInitialized(#[from] TryInitError),
}

/// Keeps telemetry alive; flushes what is buffered when dropped. Hold it until the end of `main`.
#[must_use = "telemetry is flushed when this is dropped"]
#[derive(Debug, Default)]
pub struct TelemetryGuard {
    #[cfg(feature = "otlp")]
    _traces: Option<crate::traces::export::Exporting>,
}

impl Drop for TelemetryGuard {
    fn drop(&mut self) {
        // There is nobody left to tell.
        let _ = std::io::stderr().flush();
    }
}

/// Starts logging to stderr, filtered by `RUST_LOG`: for people on a terminal, otherwise one JSON object per line. There panics are
/// logged too, as one event, so that machines that collect the log see them whole. With `export` traces are exported; what is logged
/// does not decide what is traced.
///
/// # Errors
///
/// A malformed `RUST_LOG`, a second call, and when the exporter cannot be set up.
pub fn init(export: Option<&TraceExport>) -> Result<TelemetryGuard, TelemetryError> {
    let filter = filter(std::env::var("RUST_LOG").ok().as_deref())?;
    let guard = subscribe(filter, export)?;
    if !std::io::stderr().is_terminal() {
        log_panics();
    }
    Ok(guard)
}

#[cfg(feature = "otlp")]
fn subscribe(filter: EnvFilter, export: Option<&TraceExport>) -> Result<TelemetryGuard, TelemetryError> {
    let Some(export) = export else { return only_log(filter) };
    let (traces, exporting) = crate::traces::export::install(&crate::traces::export::provider(export)?);
    Registry::default().with(lines().with_filter(filter)).with(traces).try_init()?;
    Ok(TelemetryGuard { _traces: Some(exporting) })
}

/// Without the feature there is no setting that comes this far with an export.
#[cfg(not(feature = "otlp"))]
fn subscribe(filter: EnvFilter, _: Option<&TraceExport>) -> Result<TelemetryGuard, TelemetryError> {
    only_log(filter)
}

/// The filter applies to everything, which costs least where nothing is logged.
fn only_log(filter: EnvFilter) -> Result<TelemetryGuard, TelemetryError> {
    Registry::default().with(filter).with(lines()).try_init()?;
    Ok(TelemetryGuard::default())
}

fn lines<S>() -> Box<dyn tracing_subscriber::Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    if !std::io::stderr().is_terminal() {
        return layer.json().flatten_event(true).with_current_span(true).with_span_list(false).boxed();
    }
    layer.with_ansi(std::env::var_os("NO_COLOR").is_none()).with_target(false).boxed()
}

fn filter(read: Option<&str>) -> Result<EnvFilter, TelemetryError> {
    let directives = match read {
        Some(text) if !text.trim().is_empty() => text,
        _ => DEFAULT_FILTER,
    };
    EnvFilter::try_new(directives)
        .map_err(|error| TelemetryError::Filter { read: directives.to_owned(), reason: error.to_string() })
}

fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let message = panic.payload_as_str().unwrap_or("no message");
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        let backtrace = std::backtrace::Backtrace::capture();
        tracing::error!(message, location, %backtrace, "panicked");
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_malformed_filter_is_an_error_that_shows_it() {
        let error = filter(Some("info,sqlx=loud")).unwrap_err();
        assert!(error.to_string().contains("sqlx=loud"), "{error}");
        for fine in [None, Some(""), Some("debug"), Some("warn,order_service=trace")] {
            filter(fine).unwrap();
        }
    }
}

//! Logs and traces. Logs go to stderr, because stdout belongs to what a command was asked for (a token, the
//! start banner); traces to a collector, if one is set ([`crate::traces`]).

use std::io::{IsTerminal, Write};
use std::str::FromStr;

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

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Pretty on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// For people: colors, no fixed shape.
    Pretty,
    /// For machines: one JSON object per line.
    Json,
}

impl FromStr for LogFormat {
    type Err = UnknownLogFormat;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "pretty" => Ok(Self::Pretty),
            "json" => Ok(Self::Json),
            _ => Err(UnknownLogFormat(text.to_owned())),
        }
    }
}

/// Not a log format.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no log format; use auto, pretty or json")]
pub struct UnknownLogFormat(String);

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

/// Starts logging to stderr, filtered by `RUST_LOG`. Panics are logged too, as one event, so that
/// machines that collect the log see them whole.
///
/// # Errors
///
/// A malformed `RUST_LOG`, and a second call.
pub fn init(format: LogFormat) -> Result<TelemetryGuard, TelemetryError> {
    init_with(format, None)
}

/// [`init`], and exports traces. What is logged does not decide what is traced.
///
/// # Errors
///
/// As [`init`], and when the exporter cannot be set up.
pub fn init_with(format: LogFormat, export: Option<&TraceExport>) -> Result<TelemetryGuard, TelemetryError> {
    let filter = filter(std::env::var("RUST_LOG").ok().as_deref())?;
    let guard = subscribe(filter, format, export)?;
    if is_json(format) {
        log_panics();
    }
    Ok(guard)
}

#[cfg(feature = "otlp")]
fn subscribe(filter: EnvFilter, format: LogFormat, export: Option<&TraceExport>) -> Result<TelemetryGuard, TelemetryError> {
    let Some(export) = export else { return only_log(filter, format) };
    let (traces, exporting) = crate::traces::export::install(&crate::traces::export::provider(export)?);
    Registry::default().with(lines(format).with_filter(filter)).with(traces).try_init()?;
    Ok(TelemetryGuard { _traces: Some(exporting) })
}

/// Without the feature there is no setting that comes this far with an export.
#[cfg(not(feature = "otlp"))]
fn subscribe(filter: EnvFilter, format: LogFormat, _: Option<&TraceExport>) -> Result<TelemetryGuard, TelemetryError> {
    only_log(filter, format)
}

/// The filter applies to everything, which costs least where nothing is logged.
fn only_log(filter: EnvFilter, format: LogFormat) -> Result<TelemetryGuard, TelemetryError> {
    Registry::default().with(filter).with(lines(format)).try_init()?;
    Ok(TelemetryGuard::default())
}

fn is_json(format: LogFormat) -> bool {
    match format {
        LogFormat::Json => true,
        LogFormat::Pretty => false,
        LogFormat::Auto => !std::io::stderr().is_terminal(),
    }
}

fn lines<S>(format: LogFormat) -> Box<dyn tracing_subscriber::Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    if is_json(format) {
        return layer.json().flatten_event(true).with_current_span(true).with_span_list(false).boxed();
    }
    let ansi = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    layer.with_ansi(ansi).with_target(false).boxed()
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

    #[test]
    fn formats_are_parsed() {
        assert_eq!("json".parse::<LogFormat>().unwrap(), LogFormat::Json);
        assert!("xml".parse::<LogFormat>().unwrap_err().to_string().contains("auto, pretty or json"));
    }
}

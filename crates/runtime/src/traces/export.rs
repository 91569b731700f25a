//! The exporter: OTLP in protobuf over HTTP, on a thread of its own.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use opentelemetry::{KeyValue, global, trace::TracerProvider as _};
use opentelemetry_otlp::{ExporterBuildError, Protocol, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    propagation::TraceContextPropagator,
    trace::{BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider, SpanData, SpanExporter},
};
use tracing::{Metadata, Subscriber};
use tracing_subscriber::{Layer, filter::filter_fn, registry::LookupSpan};

use super::{Sampling, TraceExport, http};

/// Spans that may wait to be exported: some seconds of a busy replica whose requests are all sampled, some ten megabytes at most.
const QUEUE_SPANS: usize = 16_384;
/// Spans per export: below the 4 MiB that collectors take by default.
const BATCH_SPANS: usize = 2_048;
/// A collector is near; one that takes longer than this is as good as away.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// At the end of a process: the last spans are not worth being killed for.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Crates whose `tracing` spans are exported: those of requests. Spans of loops (relay, sweeper, consumers) never end, and messages have
/// spans of their own.
const EXPORTED_TARGETS: [&str; 3] = ["runtime::traces", "graphql_transport", "gateway"];

/// Except these. A socket lives for hours, and each of its operations begins a trace; an event that is pushed is a step of the trace of what
/// it tells of, and not of the subscription's.
const NOT_EXPORTED: [&str; 2] = ["graphql.websocket", "graphql.event"];

/// Why no exporter could be set up.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The HTTP client.
    #[error("no HTTP client for exporting traces: {0}")]
    Client(#[from] reqwest::Error),
    /// The exporter.
    #[error("cannot export traces: {0}")]
    Exporter(#[from] ExporterBuildError),
    /// The thread on which the client is built.
    #[error("no thread for exporting traces")]
    Thread,
}

/// Flushes what waits, and ends the export, when dropped.
#[derive(Debug)]
pub struct Exporting(SdkTracerProvider);

impl Exporting {
    /// Ends this provider's export one day.
    pub fn new(provider: SdkTracerProvider) -> Self {
        Self(provider)
    }
}

impl Drop for Exporting {
    fn drop(&mut self) {
        if let Err(error) = self.0.shutdown_with_timeout(FLUSH_TIMEOUT) {
            tracing::debug!(%error, "the last spans may be lost");
        }
    }
}

/// Makes the exporter, and a provider of spans that feeds it; nothing of it is installed.
///
/// # Errors
///
/// [`ExportError`]. A collector that does not answer is none.
pub fn provider(export: &TraceExport) -> Result<SdkTracerProvider, ExportError> {
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_http_client(blocking_client()?)
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(&export.url)
        .with_timeout(EXPORT_TIMEOUT)
        .build()?;
    let bounds = BatchConfigBuilder::default().with_max_queue_size(QUEUE_SPANS).with_max_export_batch_size(BATCH_SPANS).build();
    let processor = BatchSpanProcessor::builder(Outspoken::new(exporter)).with_batch_config(bounds).build();
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let resource = Resource::builder().with_service_name(export.service.clone()).with_attribute(version).build();
    Ok(SdkTracerProvider::builder()
        .with_sampler(sampler(export.sampling))
        .with_resource(resource)
        .with_span_processor(processor)
        .build())
}

/// Makes `provider` the process's, and answers the layer that feeds it with the spans of requests.
pub fn install<S>(provider: &SdkTracerProvider) -> (impl Layer<S> + Send + Sync + use<S>, Exporting)
where
    S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
{
    global::set_tracer_provider(provider.clone());
    global::set_text_map_propagator(TraceContextPropagator::new());
    http::switch_on();
    let layer = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("tandem"))
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        .with_filter(filter_fn(is_exported));
    (layer, Exporting::new(provider.clone()))
}

fn is_exported(metadata: &Metadata<'_>) -> bool {
    metadata.is_span()
        && EXPORTED_TARGETS.iter().any(|target| metadata.target().starts_with(target))
        && !NOT_EXPORTED.contains(&metadata.name())
}

fn sampler(sampling: Sampling) -> Sampler {
    let root = match sampling.ratio {
        ratio if ratio >= 1.0 => Sampler::AlwaysOn,
        ratio if ratio <= 0.0 => Sampler::AlwaysOff,
        ratio => Sampler::TraceIdRatioBased(ratio),
    };
    if sampling.parent_based { Sampler::ParentBased(Box::new(root)) } else { root }
}

/// Built on a plain thread, because it starts a runtime of its own, which cannot be done inside of one.
fn blocking_client() -> Result<reqwest::blocking::Client, ExportError> {
    crate::install_tls_provider();
    let build = || {
        // A redirect would send what we do wherever it points to.
        let redirects = reqwest::redirect::Policy::none();
        reqwest::blocking::Client::builder().timeout(EXPORT_TIMEOUT).redirect(redirects).build()
    };
    Ok(std::thread::spawn(build).join().map_err(|_| ExportError::Thread)??)
}

/// Says once that the collector is away, and once that it is back, instead of once per batch.
#[derive(Debug)]
struct Outspoken<E> {
    exporter: E,
    is_away: AtomicBool,
}

impl<E> Outspoken<E> {
    fn new(exporter: E) -> Self {
        Self { exporter, is_away: AtomicBool::new(false) }
    }
}

impl<E: SpanExporter> SpanExporter for Outspoken<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        match self.exporter.export(batch).await {
            Ok(()) => {
                if self.is_away.swap(false, Ordering::Relaxed) {
                    tracing::info!("traces are exported again");
                }
            }
            Err(error) => {
                metrics::counter!("traces_spans_lost_total").increment(spans as u64);
                if !self.is_away.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "cannot export traces; spans are lost, everything else goes on");
                }
            }
        }
        Ok(())
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

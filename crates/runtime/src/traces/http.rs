//! The root span of a request.

use std::sync::atomic::{AtomicBool, Ordering};

use axum::{
    Router,
    extract::Request,
    middleware::{self, Next},
    response::Response,
};
use http::HeaderMap;
use opentelemetry::{Context, global, propagation::Extractor};
use tracing::{Instrument as _, field::Empty};

/// Set once, when an exporter is installed.
static EXPORTED: AtomicBool = AtomicBool::new(false);

/// From now on routers that are built trace their requests.
#[cfg(feature = "otlp")]
pub(super) fn switch_on() {
    EXPORTED.store(true, Ordering::Relaxed);
}

/// Opens a span for every request of these routes, in the trace of the caller if it sent a `traceparent`. The routes as they are when no traces
/// are exported.
pub fn traced(router: Router) -> Router {
    if EXPORTED.load(Ordering::Relaxed) { router.layer(middleware::from_fn(trace)) } else { router }
}

async fn trace(request: Request, next: Next) -> Response {
    let caller = global::get_text_map_propagator(|propagator| {
        propagator.extract_with_context(&Context::new(), &CallerHeaders(request.headers()))
    });
    let span = {
        let _caller = caller.attach();
        tracing::info_span!(
            "http.request",
            otel.name = format!("{} {}", request.method(), request.uri().path()),
            otel.kind = "server",
            otel.status_code = Empty,
            http.request.method = %request.method(),
            url.path = request.uri().path(),
            http.response.status_code = Empty,
        )
    };
    let response = next.run(request).instrument(span.clone()).await;
    span.record("http.response.status_code", response.status().as_u16());
    if response.status().is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
    response
}

struct CallerHeaders<'a>(&'a HeaderMap);

impl Extractor for CallerHeaders<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}

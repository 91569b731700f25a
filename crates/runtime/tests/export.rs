//! Traces on the wire: what a collector gets, and what it does to a service that there is none.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{Router, body::Bytes, extract::State, routing::post};
use http::{HeaderMap, header};
use opentelemetry::trace::{Tracer as _, TracerProvider as _};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message as _;
use runtime::traces::{
    Sampling, TraceExport,
    export::{self, Exporting},
};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{
    Layer,
    layer::{Context, SubscriberExt as _},
    util::SubscriberInitExt as _,
};

type Received = Arc<Mutex<Vec<ExportTraceServiceRequest>>>;

async fn receive(State(received): State<Received>, headers: HeaderMap, body: Bytes) {
    assert_eq!(headers[header::CONTENT_TYPE], "application/x-protobuf");
    received.lock().unwrap().push(ExportTraceServiceRequest::decode(body).unwrap());
}

fn to(url: String) -> TraceExport {
    TraceExport { url, service: "a-service".to_owned(), sampling: Sampling { ratio: 1.0, parent_based: true } }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_reaches_the_collector_before_the_end() {
    let received = Received::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1/traces", listener.local_addr().unwrap());
    let router = Router::new().route("/v1/traces", post(receive)).with_state(Arc::clone(&received));
    tokio::spawn(async move { axum::serve(listener, router).await });

    let provider = export::provider(&to(url)).unwrap();
    drop(provider.tracer("test").start("a step"));
    tokio::task::spawn_blocking(move || provider.shutdown().unwrap()).await.unwrap();

    let received = received.lock().unwrap();
    let spans = &received[0].resource_spans[0];
    let resource = spans.resource.as_ref().unwrap();
    let service = resource.attributes.iter().find(|attribute| attribute.key == "service.name").unwrap();
    assert!(format!("{:?}", service.value).contains("a-service"), "{service:?}");
    assert_eq!(spans.scope_spans[0].spans[0].name, "a step");
}

/// Counts what a person would be woken by.
struct Warnings(Arc<AtomicUsize>);

impl<S: Subscriber> Layer<S> for Warnings {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if *event.metadata().level() <= Level::WARN {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_away_costs_spans_and_one_line_and_no_time() {
    let warnings = Arc::new(AtomicUsize::new(0));
    tracing_subscriber::registry().with(Warnings(Arc::clone(&warnings))).init();
    // A listener that never answers, which is worse than a port that refuses.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    for url in ["http://127.0.0.1:1/v1/traces".to_owned(), format!("http://{}/v1/traces", silent.local_addr().unwrap())] {
        warnings.store(0, Ordering::Relaxed);
        let provider = export::provider(&to(url.clone())).unwrap();
        let tracer = provider.tracer("test");
        let begin = Instant::now();
        for _ in 0..100_000 {
            drop(tracer.start("a step"));
        }
        // Some microseconds each, also where the queue is full.
        assert!(begin.elapsed() < Duration::from_secs(10), "{url}: {:?}", begin.elapsed());
        let begin = Instant::now();
        let guard = Exporting::new(provider);
        tokio::task::spawn_blocking(move || drop(guard)).await.unwrap();
        assert!(begin.elapsed() < Duration::from_secs(5), "{url}: {:?}", begin.elapsed());
        assert!(warnings.load(Ordering::Relaxed) <= 1, "{url}");
    }
}

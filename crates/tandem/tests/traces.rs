//! One trace from a mutation through both outboxes and the broker to the subscriber, whatever happens on the way.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::sync::LazyLock;

use opentelemetry::trace::{SpanId, SpanKind, TraceId};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use runtime::traces::export;
use serde_json::{Value, json};
use support::{System, User, until, user::CREATE_ORDER};
use tracing_subscriber::{layer::SubscriberExt as _, util::SubscriberInitExt as _};

const OF_USER: &str = "subscription { orderEvents { version status } }";

/// Every span of this process that has ended.
static ENDED: LazyLock<InMemorySpanExporter> = LazyLock::new(|| {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let (layer, exporting) = export::install(&provider);
    tracing_subscriber::registry().with(layer).init();
    // It would end the export.
    std::mem::forget(exporting);
    exporter
});

/// A caller who traces, and what it called.
struct Trace {
    id: TraceId,
    caller: SpanId,
}

impl Trace {
    fn new() -> Self {
        LazyLock::force(&ENDED);
        let id = uuid::Uuid::now_v7().as_u128();
        Self { id: id.into(), caller: SpanId::from(0x1234_5678_9abc_def0) }
    }

    async fn call(&self, user: &User, url: &str, sampled: bool, document: &str, variables: Value) -> Value {
        let traceparent = format!("00-{}-{}-0{}", self.id, self.caller, u8::from(sampled));
        let request = reqwest::Client::new().post(url).bearer_auth(&user.token).header("traceparent", traceparent);
        let answer = request.json(&json!({ "query": document, "variables": variables })).send().await.unwrap();
        let answer: Value = answer.json().await.unwrap();
        assert_eq!(answer.get("errors"), None, "{answer}");
        answer
    }

    fn spans(&self) -> Vec<SpanData> {
        let mut spans = ENDED.get_finished_spans().unwrap();
        spans.retain(|span| span.span_context.trace_id() == self.id);
        spans
    }

    fn count(&self, name: &str) -> usize {
        self.spans().iter().filter(|span| span.name == name).count()
    }

    /// The names from the last span of this name up to the caller.
    fn way_to(&self, name: &str) -> Vec<String> {
        let spans = self.spans();
        let mut way = Vec::new();
        let mut next = spans.iter().rfind(|span| span.name == name);
        while let Some(span) = next {
            way.push(span.name.to_string());
            if span.parent_span_id == self.caller {
                way.reverse();
                return way;
            }
            next = spans.iter().find(|parent| parent.span_context.span_id() == span.parent_span_id);
        }
        panic!("{name} does not lead to the caller: {spans:#?}");
    }
}

fn an_order() -> Value {
    json!({ "input": { "total": support::user::money("1", "EUR"), "description": "a book" } })
}

/// The whole life of an order, as one trace shows it.
const LIFE: [&str; 10] = [
    "POST /graphql",
    "graphql.request",
    "graphql.operation",
    "graphql.fetch",
    "create order",
    "publish payment_tasks",
    "decide payment",
    "publish payment_results",
    "settle order",
    "push order event",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_trace_leads_from_the_caller_of_a_mutation_to_the_subscriber_s_event() {
    let trace = Trace::new();
    let Some(system) = System::start().await else { return };
    let ada = system.user_with("ada", "20", "EUR").await;
    let mut socket = ada.socket().await;
    socket.subscribe("s", OF_USER, json!({})).await;
    // The subscription begins when it is opened; nothing says so.
    until("somebody follows", async || ENDED.get_finished_spans().unwrap().iter().any(is_opened_subscription)).await;
    trace.call(&ada, &system.url(), true, CREATE_ORDER, an_order()).await;
    for status in ["PENDING", "PAID"] {
        assert_eq!(socket.event("s", "orderEvents").await.unwrap()["status"], status);
    }
    until("both events are pushed", async || trace.count("push order event") == 2).await;
    assert_eq!(trace.way_to("push order event"), LIFE);
    for name in LIFE {
        let pushes = usize::from(name == "push order event");
        assert_eq!(trace.count(name), 1 + pushes, "{name}");
    }
    let spans = trace.spans();
    let kind = |name: &str| spans.iter().find(|span| span.name == name).map(|span| span.span_kind.clone());
    assert_eq!(kind("POST /graphql"), Some(SpanKind::Server));
    assert_eq!(kind("publish payment_tasks"), Some(SpanKind::Producer));
    assert_eq!(kind("decide payment"), Some(SpanKind::Consumer));
}

fn is_opened_subscription(span: &SpanData) -> bool {
    span.name == "graphql.operation"
        && span
            .attributes
            .iter()
            .any(|attribute| attribute.key.as_str() == "operation.type" && attribute.value.as_str() == "subscription")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_trace_survives_a_task_that_only_the_sweeper_publishes() {
    let trace = Trace::new();
    let Some(system) = System::start().await else { return };
    let ada = system.user_with("ada", "20", "EUR").await;
    system.leave_tasks_to_the_sweeper();
    let answer = trace.call(&ada, &system.url(), true, CREATE_ORDER, an_order()).await;
    ada.paid(&support::user::accepted(&answer["data"]["createOrder"])).await;
    until("the order is settled", async || trace.count("settle order") == 1).await;
    assert_eq!(trace.way_to("settle order"), LIFE[..9]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn payments_goes_on_with_the_trace_of_a_query_over_both_services() {
    let trace = Trace::new();
    let Some(system) = System::start().await else { return };
    let ada = system.user_with("ada", "20", "EUR").await;
    trace.call(&ada, &system.url(), true, "{ me { account { balance { amount } } orders { nodes { id } } } }", json!({})).await;
    until("both requests are traced", async || trace.count("POST /graphql") == 2).await;
    let spans = trace.spans();
    let inner = spans.iter().find(|span| span.name == "POST /graphql" && span.parent_span_id != trace.caller).unwrap();
    let above = spans.iter().find(|span| span.span_context.span_id() == inner.parent_span_id).unwrap();
    assert_eq!(above.name, "graphql.fetch");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_does_not_sample_leaves_no_trace_anywhere() {
    let trace = Trace::new();
    let Some(system) = System::start().await else { return };
    let ada = system.user_with("ada", "20", "EUR").await;
    let answer = trace.call(&ada, &system.url(), false, CREATE_ORDER, an_order()).await;
    ada.paid(&support::user::accepted(&answer["data"]["createOrder"])).await;
    for topic in [schema::TOPIC_PAYMENT_TASKS, schema::TOPIC_PAYMENT_RESULTS] {
        let messages = system.read(topic, 1).await;
        assert_eq!(messages[0].headers.get("traceparent"), None, "{topic}");
    }
    assert_eq!(system.count(system.orders_db(), "order_events WHERE traceparent IS NOT NULL").await, 0);
    assert!(trace.spans().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operation_on_a_socket_begins_a_trace_of_its_own() {
    let _trace = Trace::new();
    let Some(system) = System::start().await else { return };
    let ada = system.user_with("ada", "20", "EUR").await;
    let mut socket = ada.socket().await;
    socket.subscribe("m", CREATE_ORDER, an_order()).await;
    let order = support::user::accepted(&socket.event("m", "createOrder").await.unwrap());
    ada.paid(&order).await;
    let is_of_order = |span: &&SpanData| {
        span.name == "settle order" && span.attributes.iter().any(|attribute| attribute.value.as_str() == order.as_str())
    };
    until("the order is settled", async || ENDED.get_finished_spans().unwrap().iter().any(|span| is_of_order(&span))).await;
    let spans = ENDED.get_finished_spans().unwrap();
    let settled = spans.iter().find(is_of_order).unwrap();
    let root = spans
        .iter()
        .find(|span| span.span_context.trace_id() == settled.span_context.trace_id() && span.parent_span_id == SpanId::INVALID)
        .expect("a root");
    assert_eq!(root.name, "graphql.request");
}

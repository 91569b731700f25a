//! One trace from a request through outboxes and broker to whoever is told, by the W3C header `traceparent`.
//!
//! Only sampled traces travel. Without one, everything here costs a look at a thread-local or at a message's headers: nothing is allocated or
//! formatted. Spans go to what the program installed in the crate `opentelemetry`; in a program without it there are no steps, and a
//! `traceparent` that came with a message is the caller's to pass on.

use std::borrow::Cow;
use std::fmt::Display;

use opentelemetry::propagation::{Extractor, Injector};
pub use opentelemetry::trace::SpanKind;
use opentelemetry::trace::{Status, TraceContextExt as _, Tracer as _};
use opentelemetry::{Context, KeyValue, global};
use uuid::Uuid;

use crate::message::{Delivery, Record, header};

/// The name under which these spans are made.
const SCOPE: &str = "messaging";

/// One step of a sampled trace: a span that ends when this is dropped.
#[derive(Debug)]
#[must_use = "the step ends when it is dropped"]
pub struct Step(Context);

impl Step {
    /// A step below what is being done here; `None` unless that is sampled.
    pub fn here(name: &'static str) -> Option<Self> {
        let current = Context::map_current(|current| current.span().span_context().is_sampled().then(|| current.clone()))?;
        Self::below(&current, name, SpanKind::Internal)
    }

    /// A step below the one that wrote `traceparent`; `None` unless that was sampled and spans are recorded here.
    pub fn after(traceparent: &str, name: impl Into<Cow<'static, str>>, kind: SpanKind) -> Option<Self> {
        let written =
            global::get_text_map_propagator(|propagator| propagator.extract_with_context(&Context::new(), &Written(traceparent)));
        if written.span().span_context().is_sampled() { Self::below(&written, name, kind) } else { None }
    }

    /// A step of whoever received the message, below the one that published it; `None` as for [`Step::after`].
    pub fn receiving(delivery: &Delivery, name: &'static str) -> Option<Self> {
        delivery.headers.get_str(header::TRACEPARENT).and_then(|sent| Self::after(sent, name, SpanKind::Consumer))
    }

    fn below(parent: &Context, name: impl Into<Cow<'static, str>>, kind: SpanKind) -> Option<Self> {
        let tracer = global::tracer(SCOPE);
        let span = tracer.build_with_context(tracer.span_builder(name).with_kind(kind), parent);
        let step = parent.with_span(span);
        // A sampler may refuse what was sampled elsewhere.
        step.span().is_recording().then_some(Self(step))
    }

    /// The header for whatever comes after this step.
    #[must_use]
    pub fn traceparent(&self) -> String {
        let mut slot = Slot(String::new());
        global::get_text_map_propagator(|propagator| propagator.inject_context(&self.0, &mut slot));
        slot.0
    }

    /// Adds an attribute; for what people search by.
    pub fn with(self, name: &'static str, value: impl Display) -> Self {
        self.0.span().set_attribute(KeyValue::new(name, value.to_string()));
        self
    }

    /// Says that it failed, and why.
    pub fn fail(&self, error: &dyn Display) {
        self.0.span().set_status(Status::error(error.to_string()));
    }
}

/// The steps of publishing, by their rows. Each record that carries a sampled trace is published by a step of its own, and carries that from
/// now on.
pub(crate) fn publishing(ids: &[Uuid], records: &mut [Record]) -> Vec<(Uuid, Step)> {
    let mut steps = Vec::new();
    for (id, record) in ids.iter().zip(records) {
        let Some(traceparent) = record.headers.get_str(header::TRACEPARENT) else { continue };
        let Some(step) = Step::after(traceparent, format!("publish {}", record.topic), SpanKind::Producer) else { continue };
        record.headers.set(header::TRACEPARENT, step.traceparent());
        steps.push((*id, step.with("messaging.destination.name", &record.topic)));
    }
    steps
}

/// A carrier that holds nothing but the header.
struct Written<'a>(&'a str);

impl Extractor for Written<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (key == header::TRACEPARENT).then_some(self.0)
    }

    fn keys(&self) -> Vec<&str> {
        vec![header::TRACEPARENT]
    }
}

/// A carrier that takes nothing but the header.
struct Slot(String);

impl Injector for Slot {
    fn set(&mut self, key: &str, value: String) {
        if key == header::TRACEPARENT {
            self.0 = value;
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::message::Headers;

    #[test]
    fn without_a_provider_there_are_no_steps_and_headers_stay_as_they_came() {
        let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert!(Step::here("nothing").is_none());
        assert!(Step::after(traceparent, "nothing", SpanKind::Internal).is_none());
        let headers = Headers::new().with(header::TRACEPARENT, traceparent);
        let record = Record { topic: "t".to_owned(), key: "k".to_owned(), headers, payload: Bytes::new() };
        let mut records = [record.clone()];
        assert!(publishing(&[Uuid::now_v7()], &mut records).is_empty());
        assert_eq!(records, [record]);
    }
}

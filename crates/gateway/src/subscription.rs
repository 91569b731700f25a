//! Subscriptions: the root field streams from its subgraph, and what other subgraphs add is fetched for each event.
//!
//! One event is worked on at a time, and the source is asked for the next one only when the client wants it: a slow client or a slow
//! subgraph slows the source down, and nothing piles up here. When the source fails there is one response that says so, and the
//! stream ends.

use std::sync::Arc;

use async_graphql::{Response, Value};
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt};
use tracing::Instrument;

use crate::data::Object;
use crate::error::{ErrorCode, Rejection};
use crate::execute::Execution;
use crate::gateway::{Inner, Prepared};
use crate::subgraph::{Caller, SubgraphError, SubgraphRequest, SubgraphResponse};

type Source = BoxStream<'static, Result<SubgraphResponse, SubgraphError>>;

struct Subscription {
    gateway: Arc<Inner>,
    prepared: Prepared,
    caller: Caller,
    source: Source,
}

/// The responses of a subscription.
pub(crate) fn events(gateway: Arc<Inner>, prepared: Prepared, caller: Caller) -> BoxStream<'static, Response> {
    let Some(root) = &prepared.plan.source else {
        let rejection = Rejection::new(ErrorCode::InternalServerError, "the operation cannot be planned");
        return stream::iter([rejection.to_response()]).boxed();
    };
    let request = SubgraphRequest {
        operation: Arc::clone(&root.fetch.operation),
        variables: prepared.variables.pick(&root.fetch.variables),
    };
    let source = gateway.subgraphs[root.fetch.subgraph].1.subscribe(request, &caller);
    let subscription = Subscription { gateway, prepared, caller, source };
    stream::unfold(Some(subscription), |subscription| async move {
        let mut subscription = subscription?;
        let event = subscription.source.next().await?;
        let last = is_failure(&event);
        let Subscription { gateway, prepared, caller, .. } = &subscription;
        // Boxed, so that it takes room only while there is an event.
        let response = respond(gateway, prepared, caller, event).boxed();
        let response = response.instrument(tracing::info_span!("graphql.event")).await;
        Some((response, (!last).then_some(subscription)))
    })
    .boxed()
}

async fn respond(
    gateway: &Inner,
    prepared: &Prepared,
    caller: &Caller,
    event: Result<SubgraphResponse, SubgraphError>,
) -> Response {
    let execution = Execution::new(gateway, &prepared.plan, &prepared.variables, caller);
    if let Some(root) = &prepared.plan.source {
        execution.merge_root(root, event);
    }
    execution.run(Object::new()).await
}

/// Whether the source itself failed, and not something inside one event: there is no data, and the errors are about the root field.
fn is_failure(event: &Result<SubgraphResponse, SubgraphError>) -> bool {
    match event {
        Err(error) => {
            tracing::warn!(%error, "the source of a subscription failed");
            true
        }
        Ok(response) => {
            let has_data = match &response.data {
                Value::Object(data) => data.values().any(|value| *value != Value::Null),
                _ => false,
            };
            !has_data && response.errors.iter().any(|error| error.path.len() <= 1)
        }
    }
}

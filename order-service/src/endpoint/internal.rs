//! The internal HTTP server, on a port of its own and off by default: the plain orders subgraph for an external router, and `/metrics`.

use std::sync::Arc;

use async_graphql::{Data, Executor, Request, Response};
use axum::Router;
use futures_util::stream::BoxStream;
use gateway::Caller;
use runtime::{metrics::Metrics, traces::traced};

use super::{EndpointParts, authenticator::BearerTokens};
use crate::graphql::{self, OrdersSchema, Viewer};

/// The subgraph as an executor: each request gets its viewer and its loaders.
#[derive(Clone)]
struct Subgraph {
    schema: OrdersSchema,
    database: database::Database,
}

impl Subgraph {
    fn prepare(&self, request: Request) -> Request {
        let caller = request.data.get(&std::any::TypeId::of::<Caller>()).and_then(|caller| caller.downcast_ref::<Caller>());
        let viewer = caller.and_then(|caller| caller.extensions.get::<Viewer>()).cloned().unwrap_or_default();
        graphql::prepare(request, viewer, &self.database)
    }
}

impl Executor for Subgraph {
    async fn execute(&self, request: Request) -> Response {
        self.schema.execute(self.prepare(request)).await
    }

    fn execute_stream(&self, request: Request, session_data: Option<Arc<Data>>) -> BoxStream<'static, Response> {
        self.schema.execute_stream(self.prepare(request), session_data)
    }
}

/// `/graphql` of the subgraph alone, and `/metrics` if there is a recorder.
pub(crate) fn router(schema: OrdersSchema, parts: &EndpointParts, metrics: Option<&Metrics>) -> Router {
    let subgraph = Subgraph { schema, database: parts.database.clone() };
    let authenticator = Arc::new(BearerTokens { verifier: parts.verifier.clone() });
    let router = traced(graphql_transport::router(subgraph, authenticator, parts.transport.clone()));
    match metrics {
        Some(metrics) => router.merge(metrics.router()),
        None => router,
    }
}

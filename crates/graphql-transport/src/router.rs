//! The route that everything starts from.

use std::sync::Arc;

use async_graphql::Executor;
use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::any;
use tokio::sync::Semaphore;

use crate::auth::Authenticator;
use crate::options::TransportOptions;
use crate::{http, websocket};

/// What every request shares.
pub(crate) struct Endpoint<E> {
    pub(crate) executor: E,
    pub(crate) authenticator: Arc<dyn Authenticator>,
    pub(crate) options: TransportOptions,
    /// One permit per open socket.
    pub(crate) sockets: Arc<Semaphore>,
}

/// `/graphql`: POST, GET, and WebSocket on upgrade. See the crate's documentation for what holds.
///
/// Serve it with something that allows HTTP/1.1 upgrades, as `axum::serve` does.
pub fn router<E: Executor>(executor: E, authenticator: Arc<dyn Authenticator>, options: TransportOptions) -> Router {
    let sockets = Arc::new(Semaphore::new(options.max_sockets.min(Semaphore::MAX_PERMITS)));
    let endpoint = Arc::new(Endpoint { executor, authenticator, options, sockets });
    Router::new().route("/graphql", any(serve::<E>)).with_state(endpoint)
}

async fn serve<E: Executor>(State(endpoint): State<Arc<Endpoint<E>>>, request: Request) -> Response {
    if websocket::is_upgrade(&request) { websocket::upgrade(&endpoint, request) } else { http::handle(&endpoint, request).await }
}

//! GraphQL over WebSocket: the handshake. `connection` holds the rest of a socket's life.

mod close;
mod connection;
mod metered;
mod operations;
mod protocol;
mod socket;

use std::sync::Arc;

use async_graphql::Executor;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tracing::Instrument;

use self::metered::Metered;
use crate::error::ErrorCode;
use crate::http::refuse_upgrade;
use crate::options::TransportOptions;
use crate::origin;
use crate::router::Endpoint;

/// Whether the request wants to become a WebSocket.
pub(crate) fn is_upgrade(request: &Request) -> bool {
    request.method() == Method::GET && has_token(request.headers(), &UPGRADE, "websocket")
}

/// Answers the handshake, and runs the socket in a task of its own.
pub(crate) fn upgrade<E: Executor>(endpoint: &Arc<Endpoint<E>>, mut request: Request) -> Response {
    let headers = request.headers();
    if !origin::is_allowed(headers, endpoint.options.allowed_origins.as_deref()) {
        return refuse_upgrade(StatusCode::FORBIDDEN, ErrorCode::Forbidden, "pages of this origin may not open a WebSocket");
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        let mut response =
            refuse_upgrade(StatusCode::UPGRADE_REQUIRED, ErrorCode::BadUserInput, "the WebSocket version must be 13");
        response.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return response;
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).filter(|_| has_token(headers, &CONNECTION, "upgrade"));
    let Some(accept) = key.and_then(|key| HeaderValue::try_from(derive_accept_key(key.as_bytes())).ok()) else {
        return refuse_upgrade(StatusCode::BAD_REQUEST, ErrorCode::BadUserInput, "the WebSocket handshake is not complete");
    };
    if endpoint.options.drain.is_cancelled() {
        return refuse_upgrade(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::ServiceUnavailable, "the server is going away");
    }
    let Ok(permit) = Arc::clone(&endpoint.sockets).try_acquire_owned() else {
        return refuse_upgrade(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::ServiceUnavailable, "too many open sockets");
    };
    let (offered, chosen) = choose_protocol(headers);
    let upgrade_headers = headers.clone();
    let upgraded = hyper::upgrade::on(&mut request);
    let owned = Arc::clone(endpoint);
    let span = tracing::info_span!("graphql.websocket");
    let run = async move {
        let _permit = permit;
        let Ok(upgraded) = upgraded.await else {
            return;
        };
        let config = Some(config(&owned.options));
        let stream = WebSocketStream::from_raw_socket(Metered::new(upgraded), Role::Server, config).await;
        connection::run(owned, stream, upgrade_headers, offered).await;
    };
    endpoint.options.tasks.spawn(run.instrument(span));

    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    if let Some(protocol) = chosen {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    response
}

/// Whether our protocol is offered, and what to answer. A client that offers only others gets its first one echoed: it would
/// otherwise fail the handshake and never see close code 4406, which says what is wrong.
fn choose_protocol(headers: &HeaderMap) -> (bool, Option<HeaderValue>) {
    let mut first = None;
    for value in headers.get_all(SEC_WEBSOCKET_PROTOCOL) {
        for name in value.to_str().unwrap_or_default().split(',').map(str::trim).filter(|name| !name.is_empty()) {
            if name == protocol::PROTOCOL {
                return (true, Some(HeaderValue::from_static(protocol::PROTOCOL)));
            }
            first = first.or_else(|| HeaderValue::from_str(name).ok());
        }
    }
    (false, first)
}

fn config(options: &TransportOptions) -> WebSocketConfig {
    // The library starts with 128 KiB in each direction, which is what an idle socket would cost.
    WebSocketConfig::default()
        .read_buffer_size(options.socket_buffer_bytes)
        .write_buffer_size(options.socket_buffer_bytes)
        .max_message_size(Some(options.max_message_bytes))
        .max_frame_size(Some(options.max_message_bytes))
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|part| part.trim().eq_ignore_ascii_case(token))
}

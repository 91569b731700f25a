//! GraphQL over HTTP: negotiate, authenticate, read, execute, answer.
//!
//! The cheap checks come first (method, `Accept`, content type), then the token, and only then is the body read.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use async_graphql::{Executor, Request as GraphqlRequest, Response as GraphqlResponse};
use axum::body::{Body, HttpBody};
use axum::extract::{Query, Request};
use axum::response::Response;
use bytes::Bytes;
use futures_util::FutureExt;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, VARY, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Method, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tracing::Instrument;

use crate::auth::Rejected;
use crate::error::{ErrorCode, Wire, error_response, fill_codes, is_request_error, request_error_status};
use crate::negotiation::{ResponseFormat, is_json_body, negotiate};
use crate::operation::OperationKind;
use crate::request::{BadParameters, Parameters, Prepared, QueryString};
use crate::router::Endpoint;
use crate::survivor::Survivor;

/// How much of a body that is too large is read and thrown away, as a multiple of the limit. A client that is still writing
/// when the connection closes would see a broken connection instead of the 413.
const DISCARD_FACTOR: usize = 4;

/// A request that was not executed, and how to say so.
struct Refusal {
    status: StatusCode,
    code: ErrorCode,
    message: String,
    header: Option<(http::HeaderName, HeaderValue)>,
}

impl Refusal {
    fn new(status: StatusCode, code: ErrorCode, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), header: None }
    }

    fn with_header(mut self, name: http::HeaderName, value: &'static str) -> Self {
        self.header = Some((name, HeaderValue::from_static(value)));
        self
    }
}

impl From<Rejected> for Refusal {
    fn from(rejected: Rejected) -> Self {
        let message = rejected.to_string();
        match rejected {
            Rejected::InvalidToken(_) => Self::new(StatusCode::UNAUTHORIZED, ErrorCode::Unauthenticated, message)
                .with_header(WWW_AUTHENTICATE, "Bearer error=\"invalid_token\""),
            Rejected::Forbidden(_) => Self::new(StatusCode::FORBIDDEN, ErrorCode::Forbidden, message)
                .with_header(WWW_AUTHENTICATE, "Bearer error=\"insufficient_scope\""),
            Rejected::Unavailable(_) => Self::new(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::ServiceUnavailable, message),
        }
    }
}

impl From<BadParameters> for Refusal {
    fn from(bad: BadParameters) -> Self {
        let code = match bad {
            BadParameters::PersistedQuery => ErrorCode::PersistedQueryNotFound,
            BadParameters::TooDeep(_) => ErrorCode::LimitExceeded,
            _ => ErrorCode::BadUserInput,
        };
        Self::new(StatusCode::BAD_REQUEST, code, bad.to_string())
    }
}

/// Answers one request; never fails.
pub(crate) async fn handle<E: Executor>(endpoint: &Arc<Endpoint<E>>, request: Request) -> Response {
    let started = Instant::now();
    let negotiated = negotiate(request.headers());
    // Whoever accepts nothing that we have still gets the reason, in the format that everybody can read.
    let format = negotiated.unwrap_or(ResponseFormat::Json);
    let answer = match negotiated {
        Some(_) => answer(endpoint, request).await,
        None => Err(Refusal::new(
            StatusCode::NOT_ACCEPTABLE,
            ErrorCode::BadUserInput,
            "accept `application/graphql-response+json` or `application/json`",
        )),
    };
    let (kind, outcome, response) = match answer {
        Ok((kind, executed)) => (kind.as_str(), outcome(&executed), executed_response(format, &executed)),
        Err(refusal) => ("unknown", "refused", refused_response(format, refusal)),
    };
    metrics::counter!("graphql_requests_total", "transport" => "http", "operation" => kind, "outcome" => outcome).increment(1);
    metrics::histogram!("graphql_request_duration_seconds", "transport" => "http", "operation" => kind)
        .record(started.elapsed().as_secs_f64());
    response
}

/// A fixed word for each way a request can end, for metrics.
pub(crate) fn outcome(response: &GraphqlResponse) -> &'static str {
    if response.errors.is_empty() {
        "ok"
    } else if is_request_error(response) {
        "request_error"
    } else {
        "field_error"
    }
}

async fn answer<E: Executor>(endpoint: &Arc<Endpoint<E>>, request: Request) -> Result<(OperationKind, GraphqlResponse), Refusal> {
    let method = request.method().clone();
    if method != Method::GET && method != Method::POST {
        let refusal = Refusal::new(StatusCode::METHOD_NOT_ALLOWED, ErrorCode::BadUserInput, "use POST or GET");
        return Err(refusal.with_header(ALLOW, "GET, POST"));
    }
    if method == Method::POST && !is_json_body(request.headers()) {
        let message = "the body must be JSON in UTF-8: send `Content-Type: application/json`";
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, ErrorCode::BadUserInput, message));
    }
    let deadline = tokio::time::Instant::now() + endpoint.options.request_timeout;
    let received = tokio::time::timeout_at(deadline, receive(endpoint, &method, request)).await;
    let (prepared, caller) = received
        .map_err(|_| Refusal::new(StatusCode::REQUEST_TIMEOUT, ErrorCode::Timeout, "the request did not arrive in time"))??;
    let kind = prepared.kind;
    if method == Method::GET && kind == OperationKind::Mutation {
        let message = "a mutation needs POST: GET must not change anything";
        return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, ErrorCode::BadUserInput, message).with_header(ALLOW, "POST"));
    }
    if kind == OperationKind::Subscription {
        let message = "a subscription needs a WebSocket (protocol `graphql-transport-ws`) at the same URL";
        return Ok((kind, error_response(ErrorCode::BadUserInput, message)));
    }
    let request = (caller.attach)(prepared.request);
    let response = tokio::time::timeout_at(deadline, execute(endpoint, kind, request, "http")).await;
    Ok((kind, response.unwrap_or_else(|_| timed_out())))
}

async fn receive<E: Executor>(
    endpoint: &Endpoint<E>,
    method: &Method,
    request: Request,
) -> Result<(Prepared, crate::Authenticated), Refusal> {
    let caller = endpoint.authenticator.authenticate(request.headers()).await?;
    let parameters = if *method == Method::GET {
        let Query(query) = Query::<QueryString>::try_from_uri(request.uri())
            .map_err(|rejection| Refusal::new(StatusCode::BAD_REQUEST, ErrorCode::BadUserInput, rejection.body_text()))?;
        Parameters::from_query_string(query)?
    } else {
        Parameters::from_json(&read_body(request.into_body(), endpoint.options.max_body_bytes).await?)?
    };
    Ok((parameters.prepare()?, caller))
}

async fn read_body(body: Body, limit: usize) -> Result<Bytes, Refusal> {
    let too_large = || {
        let message = format!("the body is larger than {limit} bytes");
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::LimitExceeded, message)
    };
    let announced = body.size_hint().lower();
    let discard_limit = limit.saturating_mul(DISCARD_FACTOR);
    if announced > discard_limit as u64 {
        return Err(too_large());
    }
    let mut body = body;
    if announced <= limit as u64 {
        match Limited::new(&mut body, limit).collect().await {
            Ok(collected) => return Ok(collected.to_bytes()),
            Err(error) if error.downcast_ref::<LengthLimitError>().is_none() => {
                return Err(Refusal::new(StatusCode::BAD_REQUEST, ErrorCode::BadUserInput, "the body did not arrive whole"));
            }
            Err(_) => {}
        }
    }
    let mut discarded = 0_usize;
    while let Some(Ok(frame)) = body.frame().await {
        discarded += frame.data_ref().map_or(0, Bytes::len);
        if discarded > discard_limit {
            break;
        }
    }
    Err(too_large())
}

/// Runs a query or a mutation. Dropping this future stops a query; a mutation goes on in a task of its own.
pub(crate) async fn execute<E: Executor>(
    endpoint: &Endpoint<E>,
    kind: OperationKind,
    request: GraphqlRequest,
    transport: &'static str,
) -> GraphqlResponse {
    let span = tracing::info_span!(
        "graphql.request",
        transport,
        graphql.operation.type = kind.as_str(),
        graphql.operation.name = request.operation_name.as_deref(),
    );
    let executor = endpoint.executor.clone();
    let document = request.query.clone();
    // The executor's future is large; boxed, it does not make every caller's future as large.
    let run = Box::pin(
        async move {
            let mut response = AssertUnwindSafe(executor.execute(request)).catch_unwind().await.unwrap_or_else(|_| panicked());
            fill_codes(&mut response, &document);
            response
        }
        .instrument(span),
    );
    if kind == OperationKind::Query {
        return run.await;
    }
    Survivor::new(run, endpoint.options.tasks.clone()).await
}

fn panicked() -> GraphqlResponse {
    tracing::error!("a resolver panicked");
    error_response(ErrorCode::InternalServerError, "internal server error")
}

/// The answer when the time is over.
pub(crate) fn timed_out() -> GraphqlResponse {
    error_response(ErrorCode::Timeout, "not answered in time; the outcome is unknown")
}

fn executed_response(format: ResponseFormat, executed: &GraphqlResponse) -> Response {
    let status = match format {
        ResponseFormat::GraphqlResponse if is_request_error(executed) => request_error_status(executed),
        _ => StatusCode::OK,
    };
    let mut response = write(format, status, executed);
    for (name, value) in &executed.http_headers {
        response.headers_mut().append(name, value.clone());
    }
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().entry(WWW_AUTHENTICATE).or_insert(HeaderValue::from_static("Bearer"));
    }
    response
}

fn refused_response(format: ResponseFormat, refusal: Refusal) -> Response {
    let mut response = write(format, refusal.status, &error_response(refusal.code, refusal.message));
    if let Some((name, value)) = refusal.header {
        response.headers_mut().insert(name, value);
    }
    response
}

fn write(format: ResponseFormat, status: StatusCode, body: &GraphqlResponse) -> Response {
    let (status, bytes) = match serde_json::to_vec(&Wire(body)) {
        Ok(bytes) => (status, bytes),
        Err(error) => {
            tracing::error!(%error, "a response could not be serialized");
            let bytes = br#"{"errors":[{"message":"internal server error","extensions":{"code":"INTERNAL_SERVER_ERROR"}}]}"#;
            (StatusCode::INTERNAL_SERVER_ERROR, bytes.to_vec())
        }
    };
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, format.content_type());
    // Answers depend on the caller and on the moment.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(VARY, HeaderValue::from_static("accept, authorization"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Refuses a request before it becomes a socket.
pub(crate) fn refuse_upgrade(status: StatusCode, code: ErrorCode, message: &str) -> Response {
    refused_response(ResponseFormat::Json, Refusal::new(status, code, message))
}

//! The internal HTTP endpoint: `POST /graphql` for the gateway, and the health routes.
//!
//! It takes JSON only, so a browser cannot be made to send it a request from somebody else's page without asking first. The caller's token
//! travels with every request and is checked here again; without one a request is anonymous, with a bad one it is refused.
//!
//! It is up before the database is, for the health routes; until then `/graphql` answers 503.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use async_graphql::{Request, Response as GraphqlResponse};
use async_graphql_axum::GraphQLResponse;
use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, FromRequest as _, Request as HttpRequest, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use runtime::{auth::TokenVerifier, traces::traced};
use schema::graphql::{ErrorCode, GraphqlError};

use crate::graphql::PaymentsSchema;

/// Largest request body: a thousand representations with long ids fit many times.
pub const MAX_BODY_BYTES: usize = 1024 * 1024;
/// How long a body may take: the gateway sends its own at once.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest list in the variables: entities per call. The gateway sends at most a tenth of it.
pub const MAX_LIST_ITEMS: usize = 1_000;

/// The schema, once there is a database behind it.
pub type LateSchema = Arc<OnceLock<PaymentsSchema>>;

#[derive(Clone)]
struct Endpoint {
    schema: LateSchema,
    verifier: TokenVerifier,
}

/// `POST /graphql`; anything but JSON is 415, a bad token 401.
pub fn router(schema: LateSchema, verifier: TokenVerifier) -> Router {
    let router = Router::new()
        .route("/graphql", post(graphql))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(Endpoint { schema, verifier });
    traced(router)
}

async fn graphql(State(endpoint): State<Endpoint>, request: HttpRequest) -> Response {
    let headers = request.headers();
    if !is_json(headers) {
        return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, ErrorCode::BadUserInput, "send application/json");
    }
    let identity = match endpoint.verifier.from_headers(headers).await {
        Ok(identity) => identity,
        Err(error) => {
            tracing::debug!(%error, "token refused");
            let code = if error.status() == StatusCode::UNAUTHORIZED {
                ErrorCode::Unauthenticated
            } else {
                ErrorCode::ServiceUnavailable
            };
            let mut response = refuse(error.status(), code, &error.to_string());
            if code == ErrorCode::Unauthenticated {
                response.headers_mut().insert(header::WWW_AUTHENTICATE, error.www_authenticate());
            }
            return response;
        }
    };
    // Only now: whoever is refused shall not make anybody wait for a body.
    let body = match tokio::time::timeout(BODY_TIMEOUT, Bytes::from_request(request, &())).await {
        Ok(Ok(body)) => body,
        Ok(Err(rejection)) => return rejection.into_response(),
        Err(_) => return refuse(StatusCode::REQUEST_TIMEOUT, ErrorCode::BadUserInput, "the body takes too long"),
    };
    let request = match serde_json::from_slice::<Request>(&body) {
        Ok(request) => request,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, ErrorCode::BadUserInput, &format!("no GraphQL request: {error}")),
    };
    if has_long_list(&request) {
        let message = format!("a list of the variables has more than {MAX_LIST_ITEMS} items");
        return refuse(StatusCode::BAD_REQUEST, ErrorCode::LimitExceeded, &message);
    }
    let request = match identity {
        Some(identity) => request.data(identity),
        None => request,
    };
    let Some(schema) = endpoint.schema.get() else {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::ServiceUnavailable, "starting, please try again");
    };
    GraphQLResponse::from(schema.execute(request).await).into_response()
}

/// `application/json` or a type that ends in `+json`, with any parameters.
fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    media_type == "application/json" || (media_type.starts_with("application/") && media_type.ends_with("+json"))
}

fn has_long_list(request: &Request) -> bool {
    request.variables.values().any(|value| matches!(value, async_graphql::Value::List(items) if items.len() > MAX_LIST_ITEMS))
}

fn refuse(status: StatusCode, code: ErrorCode, message: &str) -> Response {
    let error = async_graphql::Error::from(GraphqlError::new(code, message));
    let error = error.into_server_error(async_graphql::Pos::default());
    (status, GraphQLResponse::from(GraphqlResponse::from_errors(vec![error]))).into_response()
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, http::HeaderValue};
    use tokio::time::Instant;
    use tower::ServiceExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_is_not_waited_for() {
        let body = Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
        let request = HttpRequest::post("/graphql").header(header::CONTENT_TYPE, "application/json").body(body).unwrap();
        let started = Instant::now();
        let response = router(LateSchema::default(), TokenVerifier::new(&[], None)).oneshot(request).await.unwrap();
        assert_eq!((response.status(), started.elapsed().as_secs()), (StatusCode::REQUEST_TIMEOUT, BODY_TIMEOUT.as_secs()));
    }

    #[test]
    fn a_form_of_a_foreign_page_is_not_taken_for_json() {
        let of = |content_type: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
            is_json(&headers)
        };
        assert!(of("application/json") && of("Application/JSON; charset=utf-8") && of("application/graphql+json"));
        for content_type in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "text/x+json", ""] {
            assert!(!of(content_type), "{content_type}");
        }
        assert!(!is_json(&HeaderMap::new()));
    }
}

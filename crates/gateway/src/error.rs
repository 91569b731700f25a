//! What can go wrong, and how it is told to the client.

use async_graphql::{PathSegment, Pos, Response, ServerError, Value};

/// At most this many errors of one document are reported: a client fixes the first few, and a large broken document must not
/// buy a larger answer.
const MAX_REPORTED_ERRORS: usize = 20;

/// The gateway cannot be built: the supergraph and what was given with it do not fit together.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GatewayError {
    /// The supergraph is not GraphQL, or not a valid schema.
    #[error("the supergraph is not a valid schema: {0}")]
    Supergraph(String),
    /// The supergraph is a valid schema, but plans cannot be made from it.
    #[error("the supergraph cannot be planned: {0}")]
    Planner(String),
    /// What remains when federation's own elements are taken away is not a valid schema.
    #[error("the public schema is not valid: {0}")]
    PublicSchema(String),
    /// The supergraph names a subgraph that was not given.
    #[error("the supergraph needs the subgraph `{0}`, and it was not given")]
    MissingSubgraph(String),
    /// A subgraph was given that the supergraph does not name.
    #[error("the subgraph `{0}` is not part of the supergraph")]
    UnknownSubgraph(String),
}

/// The codes that the gateway itself puts on `extensions.code`. Codes of the subgraphs pass through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorCode {
    /// The document is not GraphQL.
    GraphqlParseFailed,
    /// The document does not fit the public schema.
    GraphqlValidationFailed,
    /// Variables or the operation name do not fit the document.
    BadUserInput,
    /// A bound of [`Limits`](crate::Limits) was passed.
    LimitExceeded,
    /// A subgraph wants to know who asks, or does not accept the token.
    Unauthenticated,
    /// A subgraph refuses this caller.
    Forbidden,
    /// A subgraph had enough of this caller.
    RateLimited,
    /// A subgraph could not be reached; asking again may help.
    ServiceUnavailable,
    /// A subgraph did not answer in time; what it did is unknown.
    Timeout,
    /// The gateway's or a subgraph's own fault.
    InternalServerError,
}

impl ErrorCode {
    /// The code as clients see it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::GraphqlParseFailed => "GRAPHQL_PARSE_FAILED",
            Self::GraphqlValidationFailed => "GRAPHQL_VALIDATION_FAILED",
            Self::BadUserInput => "BAD_USER_INPUT",
            Self::LimitExceeded => "LIMIT_EXCEEDED",
            Self::Unauthenticated => "UNAUTHENTICATED",
            Self::Forbidden => "FORBIDDEN",
            Self::RateLimited => "RATE_LIMITED",
            Self::ServiceUnavailable => "SERVICE_UNAVAILABLE",
            Self::Timeout => "TIMEOUT",
            Self::InternalServerError => "INTERNAL_SERVER_ERROR",
        }
    }
}

/// An error with a code and no path.
pub(crate) fn coded(code: ErrorCode, message: impl Into<String>) -> ServerError {
    let mut error = ServerError::new(message, None);
    error.extensions.get_or_insert_default().set("code", code.as_str());
    error
}

/// The same error at another place. Positions in a document belong to the subgraph's document, which the client never sees.
pub(crate) fn at(error: &ServerError, path: Vec<PathSegment>) -> ServerError {
    let mut error = error.clone();
    error.path = path;
    error.locations.clear();
    error
}

/// Gives an error of a subgraph a code when it has none.
pub(crate) fn ensure_code(error: &mut ServerError) {
    let extensions = error.extensions.get_or_insert_default();
    if !matches!(extensions.get("code"), Some(Value::String(_) | Value::Enum(_))) {
        extensions.set("code", ErrorCode::InternalServerError.as_str());
    }
}

/// A request that is not executed at all.
///
/// Its answer has `data: null`, at least one error, and **no error with a path**: that is how a transport tells it from an
/// answer that was executed and came out as null, in which at least one error has a path.
#[derive(Debug, Clone)]
pub(crate) struct Rejection(Vec<ServerError>);

impl Rejection {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self(vec![coded(code, message)])
    }

    /// All errors carry the same code; surplus ones are left out.
    pub(crate) fn from_messages(code: ErrorCode, messages: impl IntoIterator<Item = (String, Vec<Pos>)>) -> Self {
        let errors: Vec<ServerError> = messages
            .into_iter()
            .take(MAX_REPORTED_ERRORS)
            .map(|(message, locations)| {
                let mut error = coded(code, message);
                error.locations = locations;
                error
            })
            .collect();
        if errors.is_empty() { Self::new(code, "the document is not valid") } else { Self(errors) }
    }

    pub(crate) fn to_response(&self) -> Response {
        Response::from_errors(self.0.clone())
    }
}

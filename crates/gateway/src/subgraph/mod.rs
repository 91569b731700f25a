//! How the gateway talks to a subgraph.

mod http;
mod local;

use std::fmt;
use std::sync::{Arc, OnceLock};

use async_graphql::parser::parse_query;
use async_graphql::parser::types::ExecutableDocument;
use async_graphql::{ServerError, Value, Variables};
use async_trait::async_trait;
use futures_util::stream::BoxStream;

pub use self::http::{HttpSubgraph, HttpSubgraphOptions};
pub use self::local::LocalSubgraph;
use crate::error::{ErrorCode, coded};

/// What travels with every call of a subgraph. The server puts it into the request (`request.data(Caller { … })`) or, for
/// subscriptions, into the session's data; without it the caller is anonymous.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    /// Sent to subgraphs over HTTP, for example `Authorization` and `traceparent`.
    pub headers: ::http::HeaderMap,
    /// For subgraphs in process.
    pub extensions: ::http::Extensions,
}

/// One subgraph. Calls may come at the same time and may be dropped half way.
#[async_trait]
pub trait Subgraph: Send + Sync + 'static {
    /// Answers one query or mutation. Errors of the execution are part of the response.
    ///
    /// # Errors
    /// When there is no GraphQL response. The gateway does not call again.
    async fn execute(&self, request: SubgraphRequest, caller: &Caller) -> Result<SubgraphResponse, SubgraphError>;

    /// Answers one subscription. The stream is polled only when the client wants the next event; it ends after an error.
    fn subscribe(&self, request: SubgraphRequest, caller: &Caller)
    -> BoxStream<'static, Result<SubgraphResponse, SubgraphError>>;
}

/// The root type of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OperationKind {
    /// Reads; its root fields run in any order.
    Query,
    /// Writes; its root fields run one after the other and are never repeated.
    Mutation,
    /// A stream of events.
    Subscription,
}

impl OperationKind {
    /// The keyword of the kind in GraphQL.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::Mutation => "mutation",
            Self::Subscription => "subscription",
        }
    }
}

/// An operation as the planner wrote it for one subgraph. Lives as long as its plan, so what is derived from it is kept.
pub struct SubgraphOperation {
    text: String,
    kind: OperationKind,
    parsed: OnceLock<Option<ExecutableDocument>>,
}

impl SubgraphOperation {
    /// An operation of the given kind; `text` holds exactly one operation.
    #[must_use]
    pub fn new(text: String, kind: OperationKind) -> Self {
        Self { text, kind, parsed: OnceLock::new() }
    }

    /// The document.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What the operation is.
    #[must_use]
    pub const fn kind(&self) -> OperationKind {
        self.kind
    }

    /// The document for async-graphql, parsed at the first call. `None` when async-graphql cannot parse it.
    #[must_use]
    pub fn parsed(&self) -> Option<&ExecutableDocument> {
        self.parsed.get_or_init(|| parse_query(&self.text).ok()).as_ref()
    }
}

impl fmt::Debug for SubgraphOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What a subgraph is asked.
#[derive(Debug)]
pub struct SubgraphRequest {
    /// What to run.
    pub operation: Arc<SubgraphOperation>,
    /// Its variables, coerced; only those that the operation uses.
    pub variables: Variables,
}

/// What a subgraph answered.
#[derive(Debug, Default)]
pub struct SubgraphResponse {
    /// An object, or null.
    pub data: Value,
    /// The subgraph's errors, as it wrote them.
    pub errors: Vec<ServerError>,
}

/// Why there is no answer. The text of an error is for operators; [`SubgraphError::client_message`] is for clients.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubgraphError {
    /// It cannot be reached, broke the connection, or said itself that it cannot serve now.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// It took too long. What it did is unknown.
    #[error("no answer in time")]
    Timeout,
    /// It does not accept the caller's token.
    #[error("unauthenticated")]
    Unauthenticated,
    /// It refuses the caller.
    #[error("forbidden")]
    Forbidden,
    /// It takes no more requests from this caller for now.
    #[error("rate limited")]
    RateLimited,
    /// Its answer is larger than allowed, in bytes.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
    /// Its answer is not a GraphQL response, or the request could not be made.
    #[error("protocol: {0}")]
    Protocol(String),
}

impl SubgraphError {
    /// The code on `extensions.code`.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Unavailable(_) => ErrorCode::ServiceUnavailable,
            Self::Timeout => ErrorCode::Timeout,
            Self::Unauthenticated => ErrorCode::Unauthenticated,
            Self::Forbidden => ErrorCode::Forbidden,
            Self::RateLimited => ErrorCode::RateLimited,
            Self::TooLarge(_) | Self::Protocol(_) => ErrorCode::InternalServerError,
        }
    }

    /// What clients are told: nothing about addresses or causes.
    #[must_use]
    pub const fn client_message(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "a service behind this field is not available",
            Self::Timeout => "a service behind this field did not answer in time",
            Self::Unauthenticated => "this field needs a signed-in user",
            Self::Forbidden => "not allowed",
            Self::RateLimited => "too many requests",
            Self::TooLarge(_) | Self::Protocol(_) => "a service behind this field gave no usable answer",
        }
    }

    pub(crate) fn to_server_error(&self) -> ServerError {
        coded(self.code(), self.client_message())
    }
}

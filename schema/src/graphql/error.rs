//! GraphQL errors with a code.

use async_graphql::{Error, ErrorExtensions as _};

/// `extensions.code` of a GraphQL error that a service raises by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// No token where one is needed.
    Unauthenticated,
    /// The token does not allow this.
    Forbidden,
    /// What was asked for does not exist or is not the caller's.
    NotFound,
    /// The request cannot be meant as written.
    BadUserInput,
    /// The cursor points before what is kept, or to what never was.
    CursorExpired,
    /// More was asked for than one request may.
    LimitExceeded,
    /// Nothing wrong with the request; try again, a mutation only with an idempotency key.
    ServiceUnavailable,
    /// The outcome is unknown.
    Timeout,
    /// A defect; the log has the details.
    InternalServerError,
}

impl ErrorCode {
    /// As written in `extensions.code`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unauthenticated => "UNAUTHENTICATED",
            Self::Forbidden => "FORBIDDEN",
            Self::NotFound => "NOT_FOUND",
            Self::BadUserInput => "BAD_USER_INPUT",
            Self::CursorExpired => "CURSOR_EXPIRED",
            Self::LimitExceeded => "LIMIT_EXCEEDED",
            Self::ServiceUnavailable => "SERVICE_UNAVAILABLE",
            Self::Timeout => "TIMEOUT",
            Self::InternalServerError => "INTERNAL_SERVER_ERROR",
        }
    }
}

/// An error with its code, ready to be returned by a resolver.
///
/// Without `Display` on purpose: async-graphql turns everything that has it into an error without a code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GraphqlError {
    /// What a program branches on.
    pub code: ErrorCode,
    /// What a person reads; never internals.
    pub message: String,
}

impl GraphqlError {
    /// An error of this code.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// The answer to a field that needs a user when there is none.
    pub fn unauthenticated() -> Self {
        Self::new(ErrorCode::Unauthenticated, "this needs a signed-in user: send a token in the Authorization header")
    }

    /// A failure that is ours. The cause is logged by the caller, never sent.
    pub fn internal() -> Self {
        Self::new(ErrorCode::InternalServerError, "something went wrong on our side")
    }

    /// Something that we depend on is away for the moment.
    pub fn unavailable() -> Self {
        Self::new(ErrorCode::ServiceUnavailable, "temporarily unavailable, please try again")
    }
}

impl From<GraphqlError> for Error {
    fn from(error: GraphqlError) -> Self {
        Self::new(error.message).extend_with(|_, extensions| extensions.set("code", error.code.as_str()))
    }
}

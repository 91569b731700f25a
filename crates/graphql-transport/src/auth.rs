//! How a request or a socket gets its caller.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use async_graphql::Request;
use async_trait::async_trait;
use http::HeaderMap;

/// Finds out who calls. Called once per HTTP request and once per socket.
#[async_trait]
pub trait Authenticator: Send + Sync + 'static {
    /// The caller of one HTTP request. No token is an anonymous caller, not an error: the fields decide what they need.
    ///
    /// # Errors
    /// [`Rejected`] when there is a token and it cannot be accepted.
    async fn authenticate(&self, headers: &HeaderMap) -> Result<Authenticated, Rejected>;

    /// The caller of a socket: the token is in the `connection_init` payload (`Authorization`, in any case, at the top level or
    /// under `headers`) or in the headers of the upgrade request. `init` is JSON null when there was no payload.
    ///
    /// # Errors
    /// [`Rejected`] when there is no token or it cannot be accepted; the socket is closed with 4403.
    async fn authenticate_socket(&self, upgrade: &HeaderMap, init: &serde_json::Value) -> Result<Authenticated, Rejected>;
}

/// An accepted caller.
#[derive(Clone)]
pub struct Authenticated {
    /// Puts the caller's data into a request before it is executed.
    pub attach: Arc<dyn Fn(Request) -> Request + Send + Sync>,
    /// When the token ends. A socket is closed with 4403 then; an HTTP request that has begun is finished.
    pub expires_at: Option<SystemTime>,
}

impl Authenticated {
    /// A caller about whom nothing is known and nothing is attached.
    #[must_use]
    pub fn anonymous() -> Self {
        Self { attach: Arc::new(|request| request), expires_at: None }
    }
}

impl fmt::Debug for Authenticated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticated").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

/// Why a caller is not let in. The texts are shown to the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// The token is missing where one is needed, malformed, expired or signed by nobody we know: 401, or close 4403.
    #[error("{0}")]
    InvalidToken(String),
    /// The token is good and its owner still may not do this: 403, or close 4403.
    #[error("{0}")]
    Forbidden(String),
    /// The token could not be checked now (its keys cannot be fetched): 503, or close 1013.
    #[error("{0}")]
    Unavailable(String),
}

/// Lets everybody in and attaches nothing: for tests and for schemas without users.
#[derive(Debug, Clone, Copy, Default)]
pub struct Anonymous;

#[async_trait]
impl Authenticator for Anonymous {
    async fn authenticate(&self, _: &HeaderMap) -> Result<Authenticated, Rejected> {
        Ok(Authenticated::anonymous())
    }

    async fn authenticate_socket(&self, _: &HeaderMap, _: &serde_json::Value) -> Result<Authenticated, Rejected> {
        Ok(Authenticated::anonymous())
    }
}

//! A small GraphQL client, for everything here that plays the client: `prove`, the benchmark, the end-to-end tests.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};

/// Longer than the server's own bound for a request, so that the server speaks first.
const TIMEOUT: Duration = Duration::from_secs(35);

/// One user's connection to `/graphql`. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    url: String,
    token: Option<String>,
}

/// A GraphQL answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// What was asked for; null after a request error.
    pub data: Value,
    /// What went wrong; empty when nothing did.
    pub errors: Vec<Value>,
}

/// There is no GraphQL answer. Whether a mutation was carried out is unknown.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The connection failed or broke, or the time is up.
    #[error(transparent)]
    Http(#[from] reqwest::Error),
    /// The body is not a GraphQL response.
    #[error("HTTP {status} without a GraphQL response")]
    NotGraphql {
        /// Of the HTTP response.
        status: StatusCode,
    },
}

impl Client {
    /// A client of the server at `base`, for example `http://127.0.0.1:8000`.
    ///
    /// # Errors
    /// When the machine cannot set up HTTP at all.
    pub fn new(base: &str, token: Option<String>) -> Result<Self, ClientError> {
        runtime::install_tls_provider();
        let http = reqwest::Client::builder().timeout(TIMEOUT).build()?;
        Ok(Self { http, url: format!("{base}/graphql"), token })
    }

    /// The same server and connections for another user.
    pub fn signed_in(&self, token: impl Into<String>) -> Self {
        Self { token: Some(token.into()), ..self.clone() }
    }

    /// Runs one operation.
    ///
    /// # Errors
    /// [`ClientError`] when there is no GraphQL answer; errors inside of an answer are part of it.
    pub async fn run(&self, query: &str, variables: Value) -> Result<Answer, ClientError> {
        let mut request = self.http.post(&self.url).json(&json!({ "query": query, "variables": variables }));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let response = request.send().await?;
        let status = response.status();
        let body: Value = response.json().await.map_err(|_| ClientError::NotGraphql { status })?;
        let errors = body["errors"].as_array().cloned().unwrap_or_default();
        if body.get("data").is_none() && errors.is_empty() {
            return Err(ClientError::NotGraphql { status });
        }
        Ok(Answer { data: body["data"].clone(), errors })
    }
}

impl Answer {
    /// The first error's `extensions.code`.
    pub fn code(&self) -> Option<&str> {
        self.errors.first()?["extensions"]["code"].as_str()
    }
}

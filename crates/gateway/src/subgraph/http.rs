//! A subgraph behind HTTP.
//!
//! Each call is one POST. A query whose connection could not be made is sent once more; nothing else is ever sent again, because
//! whatever was sent may have been executed. (A pooled connection that turns out to be closed before anything was written to it is
//! replaced by the HTTP client itself.)

use std::time::Duration;

use async_graphql::{ErrorExtensionValues, PathSegment, ServerError, Value, Variables};
use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use http::header::{
    ACCEPT, ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use opentelemetry::propagation::Injector;
use opentelemetry::trace::TraceContextExt;
use opentelemetry::{Context, global};
use reqwest::{Client, Response, Url};
use serde::{Deserialize, Serialize};

use super::{Caller, OperationKind, Subgraph, SubgraphError, SubgraphRequest, SubgraphResponse};

/// The bounds of one HTTP subgraph.
#[derive(Debug, Clone)]
pub struct HttpSubgraphOptions {
    /// Until the connection stands. 1 s: subgraphs are near; a host that is gone must not use up the whole timeout.
    pub connect_timeout: Duration,
    /// From the beginning of a call to the last byte of its answer. 10 s: longer than any healthy answer.
    pub timeout: Duration,
    /// Bytes of an answer. 8 MiB: a hundred entities with their lists are far below it.
    pub max_response_bytes: usize,
    /// How long an unused connection is kept. 30 s: shorter than the keep-alive of common servers and proxies.
    pub pool_idle_timeout: Duration,
}

impl Default for HttpSubgraphOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(1),
            timeout: Duration::from_secs(10),
            max_response_bytes: 8 * 1024 * 1024,
            pool_idle_timeout: Duration::from_secs(30),
        }
    }
}

/// Headers that are about the caller's own connection or body, or that ask for an encoding which nobody here decodes.
const NOT_FORWARDED: [HeaderName; 8] =
    [ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, HOST, TE, TRANSFER_ENCODING, UPGRADE];

/// A subgraph that is called over HTTP. Its operations are queries and mutations; subscriptions end with an error.
#[derive(Debug, Clone)]
pub struct HttpSubgraph {
    url: Url,
    client: Client,
    options: HttpSubgraphOptions,
}

impl HttpSubgraph {
    /// Calls `url` with a client made for `options`. In a process without a default crypto provider of rustls, ring becomes it.
    ///
    /// # Errors
    /// When the URL is not one, or no TLS can be set up.
    pub fn new(url: &str, options: HttpSubgraphOptions) -> Result<Self, SubgraphError> {
        // The client wants one even for plain `http`, and panics without. An error means that there is one already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .connect_timeout(options.connect_timeout)
            .pool_idle_timeout(options.pool_idle_timeout)
            // A redirect would send the caller's token wherever it points to.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| SubgraphError::Protocol(error.to_string()))?;
        Self::with_client(url, client, options)
    }

    /// Calls `url` with a client of one's own. The client's redirects should be off.
    ///
    /// # Errors
    /// When the URL is not one.
    pub fn with_client(url: &str, client: Client, options: HttpSubgraphOptions) -> Result<Self, SubgraphError> {
        let url = Url::parse(url).map_err(|error| SubgraphError::Protocol(format!("{url}: {error}")))?;
        Ok(Self { url, client, options })
    }

    async fn call(&self, request: &SubgraphRequest, caller: &Caller) -> Result<SubgraphResponse, SubgraphError> {
        let body = Body { query: request.operation.text(), variables: &request.variables };
        let body = serde_json::to_vec(&body).map_err(|error| SubgraphError::Protocol(error.to_string()))?;
        let response = match self.send(body.clone(), caller).await {
            // Nothing has been sent: the connection does not stand.
            Err(error) if error.is_connect() && request.operation.kind() == OperationKind::Query => self.send(body, caller).await,
            other => other,
        }
        .map_err(|error| classify(&error))?;
        self.read(response).await
    }

    async fn send(&self, body: Vec<u8>, caller: &Caller) -> Result<Response, reqwest::Error> {
        let mut headers = caller.headers.clone();
        for name in &NOT_FORWARDED {
            headers.remove(name);
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/graphql-response+json, application/json;q=0.9"));
        inject_trace(&mut headers);
        self.client.post(self.url.clone()).headers(headers).body(body).send().await
    }

    async fn read(&self, mut response: Response) -> Result<SubgraphResponse, SubgraphError> {
        let status = response.status();
        match status {
            StatusCode::UNAUTHORIZED => return Err(SubgraphError::Unauthenticated),
            StatusCode::FORBIDDEN => return Err(SubgraphError::Forbidden),
            StatusCode::TOO_MANY_REQUESTS => return Err(SubgraphError::RateLimited),
            StatusCode::GATEWAY_TIMEOUT => return Err(SubgraphError::Timeout),
            _ if status.is_server_error() => return Err(SubgraphError::Unavailable(format!("status {status}"))),
            _ => {}
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| classify(&error))? {
            if bytes.len() + chunk.len() > self.options.max_response_bytes {
                return Err(SubgraphError::TooLarge(self.options.max_response_bytes));
            }
            bytes.extend_from_slice(&chunk);
        }
        let answer: Answer = match serde_json::from_slice(&bytes) {
            Ok(answer) => answer,
            // A page of a proxy or of something else that listens there now.
            Err(error) => return Err(SubgraphError::Unavailable(format!("status {status}, no GraphQL response: {error}"))),
        };
        let errors: Vec<ServerError> = answer.errors.unwrap_or_default().into_iter().map(Into::into).collect();
        if answer.data.is_none() && errors.is_empty() {
            return Err(SubgraphError::Unavailable(format!("status {status}, neither data nor errors")));
        }
        Ok(SubgraphResponse { data: answer.data.unwrap_or_default(), errors })
    }
}

/// The subgraph goes on with the trace of this call, if there is one.
fn inject_trace(headers: &mut HeaderMap) {
    let current = Context::current();
    if current.has_active_span() {
        global::get_text_map_propagator(|propagator| propagator.inject_context(&current, &mut TraceHeaders(headers)));
    }
}

struct TraceHeaders<'a>(&'a mut HeaderMap);

impl Injector for TraceHeaders<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(key), HeaderValue::try_from(value)) {
            self.0.insert(name, value);
        }
    }
}

fn classify(error: &reqwest::Error) -> SubgraphError {
    if error.is_timeout() && !error.is_connect() {
        return SubgraphError::Timeout;
    }
    SubgraphError::Unavailable(describe(error))
}

/// With its causes: reqwest's own text leaves out what went wrong.
fn describe(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[async_trait]
impl Subgraph for HttpSubgraph {
    async fn execute(&self, request: SubgraphRequest, caller: &Caller) -> Result<SubgraphResponse, SubgraphError> {
        tokio::time::timeout(self.options.timeout, self.call(&request, caller)).await.unwrap_or(Err(SubgraphError::Timeout))
    }

    fn subscribe(&self, _: SubgraphRequest, _: &Caller) -> BoxStream<'static, Result<SubgraphResponse, SubgraphError>> {
        stream::once(async { Err(SubgraphError::Protocol("subscriptions need a subgraph in process".to_owned())) }).boxed()
    }
}

#[derive(Serialize)]
struct Body<'a> {
    query: &'a str,
    variables: &'a Variables,
}

/// A GraphQL response. Null stands for absent everywhere, because some servers write it so.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    data: Option<Value>,
    #[serde(default)]
    errors: Option<Vec<AnswerError>>,
}

#[derive(Deserialize)]
struct AnswerError {
    message: String,
    #[serde(default)]
    path: Option<Vec<PathSegment>>,
    #[serde(default)]
    extensions: Option<ErrorExtensionValues>,
}

impl From<AnswerError> for ServerError {
    fn from(error: AnswerError) -> Self {
        let mut own = Self::new(error.message, None);
        own.path = error.path.unwrap_or_default();
        own.extensions = error.extensions;
        own
    }
}

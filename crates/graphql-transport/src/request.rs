//! From the parameters of a request to something that can be executed.

use async_graphql::{Request, Value, Variables};
use serde::Deserialize;

use crate::operation::{OperationKind, TooDeep, outline};

/// The parameters as they stand in a JSON body, a query string or a `subscribe` message. Unknown ones are ignored, as the
/// specification asks.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Parameters {
    #[serde(default)]
    query: Option<String>,
    #[serde(default)]
    operation_name: Option<String>,
    #[serde(default)]
    variables: Option<Map>,
    #[serde(default)]
    extensions: Option<Map>,
}

/// Where a GET request keeps them: the maps are JSON inside the query string.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct QueryString {
    query: Option<String>,
    operation_name: Option<String>,
    variables: Option<String>,
    extensions: Option<String>,
}

/// A JSON object, and nothing else: a list or a string is an error here and not an empty map.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
struct Map(std::collections::BTreeMap<async_graphql::Name, Value>);

impl From<Map> for Variables {
    fn from(map: Map) -> Self {
        Variables::from_value(Value::Object(map.0.into_iter().collect()))
    }
}

/// Why the parameters make no request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadParameters {
    #[error("a batch of requests is not supported: send one request at a time")]
    Batch,
    #[error("the request is not valid JSON: {0}")]
    Json(String),
    #[error("the request's parameters are not valid: {0}")]
    Shape(String),
    #[error("the parameter `{parameter}` is not a JSON object: {reason}")]
    QueryStringMap { parameter: &'static str, reason: String },
    #[error("the parameter `query` is missing")]
    MissingQuery,
    /// The text that clients of automatic persisted queries look for before they send the document itself.
    #[error("PersistedQueryNotFound")]
    PersistedQuery,
    #[error(transparent)]
    TooDeep(#[from] TooDeep),
}

/// A request that can be executed, and what is known about it.
pub(crate) struct Prepared {
    pub(crate) request: Request,
    pub(crate) kind: OperationKind,
}

impl Parameters {
    /// Reads a JSON body.
    pub(crate) fn from_json(body: &[u8]) -> Result<Self, BadParameters> {
        if body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[') {
            return Err(BadParameters::Batch);
        }
        serde_json::from_slice(body).map_err(|error| match error.classify() {
            serde_json::error::Category::Data => BadParameters::Shape(error.to_string()),
            _ => BadParameters::Json(error.to_string()),
        })
    }

    /// Reads a query string that has been decoded into its fields.
    pub(crate) fn from_query_string(query: QueryString) -> Result<Self, BadParameters> {
        Ok(Self {
            query: query.query,
            operation_name: query.operation_name,
            variables: parse_map("variables", query.variables)?,
            extensions: parse_map("extensions", query.extensions)?,
        })
    }

    /// Checks them and finds the kind of operation.
    pub(crate) fn prepare(self) -> Result<Prepared, BadParameters> {
        let extensions = self.extensions.unwrap_or_default();
        let Some(query) = self.query else {
            let persisted = extensions.0.contains_key("persistedQuery");
            return Err(if persisted { BadParameters::PersistedQuery } else { BadParameters::MissingQuery });
        };
        // Clients send an empty name when there is none.
        let operation_name = self.operation_name.filter(|name| !name.is_empty());
        let kind = outline(&query, operation_name.as_deref())?.kind();
        let mut request = Request::new(query).variables(self.variables.unwrap_or_default().into());
        request.operation_name = operation_name;
        for (name, value) in extensions.0 {
            request.extensions.insert(name.to_string(), value);
        }
        Ok(Prepared { request, kind })
    }
}

/// An empty parameter is one that is not there: forms send those.
fn parse_map(parameter: &'static str, text: Option<String>) -> Result<Option<Map>, BadParameters> {
    match text {
        None => Ok(None),
        Some(text) if text.is_empty() => Ok(None),
        Some(text) => {
            serde_json::from_str(&text).map_err(|error| BadParameters::QueryStringMap { parameter, reason: error.to_string() })
        }
    }
}

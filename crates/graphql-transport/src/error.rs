//! Error codes, and how a GraphQL response is written to the wire.

use async_graphql::{Response, ServerError, Value};
use http::StatusCode;
use serde::ser::{Serialize, SerializeMap, Serializer};

/// The values of `extensions.code` that clients are promised. Anything else is left as the executor wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// A user is needed and there is none, or the token is bad.
    Unauthenticated,
    /// This user may not do that.
    Forbidden,
    /// The request itself is wrong; sending it again will not help.
    BadUserInput,
    /// The document is not GraphQL.
    GraphqlParseFailed,
    /// The document does not fit the schema.
    GraphqlValidationFailed,
    /// A bound of the server was passed.
    LimitExceeded,
    /// Not answered in time; the outcome is unknown.
    Timeout,
    /// Try again later.
    ServiceUnavailable,
    /// Persisted queries are not kept here: send the document.
    PersistedQueryNotFound,
    /// The server's fault.
    InternalServerError,
}

impl ErrorCode {
    /// The code as clients see it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unauthenticated => "UNAUTHENTICATED",
            Self::Forbidden => "FORBIDDEN",
            Self::BadUserInput => "BAD_USER_INPUT",
            Self::GraphqlParseFailed => "GRAPHQL_PARSE_FAILED",
            Self::GraphqlValidationFailed => "GRAPHQL_VALIDATION_FAILED",
            Self::LimitExceeded => "LIMIT_EXCEEDED",
            Self::Timeout => "TIMEOUT",
            Self::ServiceUnavailable => "SERVICE_UNAVAILABLE",
            Self::PersistedQueryNotFound => "PERSISTED_QUERY_NOT_FOUND",
            Self::InternalServerError => "INTERNAL_SERVER_ERROR",
        }
    }
}

/// A response that is one error and no data.
pub(crate) fn error_response(code: ErrorCode, message: impl Into<String>) -> Response {
    let mut error = ServerError::new(message, None);
    set_code(&mut error, code);
    Response::from_errors(vec![error])
}

/// Whether execution never began: the answer has errors, none of them belongs to a field, and there is no data.
/// (async-graphql does not tell "no data" from "null data" otherwise.)
pub(crate) fn is_request_error(response: &Response) -> bool {
    response.data == Value::Null && !response.errors.is_empty() && response.errors.iter().all(|error| error.path.is_empty())
}

/// The status of a request error under `application/graphql-response+json`.
pub(crate) fn request_error_status(response: &Response) -> StatusCode {
    match response.errors.first().and_then(code_of) {
        Some("UNAUTHENTICATED") => StatusCode::UNAUTHORIZED,
        Some("FORBIDDEN") => StatusCode::FORBIDDEN,
        Some("RATE_LIMITED") => StatusCode::TOO_MANY_REQUESTS,
        Some("INTERNAL_SERVER_ERROR") => StatusCode::INTERNAL_SERVER_ERROR,
        Some("SERVICE_UNAVAILABLE") => StatusCode::SERVICE_UNAVAILABLE,
        Some("TIMEOUT") => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::BAD_REQUEST,
    }
}

/// Gives a code to every error that has none: the executor's own errors usually come without.
pub(crate) fn fill_codes(response: &mut Response, document: &str) {
    if response.errors.iter().all(|error| code_of(error).is_some()) {
        return;
    }
    let before_execution = if is_request_error(response) {
        // Only on this rare path: parsing again is the one way to tell the two apart.
        match async_graphql::parser::parse_query(document) {
            Ok(_) => ErrorCode::GraphqlValidationFailed,
            Err(_) => ErrorCode::GraphqlParseFailed,
        }
    } else {
        ErrorCode::InternalServerError
    };
    for error in response.errors.iter_mut().filter(|error| code_of(error).is_none()) {
        let code = if error.path.is_empty() { before_execution } else { ErrorCode::InternalServerError };
        set_code(error, code);
    }
}

fn code_of(error: &ServerError) -> Option<&str> {
    match error.extensions.as_ref()?.get("code")? {
        Value::String(code) => Some(code),
        Value::Enum(code) => Some(code),
        _ => None,
    }
}

fn set_code(error: &mut ServerError, code: ErrorCode) {
    error.extensions.get_or_insert_default().set("code", code.as_str());
}

/// A response as it goes over the wire: errors first, as the specification recommends, and no `data` key when execution never
/// began. Serialized in place, because going through a JSON value would sort the fields.
pub(crate) struct Wire<'a>(pub(crate) &'a Response);

impl Serialize for Wire<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if !self.0.errors.is_empty() {
            map.serialize_entry("errors", &Errors(&self.0.errors))?;
        }
        if !is_request_error(self.0) {
            map.serialize_entry("data", &self.0.data)?;
        }
        if !self.0.extensions.is_empty() {
            map.serialize_entry("extensions", &self.0.extensions)?;
        }
        map.end()
    }
}

/// A list of errors as it goes over the wire.
pub(crate) struct Errors<'a>(pub(crate) &'a [ServerError]);

impl Serialize for Errors<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0)
    }
}

#[cfg(test)]
mod tests {
    use async_graphql::PathSegment;

    use super::*;

    fn text(response: &Response) -> String {
        serde_json::to_string(&Wire(response)).unwrap()
    }

    #[test]
    fn the_order_of_fields_is_the_order_of_the_query() {
        let data = Value::from_json(serde_json::json!({})).unwrap();
        let Value::Object(mut object) = data else { panic!("an object") };
        object.insert(async_graphql::Name::new("zebra"), 1.into());
        object.insert(async_graphql::Name::new("apple"), 2.into());
        assert_eq!(text(&Response::new(Value::Object(object))), r#"{"data":{"zebra":1,"apple":2}}"#);
    }

    #[test]
    fn an_error_before_execution_has_no_data_key_but_a_null_result_has() {
        let refused = error_response(ErrorCode::BadUserInput, "no");
        assert_eq!(text(&refused), r#"{"errors":[{"message":"no","extensions":{"code":"BAD_USER_INPUT"}}]}"#);

        let mut error = ServerError::new("gone", None);
        error.path = vec![PathSegment::Field("me".into())];
        let mut failed = Response::from_errors(vec![error]);
        fill_codes(&mut failed, "{ me { id } }");
        assert!(text(&failed).contains(r#""data":null"#), "{}", text(&failed));
        assert!(text(&failed).contains("INTERNAL_SERVER_ERROR"));
    }

    #[test]
    fn a_code_that_the_executor_chose_stays() {
        let mut response = error_response(ErrorCode::LimitExceeded, "too deep");
        fill_codes(&mut response, "{ a }");
        assert_eq!(code_of(&response.errors[0]), Some("LIMIT_EXCEEDED"));
    }
}

//! `__schema` and `__type`, answered from the public schema alone.

use apollo_compiler::introspection::partial_execute;
use async_graphql::Name;

use crate::data::Object;
use crate::error::{ErrorCode, Rejection};
use crate::operation::{Document, Operation};
use crate::supergraph::Supergraph;
use crate::variables::{Coerced, from_json};

/// The values of the operation's introspection fields.
pub(crate) fn answer(
    supergraph: &Supergraph,
    document: &Document,
    operation: &Operation,
    variables: &Coerced,
) -> Result<Object, Rejection> {
    let executed = partial_execute(
        &supergraph.public,
        &supergraph.implementers,
        &document.executable,
        &operation.definition,
        &variables.json,
    );
    let response = executed.map_err(|error| Rejection::new(ErrorCode::BadUserInput, error.message().to_string()))?;
    if let Some(error) = response.errors.first() {
        return Err(Rejection::new(ErrorCode::BadUserInput, error.message.clone()));
    }
    let data = response.data.unwrap_or_default();
    Ok(data.iter().map(|(key, value)| (Name::new(key.as_str()), from_json(value))).collect())
}

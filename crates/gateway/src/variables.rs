//! Variables: coerced once per request against the public schema, then handed out to the fetches that use them.
//!
//! Values of custom scalars pass through untouched: what they may be is for the subgraph to say.

use std::collections::HashMap;

use apollo_compiler::Schema;
use apollo_compiler::request::coerce_variable_values;
use apollo_compiler::response::{JsonMap, JsonValue};
use apollo_compiler::validation::Valid;
use async_graphql::{Name, Value, Variables};

use crate::error::{ErrorCode, Rejection};
use crate::operation::Operation;

/// The coerced variables of one request.
#[derive(Debug)]
pub(crate) struct Coerced {
    /// For introspection, which takes them in this form.
    pub(crate) json: Valid<JsonMap>,
    values: HashMap<String, Value>,
}

impl Coerced {
    /// Coerces what the operation defines and ignores the rest.
    pub(crate) fn new(schema: &Valid<Schema>, operation: &Operation, mut given: Variables) -> Result<Self, Rejection> {
        let definitions = &operation.definition.variables;
        if definitions.is_empty() {
            return Ok(Self { json: Valid::assume_valid(JsonMap::new()), values: HashMap::new() });
        }
        let mut input = JsonMap::new();
        for definition in definitions {
            if let Some(value) = given.remove(definition.name.as_str()) {
                input.insert(definition.name.as_str(), to_json(value)?);
            }
        }
        let json = coerce_variable_values(schema, &operation.definition, &input)
            .map_err(|error| Rejection::new(ErrorCode::BadUserInput, error.message().to_string()))?;
        let values = json.iter().map(|(name, value)| (name.as_str().to_owned(), from_json(value))).collect();
        Ok(Self { json, values })
    }

    /// The values of the operation's conditions as bits, the first condition being the lowest.
    pub(crate) fn condition_bits(&self, operation: &Operation) -> Result<u32, Rejection> {
        let mut bits = 0;
        for (index, name) in operation.conditions.iter().enumerate() {
            match self.values.get(name.as_str()) {
                Some(Value::Boolean(true)) => bits |= 1 << index,
                Some(Value::Boolean(false)) => {}
                _ => {
                    let message = format!("the variable `${name}` decides about a selection and must be true or false");
                    return Err(Rejection::new(ErrorCode::BadUserInput, message));
                }
            }
        }
        Ok(bits)
    }

    /// Those of `names` that have a value: a variable that was not given must stay absent, because that is not null.
    pub(crate) fn pick(&self, names: &[Name]) -> Variables {
        let mut picked = Variables::default();
        for name in names {
            if let Some(value) = self.values.get(name.as_str()) {
                picked.insert(name.clone(), value.clone());
            }
        }
        picked
    }
}

fn to_json(value: Value) -> Result<JsonValue, Rejection> {
    Ok(match value {
        Value::Null => JsonValue::Null,
        Value::Boolean(boolean) => JsonValue::Bool(boolean),
        Value::Number(number) => JsonValue::Number(number),
        Value::String(string) => JsonValue::String(string.into()),
        Value::Enum(name) => JsonValue::String(name.as_str().into()),
        Value::List(items) => JsonValue::Array(items.into_iter().map(to_json).collect::<Result<_, _>>()?),
        Value::Object(fields) => {
            let mut object = JsonMap::new();
            for (name, value) in fields {
                object.insert(name.as_str(), to_json(value)?);
            }
            JsonValue::Object(object)
        }
        Value::Binary(_) => return Err(Rejection::new(ErrorCode::BadUserInput, "file uploads are not supported")),
    })
}

/// The same value as async-graphql has it, keys in order.
pub(crate) fn from_json(value: &JsonValue) -> Value {
    match value {
        JsonValue::Null => Value::Null,
        JsonValue::Bool(boolean) => Value::Boolean(*boolean),
        JsonValue::Number(number) => Value::Number(number.clone()),
        JsonValue::String(string) => Value::String(string.as_str().to_owned()),
        JsonValue::Array(items) => Value::List(items.iter().map(from_json).collect()),
        JsonValue::Object(fields) => {
            Value::Object(fields.iter().map(|(name, value)| (Name::new(name.as_str()), from_json(value))).collect())
        }
    }
}

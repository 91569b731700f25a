//! Representations: what names an entity to a subgraph.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};

use async_graphql::{Name, Value};

use crate::data::{self, Object, TYPENAME};
use crate::plan::Requirement;
use crate::supergraph::Supergraph;

/// Builds the representation of an object: `None` when nothing is required of objects of its type, because the fetch is not about
/// them. `Err` is the key that is missing for it.
pub(super) fn represent<'p>(
    object: &Object,
    requirements: &'p [Requirement],
    supergraph: &Supergraph,
) -> Result<Option<Object>, &'p Name> {
    let mut representation = Object::with_capacity(requirements.len() + 1);
    if let Some(name) = object.get(TYPENAME) {
        representation.insert(Name::new(TYPENAME), name.clone());
    }
    let is_meant = fill(&mut representation, object, requirements, supergraph)?;
    Ok(is_meant.then_some(representation))
}

fn fill<'p>(
    representation: &mut Object,
    object: &Object,
    requirements: &'p [Requirement],
    supergraph: &Supergraph,
) -> Result<bool, &'p Name> {
    let type_name = data::type_name(object);
    let mut is_meant = false;
    for requirement in requirements {
        match requirement {
            Requirement::Field { field, .. } if field.as_str() == TYPENAME => is_meant = true,
            Requirement::Field { from, field, below } => {
                let value = object.get(from).ok_or(from)?;
                if *value == Value::Null && is_non_null(supergraph, type_name, field) {
                    return Err(from);
                }
                representation.insert(field.clone(), required(value, below, supergraph)?);
                is_meant = true;
            }
            Requirement::On { condition, below } => {
                // The condition may be the interface that the object implements in the subgraph, or the object's own type.
                let applies = type_name.is_none_or(|name| {
                    supergraph.types.satisfies(name, condition) || supergraph.types.satisfies(condition, name)
                });
                if applies {
                    is_meant |= fill(representation, object, below, supergraph)?;
                }
            }
        }
    }
    Ok(is_meant)
}

fn required<'p>(value: &Value, below: &'p [Requirement], supergraph: &Supergraph) -> Result<Value, &'p Name> {
    Ok(match value {
        Value::Object(object) if !below.is_empty() => Value::Object(represent(object, below, supergraph)?.unwrap_or_default()),
        Value::List(items) if !below.is_empty() => {
            Value::List(items.iter().map(|item| required(item, below, supergraph)).collect::<Result<_, _>>()?)
        }
        other => other.clone(),
    })
}

fn is_non_null(supergraph: &Supergraph, type_name: Option<&str>, field: &str) -> bool {
    type_name.is_some_and(|name| supergraph.is_non_null(name, field))
}

/// Different representations, each once, in order of appearance.
#[derive(Debug, Default)]
pub(super) struct Distinct {
    pub(super) values: Vec<Value>,
    by_hash: HashMap<u64, Vec<usize>>,
    state: RandomState,
}

impl Distinct {
    /// The index of an equal representation, which is added when there is none.
    pub(super) fn index_of(&mut self, representation: Object) -> usize {
        let value = Value::Object(representation);
        let mut hasher = self.state.build_hasher();
        hash(&value, &mut hasher);
        let same_hash = self.by_hash.entry(hasher.finish()).or_default();
        if let Some(known) = same_hash.iter().copied().find(|index| self.values[*index] == value) {
            return known;
        }
        let index = self.values.len();
        same_hash.push(index);
        self.values.push(value);
        index
    }
}

/// Equal values have equal hashes; representations of one fetch have their keys in the same order.
fn hash(value: &Value, hasher: &mut impl Hasher) {
    match value {
        Value::Null => 0_u8.hash(hasher),
        Value::Number(number) => number.hash(hasher),
        Value::String(string) => string.as_str().hash(hasher),
        Value::Enum(name) => name.as_str().hash(hasher),
        Value::Boolean(boolean) => boolean.hash(hasher),
        Value::Binary(bytes) => bytes.hash(hasher),
        Value::List(items) => items.iter().for_each(|item| hash(item, hasher)),
        Value::Object(fields) => fields.iter().for_each(|(name, value)| {
            name.as_str().hash(hasher);
            hash(value, hasher);
        }),
    }
}

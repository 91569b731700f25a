//! The shape of an answer: which keys each object has, in the order of the query, and what may be null.
//!
//! Built once per plan. Fields are collected per concrete type, as execution in the specification does it, so that projecting an
//! answer needs no look at the document. Selections that meet again under the same type share their shape, and a bound on the
//! number of fields ends what still grows too large.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use apollo_compiler::ast::Type;
use apollo_compiler::collections::IndexMap;
use apollo_compiler::executable::{Field as QueryField, Selection, SelectionSet};
use apollo_compiler::schema::ExtendedType;
use apollo_compiler::{ExecutableDocument, Name as ApolloName, Node};
use async_graphql::{Name, Value};

use crate::condition::Conditions;
use crate::error::{ErrorCode, Rejection};
use crate::operation::Operation;
use crate::supergraph::Supergraph;

/// Fields of one shape, over all concrete types. 20,000: a thousand fields under twenty types each.
const MAX_SHAPE_FIELDS: usize = 20_000;

/// What an object looks like in the answer.
#[derive(Debug)]
pub(crate) enum ObjectShape {
    /// Its type is known.
    Concrete(Arc<Fields>),
    /// `__typename` says which it is.
    Abstract(HashMap<String, Arc<Fields>>),
}

/// The keys of an object of one type.
#[derive(Debug)]
pub(crate) struct Fields {
    pub(crate) type_name: String,
    pub(crate) fields: Vec<Field>,
    /// Whether an object with exactly these keys in this order is already as it has to be, apart from what is in its fields.
    pub(crate) only_data: bool,
}

#[derive(Debug)]
pub(crate) struct Field {
    /// The key in the answer.
    pub(crate) key: Name,
    /// The key in the gathered data ([`Supergraph::data_key`]).
    pub(crate) data_key: Name,
    /// The field's name in the schema, for messages.
    pub(crate) name: String,
    pub(crate) source: Source,
    pub(crate) ty: FieldType,
}

/// Where a field's value comes from.
#[derive(Debug)]
pub(crate) enum Source {
    Subgraphs,
    /// The name of the object's type.
    Typename(Value),
    Introspection,
}

#[derive(Debug)]
pub(crate) struct FieldType {
    pub(crate) non_null: bool,
    pub(crate) kind: Kind,
}

#[derive(Debug)]
pub(crate) enum Kind {
    /// A scalar: whatever the subgraph says.
    Leaf,
    /// An enum with these public values.
    Enum(Arc<HashSet<String>>),
    Object(Arc<ObjectShape>),
    List(Box<FieldType>),
}

/// The shape of the whole answer.
pub(crate) fn build<'d>(
    operation: &'d Operation,
    document: &'d ExecutableDocument,
    supergraph: &'d Supergraph,
    conditions: Conditions<'d>,
) -> Result<Arc<Fields>, Rejection> {
    let mut builder =
        Builder { document, supergraph, conditions, objects: HashMap::new(), enums: HashMap::new(), remaining: MAX_SHAPE_FIELDS };
    let set = &operation.definition.selection_set;
    builder.fields(&set.ty, &[set])
}

/// A type and the selection sets, by address, that are merged under it.
type ShapeKey = (ApolloName, Vec<usize>);

struct Builder<'d> {
    document: &'d ExecutableDocument,
    supergraph: &'d Supergraph,
    conditions: Conditions<'d>,
    objects: HashMap<ShapeKey, Arc<ObjectShape>>,
    enums: HashMap<ApolloName, Arc<HashSet<String>>>,
    remaining: usize,
}

/// The selections of one key that are merged into one field.
struct Collected<'d> {
    field: &'d Node<QueryField>,
    sets: Vec<&'d SelectionSet>,
}

impl<'d> Builder<'d> {
    fn object(&mut self, type_name: &'d ApolloName, sets: &[&'d SelectionSet]) -> Result<Arc<ObjectShape>, Rejection> {
        let key = (type_name.clone(), sets.iter().map(|set| std::ptr::from_ref::<SelectionSet>(set).addr()).collect());
        if let Some(known) = self.objects.get(&key) {
            return Ok(Arc::clone(known));
        }
        let concrete = self.concrete_types(type_name);
        let shape = match concrete {
            None => ObjectShape::Concrete(self.fields(type_name, sets)?),
            Some(concrete) => {
                let mut by_type = HashMap::with_capacity(concrete.len());
                for name in concrete {
                    by_type.insert(name.to_string(), self.fields(name, sets)?);
                }
                ObjectShape::Abstract(by_type)
            }
        };
        let shape = Arc::new(shape);
        self.objects.insert(key, Arc::clone(&shape));
        Ok(shape)
    }

    /// `None` when the type is concrete itself.
    fn concrete_types(&self, type_name: &ApolloName) -> Option<Vec<&'d ApolloName>> {
        match self.supergraph.public.types.get(type_name) {
            Some(ExtendedType::Interface(_)) => {
                Some(self.supergraph.implementers.get(type_name).map(|known| known.objects.iter().collect()).unwrap_or_default())
            }
            Some(ExtendedType::Union(union)) => Some(union.members.iter().map(|member| &member.name).collect()),
            _ => None,
        }
    }

    fn fields(&mut self, type_name: &'d ApolloName, sets: &[&'d SelectionSet]) -> Result<Arc<Fields>, Rejection> {
        let mut collected = IndexMap::default();
        for set in sets {
            self.collect(type_name, set, &mut collected);
        }
        self.remaining = self
            .remaining
            .checked_sub(collected.len())
            .ok_or_else(|| Rejection::new(ErrorCode::LimitExceeded, "the operation selects too many fields on too many types"))?;
        let mut fields = Vec::with_capacity(collected.len());
        for (key, selected) in collected {
            fields.push(self.field(type_name, key, &selected)?);
        }
        let only_data = fields.iter().all(|field| matches!(field.source, Source::Subgraphs) && field.key == field.data_key);
        Ok(Arc::new(Fields { type_name: type_name.to_string(), fields, only_data }))
    }

    fn collect(&self, type_name: &ApolloName, set: &'d SelectionSet, collected: &mut IndexMap<&'d ApolloName, Collected<'d>>) {
        for selection in &set.selections {
            if !self.conditions.includes(selection.directives()) {
                continue;
            }
            let fragment = match selection {
                Selection::Field(field) => {
                    collected
                        .entry(field.response_key())
                        .or_insert_with(|| Collected { field, sets: Vec::new() })
                        .sets
                        .push(&field.selection_set);
                    continue;
                }
                Selection::InlineFragment(fragment) => &fragment.selection_set,
                Selection::FragmentSpread(spread) => match spread.fragment_def(self.document) {
                    Some(fragment) => &fragment.selection_set,
                    None => continue,
                },
            };
            if self.supergraph.types.satisfies(type_name, &fragment.ty) {
                self.collect(type_name, fragment, collected);
            }
        }
    }

    fn field(&mut self, parent: &ApolloName, key: &ApolloName, selected: &Collected<'d>) -> Result<Field, Rejection> {
        let name = &selected.field.name;
        let key = Name::new(key);
        let leaf = |source, non_null| Field {
            key: key.clone(),
            data_key: key.clone(),
            name: name.to_string(),
            source,
            ty: FieldType { non_null, kind: Kind::Leaf },
        };
        match name.as_str() {
            "__typename" => return Ok(leaf(Source::Typename(Value::String(parent.to_string())), true)),
            "__schema" => return Ok(leaf(Source::Introspection, true)),
            "__type" => return Ok(leaf(Source::Introspection, false)),
            _ => {}
        }
        // An object may promise more than its interface does.
        let ty = match self.supergraph.public.type_field(parent, name) {
            Ok(definition) => &definition.ty,
            Err(_) => &selected.field.definition.ty,
        };
        let sets: Vec<&'d SelectionSet> = selected.sets.iter().copied().filter(|set| !set.is_empty()).collect();
        let ty = self.field_type(ty, &sets)?;
        let data_key = Name::new(self.supergraph.data_key(name, selected.field.alias.as_deref()));
        Ok(Field { key, data_key, name: name.to_string(), source: Source::Subgraphs, ty })
    }

    fn field_type(&mut self, ty: &'d Type, sets: &[&'d SelectionSet]) -> Result<FieldType, Rejection> {
        let kind = match ty {
            Type::List(inner) | Type::NonNullList(inner) => Kind::List(Box::new(self.field_type(inner, sets)?)),
            Type::Named(name) | Type::NonNullNamed(name) => match self.supergraph.public.types.get(name) {
                Some(ExtendedType::Enum(enumeration)) => Kind::Enum(Arc::clone(
                    self.enums
                        .entry(name.clone())
                        .or_insert_with(|| Arc::new(enumeration.values.keys().map(ToString::to_string).collect())),
                )),
                Some(ExtendedType::Object(_) | ExtendedType::Interface(_) | ExtendedType::Union(_)) => {
                    Kind::Object(self.object(name, sets)?)
                }
                _ => Kind::Leaf,
            },
        };
        Ok(FieldType { non_null: ty.is_non_null(), kind })
    }
}

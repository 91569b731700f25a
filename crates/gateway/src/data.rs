//! Walking the data that fetches have gathered so far.

use std::collections::BTreeSet;

use async_graphql::indexmap::IndexMap;
use async_graphql::{Name, PathSegment, Value};

use crate::plan::{DataSegment, Rewrite};
use crate::supergraph::TypeRelations;

/// An object of the data.
pub(crate) type Object = IndexMap<Name, Value>;

/// The key under which an object's type is found.
pub(crate) const TYPENAME: &str = "__typename";

/// A place in an answer, comparable and hashable.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Segment {
    Key(Name),
    Index(usize),
}

impl From<&Segment> for PathSegment {
    fn from(segment: &Segment) -> Self {
        match segment {
            Segment::Key(key) => Self::Field(key.to_string()),
            Segment::Index(index) => Self::Index(*index),
        }
    }
}

/// The object's type, if it is in the data.
pub(crate) fn type_name(object: &Object) -> Option<&str> {
    text(object.get(TYPENAME)?)
}

/// A string or the name of an enum value.
pub(crate) fn text(value: &Value) -> Option<&str> {
    match value {
        Value::String(string) => Some(string),
        Value::Enum(name) => Some(name),
        _ => None,
    }
}

fn is_one_of(object: &Object, conditions: &BTreeSet<String>, types: &TypeRelations) -> bool {
    type_name(object).is_none_or(|name| conditions.iter().any(|condition| types.satisfies(name, condition)))
}

/// How many values there are, itself included.
pub(crate) fn count(value: &Value) -> usize {
    1 + match value {
        Value::List(items) => items.iter().map(count).sum(),
        Value::Object(object) => object.values().map(count).sum(),
        _ => 0_usize,
    }
}

/// Calls `found` for every object at the path, with the indices of the lists on the way.
pub(crate) fn visit<'v>(
    value: &'v Value,
    path: &[DataSegment],
    types: &TypeRelations,
    indices: &mut Vec<usize>,
    found: &mut impl FnMut(&'v Object, &[usize]),
) {
    match value {
        Value::List(items) => {
            for (index, item) in items.iter().enumerate() {
                indices.push(index);
                visit(item, path, types, indices, found);
                indices.pop();
            }
        }
        Value::Object(object) => match path.split_first() {
            None => found(object, indices),
            Some((DataSegment::Key(key), rest)) => {
                if let Some(below) = object.get(key) {
                    visit(below, rest, types, indices, found);
                }
            }
            Some((DataSegment::Types(conditions), rest)) => {
                if is_one_of(object, conditions, types) {
                    visit(value, rest, types, indices, found);
                }
            }
        },
        _ => {}
    }
}

/// The object that [`visit`] found with these indices.
pub(crate) fn object_mut<'v>(value: &'v mut Value, path: &[DataSegment], indices: &[usize]) -> Option<&'v mut Object> {
    match value {
        Value::List(items) => {
            let (index, rest) = indices.split_first()?;
            object_mut(items.get_mut(*index)?, path, rest)
        }
        Value::Object(object) => {
            // The types have been checked when it was found.
            let mut keys = path.iter().enumerate().filter_map(|(at, segment)| match segment {
                DataSegment::Key(key) => Some((at, key)),
                DataSegment::Types(_) => None,
            });
            match keys.next() {
                None => Some(object),
                Some((at, key)) => object_mut(object.get_mut(key)?, &path[at + 1..], indices),
            }
        }
        _ => None,
    }
}

/// Where the object that [`visit`] found with these indices is in the answer.
pub(crate) fn place(value: &Value, path: &[DataSegment], indices: &[usize]) -> Vec<Segment> {
    let mut place = Vec::with_capacity(path.len() + indices.len());
    let mut indices = indices.iter();
    let mut path = path.iter();
    let mut current = Some(value);
    while let Some(value) = current {
        current = if let Value::List(items) = value {
            let Some(index) = indices.next() else { break };
            place.push(Segment::Index(*index));
            items.get(*index)
        } else {
            match path.next() {
                None => break,
                Some(DataSegment::Types(_)) => Some(value),
                Some(DataSegment::Key(key)) => {
                    place.push(Segment::Key(key.clone()));
                    if let Value::Object(object) = value { object.get(key) } else { None }
                }
            }
        };
    }
    place
}

/// Adds what `source` has to `target`. Objects are merged key by key, lists of the same length item by item. A null never replaces a
/// value, because another subgraph may know more. Of lists of different lengths the first stays: fetches that are under way
/// have counted its items.
pub(crate) fn merge(target: &mut Value, source: Value) {
    match (target, source) {
        (_, Value::Null) => {}
        (Value::Object(target), Value::Object(source)) => merge_object(target, source),
        (Value::List(target), Value::List(source)) if target.len() == source.len() => {
            target.iter_mut().zip(source).for_each(|(target, source)| merge(target, source));
        }
        (Value::List(_), Value::List(_)) => {}
        (target, source) => *target = source,
    }
}

/// [`merge`] for objects.
pub(crate) fn merge_object(target: &mut Object, source: Object) {
    if target.is_empty() {
        *target = source;
        return;
    }
    target.reserve(source.len());
    for (key, value) in source {
        match target.get_mut(&key) {
            Some(existing) => merge(existing, value),
            None => {
                target.insert(key, value);
            }
        }
    }
}

/// Applies rewrites to a representation or to an answer.
pub(crate) fn rewrite(value: &mut Value, rewrites: &[Rewrite], types: &TypeRelations) {
    for rewrite in rewrites {
        let path = match rewrite {
            Rewrite::Rename { path, .. } | Rewrite::Set { path, .. } => path,
        };
        apply(value, path, rewrite, types);
    }
}

fn apply(value: &mut Value, path: &[DataSegment], rewrite: &Rewrite, types: &TypeRelations) {
    match value {
        Value::List(items) => items.iter_mut().for_each(|item| apply(item, path, rewrite, types)),
        Value::Object(object) => match path.split_first() {
            Some((DataSegment::Types(conditions), rest)) if is_one_of(object, conditions, types) => {
                apply(value, rest, rewrite, types);
            }
            Some((DataSegment::Key(key), [])) => apply_to_key(object, key, rewrite),
            Some((DataSegment::Key(key), rest)) => {
                if let Some(below) = object.get_mut(key) {
                    apply(below, rest, rewrite, types);
                }
            }
            Some((DataSegment::Types(_), _)) | None => {}
        },
        _ => {}
    }
}

fn apply_to_key(object: &mut Object, key: &Name, rewrite: &Rewrite) {
    match rewrite {
        Rewrite::Rename { to, .. } => {
            if let Some(moved) = object.swap_remove(key) {
                object.insert(to.clone(), moved);
            }
        }
        Rewrite::Set { value, .. } => {
            if let Some(slot) = object.get_mut(key) {
                *slot = Value::String(value.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use async_graphql::value;

    use super::*;

    fn merged(target: Value, source: Value) -> Value {
        let mut target = target;
        merge(&mut target, source);
        target
    }

    #[test]
    fn a_null_never_hides_what_another_subgraph_knows() {
        assert_eq!(merged(value!({"a": {"b": 1}}), value!({"a": null})), value!({"a": {"b": 1}}));
        assert_eq!(merged(value!({"a": null}), value!({"a": {"b": 1}})), value!({"a": {"b": 1}}));
    }

    #[test]
    fn lists_are_merged_item_by_item_unless_their_lengths_differ() {
        assert_eq!(merged(value!([{"a": 1}, null]), value!([{"b": 2}, {"b": 3}])), value!([{"a": 1, "b": 2}, {"b": 3}]));
        assert_eq!(merged(value!([{"a": 1}]), value!([{"b": 2}, {"b": 3}])), value!([{"a": 1}]));
    }

    #[test]
    fn what_is_found_is_found_again_by_its_indices_and_has_the_right_place() {
        let mut data = value!({"a": [[{"__typename": "A", "b": {"x": 1}}], [], [null, {"__typename": "B", "b": {"x": 2}}]]});
        let path = [
            DataSegment::Key(Name::new("a")),
            DataSegment::Types(BTreeSet::from(["B".to_owned()])),
            DataSegment::Key(Name::new("b")),
        ];
        let mut found = Vec::new();
        visit(&data, &path, &TypeRelations::default(), &mut Vec::new(), &mut |object, indices| {
            found.push((object.clone(), indices.to_vec()));
        });
        let [(object, indices)] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!(Value::Object(object.clone()), value!({"x": 2}));
        assert_eq!(object_mut(&mut data, &path, indices), Some(&mut object.clone()));
        let place: Vec<PathSegment> = place(&data, &path, indices).iter().map(Into::into).collect();
        let field = |name: &str| PathSegment::Field(name.to_owned());
        assert_eq!(place, [field("a"), PathSegment::Index(2), PathSegment::Index(1), field("b")]);
    }
}

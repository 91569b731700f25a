//! From gathered data to the answer: exactly the keys of the query, in its order, with nulls where the schema allows them.
//!
//! A key that is missing becomes null, with the error of the fetch that was to fill it, if there is one. A null where the schema
//! has none makes the nearest enclosing nullable field null, and leaves an error unless one has been reported there already.
//! Objects that have exactly the right keys in the right order are kept as they are.

use async_graphql::{PathSegment, Response, ServerError, Value};

use crate::data::{self, Object, Segment};
use crate::error::{ErrorCode, at, coded};
use crate::execute::{Failure, State};
use crate::shape::{Field, FieldType, Fields, Kind, ObjectShape, Source};

/// Something non-null came out null: what encloses it has to become null.
struct Nulled;

/// Where projection is. Lives on the stack; made into a path only for errors.
#[derive(Clone, Copy)]
enum Path<'p> {
    Root,
    Field(&'p Path<'p>, &'p Field),
    Index(&'p Path<'p>, usize),
}

impl Path<'_> {
    /// The place in the gathered data.
    fn place(&self) -> Vec<Segment> {
        self.map(|field| Segment::Key(field.data_key.clone()), Segment::Index)
    }

    /// The place in the answer.
    fn response_path(&self) -> Vec<PathSegment> {
        self.map(|field| PathSegment::Field(field.key.to_string()), PathSegment::Index)
    }

    fn field_name(&self) -> &str {
        match self {
            Path::Root => "",
            Path::Field(_, field) => &field.name,
            Path::Index(parent, _) => parent.field_name(),
        }
    }

    fn map<S>(&self, field_segment: impl Fn(&Field) -> S, index_segment: impl Fn(usize) -> S) -> Vec<S> {
        let mut segments = Vec::new();
        let mut current = self;
        loop {
            match current {
                Path::Root => break,
                Path::Field(parent, field) => {
                    segments.push(field_segment(field));
                    current = parent;
                }
                Path::Index(parent, index) => {
                    segments.push(index_segment(*index));
                    current = parent;
                }
            }
        }
        segments.reverse();
        segments
    }
}

/// Shapes the answer.
pub(crate) fn project(mut state: State, shape: &Fields, introspection: Object, max_errors: usize) -> Response {
    let mut errors = state.take_errors();
    for error in &mut errors {
        translate(&mut error.path, shape);
    }
    let mut projection = Projection { failures: &state.failures, introspection, errors, max_errors };
    let mut data = std::mem::take(&mut state.data);
    let nulled = match &mut data {
        Value::Object(object) => projection.object(object, shape, &Path::Root).is_err(),
        _ => true,
    };
    if nulled
        && projection.errors.is_empty()
        && let Some(field) = shape.fields.first()
    {
        // The answer as a whole must not be null without an error that says why.
        let error = coded(ErrorCode::InternalServerError, "something that cannot be null here does not exist");
        projection.push(at(&error, vec![PathSegment::Field(field.key.to_string())]));
    }
    let mut response = Response::new(if nulled { Value::Null } else { data });
    response.errors = projection.errors;
    response
}

struct Projection<'p> {
    failures: &'p [Failure],
    introspection: Object,
    errors: Vec<ServerError>,
    max_errors: usize,
}

impl Projection<'_> {
    fn object(&mut self, object: &mut Object, shape: &Fields, path: &Path<'_>) -> Result<(), Nulled> {
        let in_place = shape.only_data
            && object.len() == shape.fields.len()
            && object.keys().zip(&shape.fields).all(|(key, field)| *key == field.key);
        if in_place {
            for (value, field) in object.values_mut().zip(&shape.fields) {
                self.value(value, &field.ty, shape, &Path::Field(path, field))?;
            }
            return Ok(());
        }
        let mut data = std::mem::replace(object, Object::with_capacity(shape.fields.len()));
        for field in &shape.fields {
            let value = match &field.source {
                Source::Typename(name) => name.clone(),
                Source::Introspection => self.introspection.swap_remove(&field.key).unwrap_or_default(),
                Source::Subgraphs => {
                    let path = Path::Field(path, field);
                    match data.swap_remove(&field.data_key) {
                        Some(mut value) => {
                            self.value(&mut value, &field.ty, shape, &path)?;
                            value
                        }
                        None => self.missing(field, shape, &path)?,
                    }
                }
            };
            object.insert(field.key.clone(), value);
        }
        Ok(())
    }

    fn value(&mut self, value: &mut Value, ty: &FieldType, parent: &Fields, path: &Path<'_>) -> Result<(), Nulled> {
        if *value == Value::Null {
            return self.null(ty, parent, path);
        }
        let inside = match &ty.kind {
            Kind::Leaf => Ok(()),
            Kind::Enum(values) => {
                if data::text(value).is_some_and(|name| values.contains(name)) {
                    Ok(())
                } else {
                    self.unusable("a service answered with a value that is not part of the enum", path)
                }
            }
            Kind::List(item) => match value {
                Value::List(items) => items
                    .iter_mut()
                    .enumerate()
                    .try_for_each(|(index, value)| self.value(value, item, parent, &Path::Index(path, index))),
                _ => self.unusable("a service answered with something that is not a list", path),
            },
            Kind::Object(shape) => match value {
                Value::Object(object) => self.any_object(object, shape, path),
                _ => self.unusable("a service answered with something that is not an object", path),
            },
        };
        if inside.is_ok() {
            return Ok(());
        }
        *value = Value::Null;
        if ty.non_null { Err(Nulled) } else { Ok(()) }
    }

    fn any_object(&mut self, object: &mut Object, shape: &ObjectShape, path: &Path<'_>) -> Result<(), Nulled> {
        match shape {
            ObjectShape::Concrete(fields) => self.object(object, fields, path),
            ObjectShape::Abstract(by_type) => match data::type_name(object).and_then(|name| by_type.get(name)) {
                Some(fields) => self.object(object, fields, path),
                None => self.unusable("a service answered with an object of an unknown type", path),
            },
        }
    }

    fn null(&mut self, ty: &FieldType, parent: &Fields, path: &Path<'_>) -> Result<(), Nulled> {
        if !ty.non_null {
            return Ok(());
        }
        if !self.is_reported(&path.response_path()) {
            let message = format!("the non-null field `{}.{}` has no value", parent.type_name, path.field_name());
            self.push(at(&coded(ErrorCode::InternalServerError, message), path.response_path()));
        }
        Err(Nulled)
    }

    fn missing(&mut self, field: &Field, parent: &Fields, path: &Path<'_>) -> Result<Value, Nulled> {
        if !self.failures.is_empty() {
            let place = path.place();
            if let Some(failure) = self.failures.iter().find(|failure| failure.explains(&place)) {
                let path = path.response_path();
                if let Some(error) = &failure.error
                    && !self.is_reported(&path)
                {
                    self.push(at(error, path));
                }
                return if field.ty.non_null { Err(Nulled) } else { Ok(Value::Null) };
            }
        }
        self.null(&field.ty, parent, path)?;
        Ok(Value::Null)
    }

    fn unusable(&mut self, message: &str, path: &Path<'_>) -> Result<(), Nulled> {
        self.push(at(&coded(ErrorCode::InternalServerError, message), path.response_path()));
        Err(Nulled)
    }

    /// Whether an error at this place, below or above it says why it is null.
    fn is_reported(&self, path: &[PathSegment]) -> bool {
        self.errors.iter().any(|error| error.path.starts_with(path) || path.starts_with(&error.path))
    }

    fn push(&mut self, error: ServerError) {
        if self.errors.len() < self.max_errors {
            self.errors.push(error);
        }
    }
}

/// Makes a path in the gathered data a path in the answer. It is cut off where it leaves what the client asked for: subgraphs are
/// asked for more, for example for keys.
fn translate(path: &mut Vec<PathSegment>, shape: &Fields) {
    let mut answer = Vec::with_capacity(path.len());
    follow_fields(path, shape, &mut answer);
    if answer.is_empty()
        && let Some(first) = shape.fields.first()
    {
        // Without a path it would read as an error of the request.
        answer.push(PathSegment::Field(first.key.to_string()));
    }
    *path = answer;
}

fn follow_fields(path: &[PathSegment], shape: &Fields, answer: &mut Vec<PathSegment>) {
    let Some((PathSegment::Field(key), rest)) = path.split_first() else { return };
    let Some(field) = shape.fields.iter().find(|field| field.data_key.as_str() == key) else { return };
    answer.push(PathSegment::Field(field.key.to_string()));
    follow_type(rest, &field.ty, answer);
}

fn follow_type(path: &[PathSegment], ty: &FieldType, answer: &mut Vec<PathSegment>) {
    match &ty.kind {
        Kind::List(item) => {
            if let Some((PathSegment::Index(index), rest)) = path.split_first() {
                answer.push(PathSegment::Index(*index));
                follow_type(rest, item, answer);
            }
        }
        Kind::Object(object) => match object.as_ref() {
            ObjectShape::Concrete(fields) => follow_fields(path, fields, answer),
            ObjectShape::Abstract(by_type) => {
                // The error does not say which type its object has: the one that knows most of the path.
                let paths = by_type.values().map(|fields| {
                    let mut below = Vec::new();
                    follow_fields(path, fields, &mut below);
                    below
                });
                answer.extend(paths.max_by_key(Vec::len).unwrap_or_default());
            }
        },
        Kind::Leaf | Kind::Enum(_) => {}
    }
}

//! Fetches of entities: for objects that are in the data already, more of their fields from another subgraph.
//!
//! Order: find the objects, make each different representation once, send them in calls of bounded size, and put each entity
//! back at every place whose object it is. An error of a subgraph is told at every such place too, with the path that the client
//! sees. async-graphql leaves the list index out of paths below `_entities`; then the entities that are null there are meant.

use std::collections::HashSet;
use std::ops::Range;

use async_graphql::{PathSegment, ServerError, Value, Variables};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::represent::{Distinct, represent};
use super::{Execution, Failure, State, error_path};
use crate::data::{self, Segment};
use crate::error::{ErrorCode, at, coded, ensure_code};
use crate::plan::{EntityFetch, EntityInput, EntityOutput};
use crate::subgraph::{SubgraphError, SubgraphResponse};

/// The objects of one input and their representations.
#[derive(Debug, Default)]
struct Found {
    distinct: Distinct,
    /// For each representation its first place.
    first: Vec<usize>,
    places: Vec<Place>,
    indices: Vec<usize>,
}

/// An object in the data.
#[derive(Debug)]
struct Place {
    /// Index of the input's path.
    path: usize,
    /// Its list indices within [`Found::indices`].
    indices: Range<usize>,
    /// The next place with the same representation.
    next: Option<usize>,
}

impl Found {
    fn add(&mut self, path: usize, indices: &[usize], representation: data::Object) {
        let start = self.indices.len();
        self.indices.extend_from_slice(indices);
        let place = self.places.len();
        let index = self.distinct.index_of(representation);
        // New places go to the front: the order among equals does not matter.
        let next = self.first.get(index).copied();
        match self.first.get_mut(index) {
            Some(first) => *first = place,
            None => self.first.push(place),
        }
        self.places.push(Place { path, indices: start..self.indices.len(), next });
    }

    fn places_of(&self, representation: usize) -> impl Iterator<Item = &Place> {
        let first = self.first.get(representation).and_then(|place| self.places.get(*place));
        std::iter::successors(first, |place| place.next.and_then(|next| self.places.get(next)))
    }

    fn response_places<'f>(
        &'f self,
        data: &'f Value,
        input: &'f EntityInput,
        representation: usize,
    ) -> impl Iterator<Item = Vec<Segment>> {
        self.places_of(representation)
            .map(move |place| data::place(data, &input.paths[place.path].0, &self.indices[place.indices.clone()]))
    }
}

/// For each input the representations that one call asks for.
type Call = Vec<Range<usize>>;

impl Execution<'_> {
    pub(super) async fn entities(&self, fetch: &EntityFetch) {
        let found: Vec<Found> = fetch.inputs.iter().map(|input| self.find(fetch, input)).collect();
        let needed: usize = found.iter().map(|found| found.distinct.values.len()).sum();
        let limit = self.gateway.limits.max_entities_per_fetch;
        if needed > limit {
            let error =
                coded(ErrorCode::LimitExceeded, format!("this field is needed for more than {limit} objects: ask for fewer"));
            let everything: Call = found.iter().map(|found| 0..found.distinct.values.len()).collect();
            return fail(&mut self.state(), fetch, &found, &everything, &error);
        }
        let mut calls = split(&found, self.gateway.limits.entities_per_call.max(1)).into_iter();
        let send = |call: Call| {
            let variables = self.representations(fetch, &found, &call);
            async move { (self.call(&fetch.fetch, variables).await, call) }
        };
        let mut under_way: FuturesUnordered<_> =
            calls.by_ref().take(self.gateway.limits.concurrent_entity_calls.max(1)).map(&send).collect();
        while let Some((answer, call)) = under_way.next().await {
            self.merge_entities(fetch, &found, &call, answer);
            under_way.extend(calls.next().map(&send));
        }
    }

    fn find(&self, fetch: &EntityFetch, input: &EntityInput) -> Found {
        let supergraph = &self.gateway.supergraph;
        let mut state = self.state();
        let mut found = Found::default();
        let mut incomplete = Vec::new();
        for (path_index, path) in input.paths.iter().enumerate() {
            data::visit(&state.data, &path.0, &supergraph.types, &mut Vec::new(), &mut |object, indices| match represent(
                object,
                &input.requires,
                supergraph,
            ) {
                Ok(None) => {}
                Ok(Some(representation)) => {
                    let mut value = Value::Object(representation);
                    data::rewrite(&mut value, &input.rewrites, &supergraph.types);
                    if let Value::Object(representation) = value {
                        found.add(path_index, indices, representation);
                    }
                }
                Err(missing) => incomplete.push((data::place(&state.data, &path.0, indices), missing.clone())),
            });
        }
        for (place, missing) in incomplete {
            let failure = unrepresentable(&state, fetch, place, &missing);
            state.failures.push(failure);
        }
        found
    }

    fn representations(&self, fetch: &EntityFetch, found: &[Found], call: &Call) -> Variables {
        let mut variables = self.variables.pick(&fetch.fetch.variables);
        for ((input, found), range) in fetch.inputs.iter().zip(found).zip(call) {
            variables.insert(input.variable.clone(), Value::List(found.distinct.values[range.clone()].to_vec()));
        }
        variables
    }

    fn merge_entities(&self, fetch: &EntityFetch, found: &[Found], call: &Call, answer: Result<SubgraphResponse, SubgraphError>) {
        let mut state = self.state();
        let mut response = match answer {
            Ok(response) => response,
            Err(error) => return fail(&mut state, fetch, found, call, &error.to_server_error()),
        };
        let mut lists: Vec<Option<Vec<Value>>> =
            fetch.outputs.iter().map(|output| take_list(&mut response.data, output, call[output.input].len())).collect();
        for (output, list) in fetch.outputs.iter().zip(&mut lists) {
            for entity in list.iter_mut().flatten() {
                data::rewrite(entity, &output.rewrites, &self.gateway.supergraph.types);
            }
        }
        state.repeated = state.repeated.saturating_add(repeated(fetch, found, call, &lists));
        if state.repeated > self.gateway.limits.max_repeated_values {
            let message = "the same objects stand at too many places of the answer: ask for fewer";
            return fail(&mut state, fetch, found, call, &coded(ErrorCode::LimitExceeded, message));
        }
        Errors { fetch, found, call, lists: &lists }.locate_all(&mut state, response.errors);
        note_absent(&mut state, fetch, found, call, &lists);
        for (output, list) in fetch.outputs.iter().zip(lists) {
            let (input, found) = (&fetch.inputs[output.input], &found[output.input]);
            for (representation, entity) in call[output.input].clone().zip(list.into_iter().flatten()) {
                put(&mut state.data, input, found, representation, entity);
            }
        }
    }
}

/// Divides the representations into calls of at most `size`.
fn split(found: &[Found], size: usize) -> Vec<Call> {
    let empty: Call = vec![0..0; found.len()];
    let mut calls = Vec::new();
    let mut call = empty.clone();
    let mut room = size;
    for (input, found) in found.iter().enumerate() {
        let mut start = 0;
        while start < found.distinct.values.len() {
            let end = found.distinct.values.len().min(start + room);
            call[input] = start..end;
            room -= end - start;
            start = end;
            if room == 0 {
                calls.push(std::mem::replace(&mut call, empty.clone()));
                room = size;
            }
        }
    }
    if room < size {
        calls.push(call);
    }
    calls
}

/// Values that entities at several places bring along beyond the first of these places.
fn repeated(fetch: &EntityFetch, found: &[Found], call: &Call, lists: &[Option<Vec<Value>>]) -> usize {
    let mut values = 0_usize;
    for (output, list) in fetch.outputs.iter().zip(lists) {
        for (representation, entity) in call[output.input].clone().zip(list.iter().flatten()) {
            let places = found[output.input].places_of(representation).count();
            if places > 1 {
                values = values.saturating_add(data::count(entity).saturating_mul(places - 1));
            }
        }
    }
    values
}

fn put(data: &mut Value, input: &EntityInput, found: &Found, representation: usize, entity: Value) {
    let Value::Object(entity) = entity else { return };
    let mut places = found.places_of(representation).peekable();
    let mut entity = Some(entity);
    while let Some(place) = places.next() {
        let copy = if places.peek().is_some() { entity.clone() } else { entity.take() };
        let target = data::object_mut(data, &input.paths[place.path].0, &found.indices[place.indices.clone()]);
        if let (Some(target), Some(copy)) = (target, copy) {
            data::merge_object(target, copy);
        }
    }
}

/// The entities of one output, if there is one for each representation: anything else would give objects what belongs to others.
fn take_list(data: &mut Value, output: &EntityOutput, length: usize) -> Option<Vec<Value>> {
    let Value::Object(object) = data else { return None };
    match object.get_mut(&output.key) {
        Some(Value::List(list)) if list.len() == length => Some(std::mem::take(list)),
        _ => None,
    }
}

/// Remembers where the subgraph answered that there is no such entity. After the errors: a null that an error explains is no such answer.
fn note_absent(state: &mut State, fetch: &EntityFetch, found: &[Found], call: &Call, lists: &[Option<Vec<Value>>]) {
    for (output, list) in fetch.outputs.iter().zip(lists) {
        let (input, found) = (&fetch.inputs[output.input], &found[output.input]);
        let entities = call[output.input].clone().zip(list.iter().flatten());
        let absent = entities.filter(|(_, entity)| **entity == Value::Null);
        let places: HashSet<Vec<Segment>> = absent
            .flat_map(|(representation, _)| found.response_places(&state.data, input, representation).collect::<Vec<_>>())
            .collect();
        if !places.is_empty() {
            state.failures.push(Failure { places, keys: output.keys.clone(), error: None });
        }
    }
}

/// Marks all places of a call.
fn fail(state: &mut State, fetch: &EntityFetch, found: &[Found], call: &Call, error: &ServerError) {
    for output in &fetch.outputs {
        let (input, found) = (&fetch.inputs[output.input], &found[output.input]);
        let places: HashSet<Vec<Segment>> = call[output.input]
            .clone()
            .flat_map(|representation| found.response_places(&state.data, input, representation).collect::<Vec<_>>())
            .collect();
        state.failures.push(Failure { places, keys: output.keys.clone(), error: Some(error.clone()) });
    }
}

/// An object that lacks what names it to the subgraph: the reason is that of the missing key, when there is one.
fn unrepresentable(state: &State, fetch: &EntityFetch, place: Vec<Segment>, missing: &async_graphql::Name) -> Failure {
    let mut key = place.clone();
    key.push(Segment::Key(missing.clone()));
    let reason = state.failures.iter().find(|failure| failure.explains(&key));
    let error = reason.map_or_else(
        || Some(coded(ErrorCode::InternalServerError, "a value that this field depends on is missing")),
        |failure| failure.error.clone(),
    );
    let keys = fetch.outputs.iter().flat_map(|output| output.keys.iter().cloned()).collect();
    Failure { places: HashSet::from([place]), keys, error }
}

/// Finds out what an error of a subgraph is about.
struct Errors<'e> {
    fetch: &'e EntityFetch,
    found: &'e [Found],
    call: &'e Call,
    lists: &'e [Option<Vec<Value>>],
}

impl Errors<'_> {
    fn locate_all(&self, state: &mut State, mut errors: Vec<ServerError>) {
        errors.iter_mut().for_each(ensure_code);
        // A null that took the whole answer with it is about all lists, although its path names one.
        let first = errors.first().map(|error| at(error, Vec::new()));
        for error in errors {
            self.locate(state, error);
        }
        for output in 0..self.lists.len() {
            if self.lists[output].is_none() {
                let unusable = || SubgraphError::Protocol("no entities".to_owned()).to_server_error();
                self.fail_nulls(state, output, &first.clone().unwrap_or_else(unusable));
            }
        }
    }

    fn length(&self, output: usize) -> usize {
        self.call[self.fetch.outputs[output].input].len()
    }

    fn locate(&self, state: &mut State, mut error: ServerError) {
        let path = std::mem::take(&mut error.path);
        let output = match path.first() {
            Some(PathSegment::Field(key)) => self.fetch.outputs.iter().position(|output| output.key.as_str() == key),
            _ => None,
        };
        let Some(output) = output else {
            // About the whole call.
            return fail(state, self.fetch, self.found, self.call, &at(&error, Vec::new()));
        };
        let below = &path[1..];
        match below {
            [] => self.fail_nulls(state, output, &error),
            [PathSegment::Index(index)] => self.fail_one(state, output, *index, &error),
            [PathSegment::Index(index), below @ ..] => self.push(state, output, *index, below, &error),
            below => {
                for index in self.candidates(output, below) {
                    self.push(state, output, index, below, &error);
                }
            }
        }
    }

    /// The entities that an error without index may be about: those with nothing at its path.
    fn candidates(&self, output: usize, below: &[PathSegment]) -> Vec<usize> {
        let Some(list) = &self.lists[output] else { return (0..self.length(output)).collect() };
        let candidates: Vec<usize> =
            list.iter().enumerate().filter(|(_, entity)| ends_in_nothing(entity, below)).map(|(index, _)| index).collect();
        if candidates.is_empty() { vec![0] } else { candidates }
    }

    fn push(&self, state: &mut State, output: usize, index: usize, below: &[PathSegment], error: &ServerError) {
        if index >= self.length(output) {
            return;
        }
        let output = &self.fetch.outputs[output];
        let (input, found) = (&self.fetch.inputs[output.input], &self.found[output.input]);
        let representation = self.call[output.input].start + index;
        let places: Vec<_> = found.response_places(&state.data, input, representation).collect();
        for place in places {
            let error = at(error, error_path(&place, below));
            state.push_error(self.fetch.fetch.order, error);
        }
    }

    fn fail_one(&self, state: &mut State, output: usize, index: usize, error: &ServerError) {
        if index >= self.length(output) {
            return;
        }
        let output = &self.fetch.outputs[output];
        let (input, found) = (&self.fetch.inputs[output.input], &self.found[output.input]);
        let representation = self.call[output.input].start + index;
        let places = found.response_places(&state.data, input, representation).collect();
        state.failures.push(Failure { places, keys: output.keys.clone(), error: Some(at(error, Vec::new())) });
    }

    fn fail_nulls(&self, state: &mut State, output: usize, error: &ServerError) {
        for index in 0..self.length(output) {
            let entity = self.lists[output].as_ref().and_then(|list| list.get(index));
            if !matches!(entity, Some(Value::Object(_))) {
                self.fail_one(state, output, index, error);
            }
        }
    }
}

/// Whether following the path ends at null or at a missing key.
fn ends_in_nothing(value: &Value, path: &[PathSegment]) -> bool {
    match (value, path.split_first()) {
        (Value::Null, _) => true,
        (Value::Object(object), Some((PathSegment::Field(key), rest))) => {
            object.get(key.as_str()).is_none_or(|below| ends_in_nothing(below, rest))
        }
        (Value::List(items), Some((PathSegment::Index(index), rest))) => {
            items.get(*index).is_some_and(|item| ends_in_nothing(item, rest))
        }
        _ => false,
    }
}

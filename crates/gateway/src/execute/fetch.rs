//! Calling a subgraph, and the fetches that start at the root of the data.

use std::collections::HashSet;

use async_graphql::parser::types::{Selection, SelectionSet};
use async_graphql::{PathSegment, Pos, ServerError, Value, Variables};
use tracing::Instrument;

use super::{Execution, Failure};
use crate::data::{merge_object, rewrite};
use crate::error::{at, ensure_code};
use crate::plan::{Fetch, RootFetch};
use crate::subgraph::{SubgraphError, SubgraphOperation, SubgraphRequest, SubgraphResponse};

impl Execution<'_> {
    pub(super) async fn root(&self, fetch: &RootFetch) {
        let variables = self.variables.pick(&fetch.fetch.variables);
        let answer = self.call(&fetch.fetch, variables).await;
        self.merge_root(fetch, answer);
    }

    /// Puts an answer for the root into the data.
    pub(crate) fn merge_root(&self, fetch: &RootFetch, answer: Result<SubgraphResponse, SubgraphError>) {
        let types = &self.gateway.supergraph.types;
        let mut state = self.state();
        let mut response = match answer {
            Ok(response) => response,
            Err(error) => {
                state.failures.push(Failure {
                    places: HashSet::from([Vec::new()]),
                    keys: fetch.keys.clone(),
                    error: Some(error.to_server_error()),
                });
                return;
            }
        };
        if !response.errors.is_empty() {
            for error in located(fetch, &response.data, std::mem::take(&mut response.errors)) {
                state.push_error(fetch.fetch.order, error);
            }
        }
        rewrite(&mut response.data, &fetch.output_rewrites, types);
        if let (Value::Object(data), Value::Object(answer)) = (&mut state.data, response.data) {
            merge_object(data, answer);
        }
    }

    pub(super) async fn call(&self, fetch: &Fetch, variables: Variables) -> Result<SubgraphResponse, SubgraphError> {
        let (name, subgraph) = &self.gateway.subgraphs[fetch.subgraph];
        let request = SubgraphRequest { operation: fetch.operation.clone(), variables };
        let span = tracing::info_span!("graphql.fetch", subgraph = %name, operation = fetch.operation.kind().as_str());
        let answer = subgraph.execute(request, self.caller).instrument(span).await;
        if let Err(error) = &answer {
            tracing::warn!(subgraph = %name, %error, "a fetch failed");
        }
        answer
    }
}

/// Errors with a path that the client can understand. One without a path is about the field at its location, if it has one: async-graphql
/// tells so of an argument that cannot be read. Otherwise it is about the whole call, and told for every key that is null because of it.
fn located(fetch: &RootFetch, data: &Value, errors: Vec<ServerError>) -> Vec<ServerError> {
    let mut located = Vec::with_capacity(errors.len());
    for mut error in errors {
        ensure_code(&mut error);
        if !error.path.is_empty() {
            error.locations.clear();
            located.push(error);
            continue;
        }
        if let Some(path) = field_at(&fetch.fetch.operation, &error) {
            located.push(at(&error, path));
            continue;
        }
        let is_null = |key: &&String| match data {
            Value::Object(data) => matches!(data.get(key.as_str()), None | Some(Value::Null)),
            _ => true,
        };
        let mut keys: Vec<&String> = fetch.keys.iter().filter(is_null).collect();
        if keys.is_empty() {
            keys.extend(fetch.keys.first());
        }
        located.extend(keys.into_iter().map(|key| at(&error, vec![PathSegment::Field(key.clone())])));
    }
    located
}

/// The path of the field whose arguments an error points to: the last one that begins before it.
fn field_at(operation: &SubgraphOperation, error: &ServerError) -> Option<Vec<PathSegment>> {
    fn search(set: &SelectionSet, place: Pos, path: &mut Vec<PathSegment>, last: &mut Option<Vec<PathSegment>>) {
        for selection in &set.items {
            match &selection.node {
                Selection::Field(field) if field.pos <= place => {
                    path.push(PathSegment::Field(field.node.response_key().node.to_string()));
                    *last = Some(path.clone());
                    search(&field.node.selection_set.node, place, path, last);
                    path.pop();
                }
                Selection::InlineFragment(fragment) => search(&fragment.node.selection_set.node, place, path, last),
                // The planner writes none in what it sends.
                Selection::Field(_) | Selection::FragmentSpread(_) => {}
            }
        }
    }
    let place = *error.locations.first().filter(|place| place.line > 0)?;
    let (_, operation) = operation.parsed()?.operations.iter().next()?;
    let mut last = None;
    search(&operation.node.selection_set.node, place, &mut Vec::new(), &mut last);
    last
}

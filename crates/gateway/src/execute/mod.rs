//! Executing a plan.
//!
//! All fetches of a request work on one tree of data. A fetch takes what it needs from the tree, waits for its subgraph without
//! holding the tree, and merges the answer. A fetch that fails marks the places it was to fill; everything else goes on, which is
//! also why a mutation that committed is reported although the next one failed. [`crate::project`] turns the marks into errors.

mod entities;
mod fetch;
mod represent;

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_graphql::{PathSegment, Response, ServerError, Value};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};

use crate::data::{Object, Segment};
use crate::gateway::Inner;
use crate::plan::{Plan, Step};
use crate::project;
use crate::subgraph::Caller;
use crate::variables::Coerced;

/// One execution: of a query, of a mutation, or of one event of a subscription.
pub(crate) struct Execution<'r> {
    gateway: &'r Inner,
    plan: &'r Plan,
    variables: &'r Coerced,
    caller: &'r Caller,
    state: Mutex<State>,
}

/// What has been gathered so far.
#[derive(Debug)]
pub(crate) struct State {
    /// An object.
    pub(crate) data: Value,
    /// Errors of the subgraphs with their place in the plan.
    errors: Vec<(usize, ServerError)>,
    pub(crate) failures: Vec<Failure>,
    /// Values that stand in the data more than once; see [`Limits::max_repeated_values`](crate::Limits::max_repeated_values).
    repeated: usize,
    max_errors: usize,
}

/// Objects that miss some keys because a fetch failed, or because the subgraph that owns them says that there is no such entity.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) places: HashSet<Vec<Segment>>,
    pub(crate) keys: Vec<String>,
    /// Without a path. None when nothing went wrong: what does not exist is null and no error.
    pub(crate) error: Option<ServerError>,
}

impl Failure {
    /// Whether the failure explains that there is nothing at this place: the place, or one above it, was to be filled.
    pub(crate) fn explains(&self, place: &[Segment]) -> bool {
        (0..place.len()).rev().any(|length| {
            let Segment::Key(key) = &place[length] else { return false };
            self.keys.iter().any(|own| own == key.as_str()) && self.places.contains(&place[..length])
        })
    }
}

impl State {
    pub(crate) fn push_error(&mut self, order: usize, error: ServerError) {
        if self.errors.len() < self.max_errors {
            self.errors.push((order, error));
        }
    }

    /// The subgraphs' errors in the order of the plan, whatever the order of the answers was.
    pub(crate) fn take_errors(&mut self) -> Vec<ServerError> {
        let mut errors = std::mem::take(&mut self.errors);
        errors.sort_by_key(|(order, _)| *order);
        errors.into_iter().map(|(_, error)| error).collect()
    }
}

impl<'r> Execution<'r> {
    pub(crate) fn new(gateway: &'r Inner, plan: &'r Plan, variables: &'r Coerced, caller: &'r Caller) -> Self {
        let state = State {
            data: Value::Object(Object::new()),
            errors: Vec::new(),
            failures: Vec::new(),
            repeated: 0,
            max_errors: gateway.limits.max_response_errors,
        };
        Self { gateway, plan, variables, caller, state: Mutex::new(state) }
    }

    /// Runs all steps and shapes the answer; `introspection` is what the schema itself answers.
    pub(crate) async fn run(self, introspection: Object) -> Response {
        match &self.plan.root {
            None => {}
            // The most common plan, without a box around its future.
            Some(Step::Root(fetch)) => self.root(fetch).await,
            Some(step) => self.step(step).await,
        }
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        project::project(state, &self.plan.shape, introspection, self.gateway.limits.max_response_errors)
    }

    fn step<'s>(&'s self, step: &'s Step) -> BoxFuture<'s, ()> {
        match step {
            Step::Root(fetch) => self.root(fetch).boxed(),
            Step::Entities(fetch) => self.entities(fetch).boxed(),
            Step::Sequence(steps) => async move {
                for step in steps {
                    self.step(step).await;
                }
            }
            .boxed(),
            Step::Parallel(steps) => join_all(steps.iter().map(|step| self.step(step))).map(|_| ()).boxed(),
        }
    }

    /// Never held while waiting.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The path of an error from a place and what the subgraph says below it.
fn error_path(place: &[Segment], below: &[PathSegment]) -> Vec<PathSegment> {
    place.iter().map(PathSegment::from).chain(below.iter().cloned()).collect()
}

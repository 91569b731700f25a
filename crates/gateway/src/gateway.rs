//! The gateway itself: from a request to a response or to a stream of them.

use std::any::TypeId;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use async_graphql::{Data, Executor, IntrospectionMode, Request, Response};
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt};
use tracing::field::Empty;
use tracing::{Instrument, Span};

use crate::cache::Plans;
use crate::data::Object;
use crate::error::{ErrorCode, GatewayError, Rejection};
use crate::execute::Execution;
use crate::introspection;
use crate::limits::Limits;
use crate::operation::{Document, Operation};
use crate::plan::Plan;
use crate::subgraph::{Caller, OperationKind, Subgraph};
use crate::subscription;
use crate::supergraph::Supergraph;
use crate::variables::Coerced;

/// A federation gateway. Cheap to clone.
#[derive(Clone)]
pub struct Gateway(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) supergraph: Arc<Supergraph>,
    pub(crate) subgraphs: Vec<(String, Arc<dyn Subgraph>)>,
    pub(crate) limits: Arc<Limits>,
    plans: Plans,
}

/// A request that may be executed.
pub(crate) struct Prepared {
    document: Arc<Document>,
    operation_id: u64,
    pub(crate) kind: OperationKind,
    pub(crate) plan: Arc<Plan>,
    pub(crate) variables: Coerced,
}

impl Gateway {
    /// A gateway for a Federation 2 supergraph. Every subgraph that it names (`join__graph(name:)`) must be given, and no other.
    ///
    /// # Errors
    /// When the supergraph is not a valid one, or the subgraphs are not its subgraphs.
    pub fn new(supergraph_sdl: &str, subgraphs: Vec<(String, Arc<dyn Subgraph>)>, limits: Limits) -> Result<Self, GatewayError> {
        let supergraph = Arc::new(Supergraph::parse(supergraph_sdl)?);
        let needed: HashSet<&str> = supergraph.subgraph_names().collect();
        if let Some((name, _)) = subgraphs.iter().find(|(name, _)| !needed.contains(name.as_str())) {
            return Err(GatewayError::UnknownSubgraph(name.clone()));
        }
        if let Some(name) = needed.iter().find(|name| !subgraphs.iter().any(|(given, _)| given == *name)) {
            return Err(GatewayError::MissingSubgraph((*name).to_owned()));
        }
        let names: Arc<[String]> = subgraphs.iter().map(|(name, _)| name.clone()).collect();
        let limits = Arc::new(limits);
        let plans = Plans::new(Arc::clone(&supergraph), names, Arc::clone(&limits));
        Ok(Self(Arc::new(Inner { supergraph, subgraphs, limits, plans })))
    }

    /// The schema that clients see, as SDL: without federation's own elements and without what is `@inaccessible`, types sorted
    /// by name, the same for the same supergraph.
    #[must_use]
    pub fn public_sdl(&self) -> &str {
        &self.0.supergraph.public_sdl
    }

    async fn answer(&self, mut request: Request) -> Response {
        let caller = caller(&request.data, None);
        let prepared = match self.0.prepare(&mut request).await {
            Ok(prepared) => prepared,
            Err(rejection) => return rejection.to_response(),
        };
        if prepared.kind == OperationKind::Subscription {
            let message = "a subscription needs a transport that can stream";
            return Rejection::new(ErrorCode::BadUserInput, message).to_response();
        }
        self.0.run(&prepared, &caller).await
    }

    async fn open(self, mut request: Request, session: Option<Arc<Data>>) -> BoxStream<'static, Response> {
        let caller = caller(&request.data, session.as_deref());
        let prepared = match self.0.prepare(&mut request).await {
            Ok(prepared) => prepared,
            Err(rejection) => return stream::iter([rejection.to_response()]).boxed(),
        };
        if prepared.kind == OperationKind::Subscription {
            return subscription::events(self.0, prepared, caller);
        }
        stream::once(async move { self.0.run(&prepared, &caller).await }).boxed()
    }
}

impl Inner {
    async fn prepare(&self, request: &mut Request) -> Result<Prepared, Rejection> {
        let document = self.plans.document(&request.query).await?;
        let operation = document.operation(request.operation_name.as_deref())?;
        Span::current().record("operation.type", operation.kind.as_str()).record("operation.name", operation.name());
        self.check_introspection(operation, request.introspection_mode)?;
        let variables = Coerced::new(&self.supergraph.public, operation, std::mem::take(&mut request.variables))?;
        let bits = variables.condition_bits(operation)?;
        let plan = self.plans.plan(&document, operation, bits).await?;
        let (operation_id, kind) = (operation.id, operation.kind);
        Ok(Prepared { operation_id, kind, plan, variables, document })
    }

    fn check_introspection(&self, operation: &Operation, mode: IntrospectionMode) -> Result<(), Rejection> {
        if operation.introspects && (!self.limits.introspection || mode == IntrospectionMode::Disabled) {
            return Err(Rejection::new(
                ErrorCode::GraphqlValidationFailed,
                "introspection is switched off: use the published schema",
            ));
        }
        Ok(())
    }

    async fn run(&self, prepared: &Prepared, caller: &Caller) -> Response {
        let introspection = match self.introspect(prepared) {
            Ok(introspection) => introspection,
            Err(rejection) => return rejection.to_response(),
        };
        Execution::new(self, &prepared.plan, &prepared.variables, caller).run(introspection).await
    }

    fn introspect(&self, prepared: &Prepared) -> Result<Object, Rejection> {
        let operation = prepared.document.operation_by_id(prepared.operation_id)?;
        if !operation.introspects {
            return Ok(Object::new());
        }
        introspection::answer(&self.supergraph, &prepared.document, operation, &prepared.variables)
    }
}

/// What the operation is gets known, and recorded, only when its document has been parsed.
fn operation_span() -> Span {
    tracing::info_span!("graphql.operation", "operation.type" = Empty, "operation.name" = Empty)
}

fn caller(request: &Data, session: Option<&Data>) -> Caller {
    let find = |data: &Data| data.get(&TypeId::of::<Caller>()).and_then(|data| data.downcast_ref::<Caller>()).cloned();
    find(request).or_else(|| session.and_then(find)).unwrap_or_default()
}

impl Executor for Gateway {
    async fn execute(&self, request: Request) -> Response {
        self.answer(request).instrument(operation_span()).await
    }

    fn execute_stream(&self, request: Request, session: Option<Arc<Data>>) -> BoxStream<'static, Response> {
        // Boxed, so that a subscription does not keep the room that opening it took.
        stream::once(self.clone().open(request, session).instrument(operation_span()).boxed()).flatten().boxed()
    }
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").field("limits", &self.0.limits).finish_non_exhaustive()
    }
}

//! A subgraph in the same process.

use std::fmt;

use async_graphql::{Executor, Request, Response};
use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;

use super::{Caller, Subgraph, SubgraphError, SubgraphRequest, SubgraphResponse};

type Decorate = Box<dyn Fn(Request, &Caller) -> Request + Send + Sync>;

/// Runs operations on an async-graphql executor, without a network and without parsing the operation again.
pub struct LocalSubgraph<E> {
    executor: E,
    decorate: Decorate,
}

impl<E: Executor> LocalSubgraph<E> {
    /// `decorate` puts what the resolvers need to know about the caller into each request.
    pub fn new(executor: E, decorate: impl Fn(Request, &Caller) -> Request + Send + Sync + 'static) -> Self {
        Self { executor, decorate: Box::new(decorate) }
    }

    fn request(&self, request: SubgraphRequest, caller: &Caller) -> Request {
        let mut local = Request::new(request.operation.text()).variables(request.variables);
        if let Some(parsed) = request.operation.parsed() {
            local.set_parsed_query(parsed.clone());
        }
        (self.decorate)(local, caller)
    }
}

#[async_trait]
impl<E: Executor> Subgraph for LocalSubgraph<E> {
    async fn execute(&self, request: SubgraphRequest, caller: &Caller) -> Result<SubgraphResponse, SubgraphError> {
        let request = self.request(request, caller);
        Ok(self.executor.execute(request).await.into())
    }

    fn subscribe(
        &self,
        request: SubgraphRequest,
        caller: &Caller,
    ) -> BoxStream<'static, Result<SubgraphResponse, SubgraphError>> {
        let request = self.request(request, caller);
        self.executor.execute_stream(request, None).map(|response| Ok(response.into())).boxed()
    }
}

impl From<Response> for SubgraphResponse {
    fn from(response: Response) -> Self {
        Self { data: response.data, errors: response.errors }
    }
}

impl<E> fmt::Debug for LocalSubgraph<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LocalSubgraph")
    }
}

//! Fetches that do not depend on each other are under way at the same time.

use std::sync::Arc;
use std::time::Duration;

use async_graphql::{Executor, Request, Value};
use async_trait::async_trait;
use futures_util::stream::BoxStream;
use gateway::{Caller, Gateway, Limits, Subgraph, SubgraphError, SubgraphRequest, SubgraphResponse};
use serde_json::json;
use tokio::sync::Barrier;

use crate::support::SUPERGRAPH;

/// Longer than anything here takes when nobody waits for anybody.
const PATIENCE: Duration = Duration::from_secs(10);

/// Answers only when as many calls as the barrier wants are under way.
struct Together(Arc<Barrier>, serde_json::Value);

#[async_trait]
impl Subgraph for Together {
    async fn execute(&self, _: SubgraphRequest, _: &Caller) -> Result<SubgraphResponse, SubgraphError> {
        self.0.wait().await;
        Ok(SubgraphResponse { data: Value::from_json(self.1.clone()).unwrap(), errors: Vec::new() })
    }

    fn subscribe(&self, _: SubgraphRequest, _: &Caller) -> BoxStream<'static, Result<SubgraphResponse, SubgraphError>> {
        unreachable!("no subscription in these tests")
    }
}

#[tokio::test]
async fn root_fields_of_two_subgraphs_do_not_wait_for_each_other() {
    let barrier = Arc::new(Barrier::new(2));
    let subgraphs: Vec<(String, Arc<dyn Subgraph>)> = vec![
        ("books".to_owned(), Arc::new(Together(Arc::clone(&barrier), json!({ "nothing": null })))),
        ("reviews".to_owned(), Arc::new(Together(barrier, json!({ "topReview": null })))),
    ];
    let gateway = Gateway::new(SUPERGRAPH, subgraphs, Limits::default()).unwrap();
    let response =
        tokio::time::timeout(PATIENCE, gateway.execute(Request::new("{ nothing { id } topReview { id } }"))).await.unwrap();
    assert_eq!(serde_json::to_string(&response.data).unwrap(), r#"{"nothing":null,"topReview":null}"#);
}

#[tokio::test]
async fn calls_of_one_entity_fetch_do_not_wait_for_each_other() {
    let limits = Limits { entities_per_call: 1, ..Limits::default() };
    let books = json!({ "books": [{ "__typename": "Book", "id": "b1" }, { "__typename": "Book", "id": "b2" }] });
    let subgraphs: Vec<(String, Arc<dyn Subgraph>)> = vec![
        ("books".to_owned(), Arc::new(Together(Arc::new(Barrier::new(1)), books))),
        ("reviews".to_owned(), Arc::new(Together(Arc::new(Barrier::new(2)), json!({ "_entities": [{ "rating": 1.5 }] })))),
    ];
    let gateway = Gateway::new(SUPERGRAPH, subgraphs, limits).unwrap();
    let response = tokio::time::timeout(PATIENCE, gateway.execute(Request::new("{ books { rating } }"))).await.unwrap();
    assert_eq!(serde_json::to_string(&response.data).unwrap(), r#"{"books":[{"rating":1.5},{"rating":1.5}]}"#);
}

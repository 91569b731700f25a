//! Parsed documents and plans, each made once however many requests want it at the same time.
//!
//! A document is looked up by its text, a plan by the operation and the values of its conditions; a hit parses and allocates
//! nothing. Both caches are bounded, and what fails is not kept. Parsing and planning run on blocking threads, few at a time, and
//! the planner stops when its time is over or nobody waits for it any more.

use std::sync::Arc;

use hive_router_query_planner::utils::cancellation::CancellationToken;
use moka::future::Cache;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::error::{ErrorCode, Rejection};
use crate::limits::Limits;
use crate::operation::{Document, Operation};
use crate::plan::Plan;
use crate::supergraph::Supergraph;

/// An operation and the values of its conditions.
type PlanKey = (u64, u32);

pub(crate) struct Plans {
    supergraph: Arc<Supergraph>,
    subgraphs: Arc<[String]>,
    limits: Arc<Limits>,
    documents: Cache<String, Arc<Document>>,
    plans: Cache<PlanKey, Arc<Plan>>,
    permits: Arc<Semaphore>,
}

/// Cancels when dropped: a planner whose callers have all gone away must not go on.
struct CancelOnDrop(Arc<CancellationToken>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl Plans {
    pub(crate) fn new(supergraph: Arc<Supergraph>, subgraphs: Arc<[String]>, limits: Arc<Limits>) -> Self {
        let entries = limits.plan_cache_entries;
        Self {
            documents: Cache::builder().max_capacity(entries).weigher(|_, document: &Arc<Document>| document.weight).build(),
            plans: Cache::builder().max_capacity(entries).weigher(|_, plan: &Arc<Plan>| plan.weight).build(),
            permits: Arc::new(Semaphore::new(limits.max_concurrent_plans.max(1))),
            supergraph,
            subgraphs,
            limits,
        }
    }

    /// The document of this text, valid.
    pub(crate) async fn document(&self, text: &str) -> Result<Arc<Document>, Rejection> {
        if text.len() > self.limits.max_document_bytes {
            let message = format!("the document must not be longer than {} bytes", self.limits.max_document_bytes);
            return Err(Rejection::new(ErrorCode::LimitExceeded, message));
        }
        if let Some(known) = self.documents.get(text).await {
            return Ok(known);
        }
        let parse = async {
            let (supergraph, limits, text) = (Arc::clone(&self.supergraph), Arc::clone(&self.limits), text.to_owned());
            self.compute(move || Document::parse(&text, &supergraph, &limits).map(Arc::new)).await
        };
        self.documents.try_get_with_by_ref(text, parse).await.map_err(|failure| Rejection::clone(&failure))
    }

    /// The plan of one operation of `document`.
    pub(crate) async fn plan(&self, document: &Arc<Document>, operation: &Operation, bits: u32) -> Result<Arc<Plan>, Rejection> {
        let key = (operation.id, bits);
        if let Some(known) = self.plans.get(&key).await {
            return Ok(known);
        }
        let id = operation.id;
        let make = async {
            let cancel = Arc::new(CancellationToken::with_timeout(self.limits.planning_timeout));
            let _cancel_on_drop = CancelOnDrop(Arc::clone(&cancel));
            let (supergraph, subgraphs, document) =
                (Arc::clone(&self.supergraph), Arc::clone(&self.subgraphs), Arc::clone(document));
            self.compute(move || {
                let operation = document.operation_by_id(id)?;
                Plan::make(&supergraph, &subgraphs, &document, operation, bits, &cancel).map(Arc::new)
            })
            .await
        };
        self.plans.try_get_with(key, make).await.map_err(|failure| Rejection::clone(&failure))
    }

    /// Runs `work` on a blocking thread, when one of the few permits is free. A panic of a library is an error of this request.
    async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Rejection> + Send + 'static,
    ) -> Result<T, Rejection> {
        let permit = timeout(self.limits.planning_timeout, Arc::clone(&self.permits).acquire_owned()).await;
        let Ok(Ok(permit)) = permit else {
            return Err(Rejection::new(ErrorCode::ServiceUnavailable, "too many new operations at once"));
        };
        let computed = spawn_blocking(move || {
            let _permit = permit;
            work()
        });
        match timeout(self.limits.planning_timeout, computed).await {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => {
                tracing::error!(%panic, "planning panicked");
                Err(Rejection::new(ErrorCode::InternalServerError, "the operation cannot be planned"))
            }
            Err(_) => Err(Rejection::new(ErrorCode::LimitExceeded, "the operation is too complex to be planned in time")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::future::join_all;

    use super::*;

    const SUPERGRAPH: &str = include_str!("../tests/fixtures/supergraph.graphql");
    const QUERY: &str = "query($with: Boolean = true) { book(id: \"b1\") { id rating @include(if: $with) } }";

    fn plans(limits: Limits) -> Plans {
        let supergraph = Arc::new(Supergraph::parse(SUPERGRAPH).unwrap());
        let names = vec!["books".to_owned(), "reviews".to_owned()];
        Plans::new(supergraph, names.into(), Arc::new(limits))
    }

    async fn plan(plans: &Plans, bits: u32) -> Result<Arc<Plan>, Rejection> {
        let document = plans.document(QUERY).await?;
        let operation = document.operation(None)?;
        plans.plan(&document, operation, bits).await
    }

    #[tokio::test]
    async fn requests_that_come_together_share_one_plan() {
        let plans = plans(Limits::default());
        let made = join_all((0..50).map(|_| plan(&plans, 1))).await;
        let first = made[0].as_ref().unwrap();
        assert!(made.iter().all(|plan| Arc::ptr_eq(plan.as_ref().unwrap(), first)));
        assert!(!Arc::ptr_eq(&plan(&plans, 0).await.unwrap(), first), "another condition is another plan");
    }

    #[tokio::test]
    async fn what_fails_is_not_kept() {
        let plans = plans(Limits::default());
        for index in 0..20 {
            assert!(plans.document(&format!("{{ unknown{index} }}")).await.is_err());
        }
        plans.documents.run_pending_tasks().await;
        assert_eq!(plans.documents.entry_count(), 0);
    }

    #[tokio::test]
    async fn the_cache_does_not_grow_beyond_its_bound() {
        let plans = plans(Limits { plan_cache_entries: 5, ..Limits::default() });
        for index in 0..50 {
            let text = format!("{{ book(id: \"{index}\") {{ id }} }}");
            let document = plans.document(&text).await.unwrap();
            plans.plan(&document, document.operation(None).unwrap(), 0).await.unwrap();
        }
        plans.documents.run_pending_tasks().await;
        plans.plans.run_pending_tasks().await;
        assert!(plans.documents.entry_count() <= 5 && plans.plans.entry_count() <= 5);
    }

    #[tokio::test]
    async fn the_planner_stops_when_it_is_cancelled() {
        let plans = plans(Limits::default());
        let document = Document::parse(QUERY, &plans.supergraph, &plans.limits).unwrap();
        let cancel = CancellationToken::new();
        cancel.cancel();
        let operation = document.operation(None).unwrap();
        let rejection = Plan::make(&plans.supergraph, &plans.subgraphs, &document, operation, 1, &cancel).unwrap_err();
        assert!(format!("{rejection:?}").contains("LIMIT_EXCEEDED"), "{rejection:?}");
    }

    #[tokio::test]
    async fn computing_that_does_not_end_is_not_waited_for_and_neither_is_its_place() {
        let plans = plans(Limits { planning_timeout: Duration::from_millis(20), max_concurrent_plans: 1, ..Limits::default() });
        let (release, released) = std::sync::mpsc::channel::<()>();
        let stuck = plans.compute(move || {
            // Ends when the sender is gone.
            let _ = released.recv();
            Ok(())
        });
        assert!(format!("{:?}", stuck.await).contains("LIMIT_EXCEEDED"));
        assert!(format!("{:?}", plans.compute(|| Ok(())).await).contains("SERVICE_UNAVAILABLE"));
        drop(release);
    }

    #[tokio::test]
    async fn a_panic_while_planning_is_an_error_of_that_request_only() {
        let plans = plans(Limits::default());
        let panicked: Result<(), Rejection> = plans.compute(|| panic!("a library gave up")).await;
        assert!(format!("{panicked:?}").contains("INTERNAL_SERVER_ERROR"));
        assert!(plan(&plans, 1).await.is_ok());
    }
}

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

//! Publishes outbox rows and sorts the answers: shared by relay and sweeper.

use std::time::Duration;

use uuid::Uuid;

use crate::broker::{Broker, BrokerError};
use crate::outbox::{OutboxRow, OutboxTable};
use crate::trace;

/// What became of some rows.
pub(crate) struct Outcome {
    pub(crate) acknowledged: Vec<Uuid>,
    pub(crate) failure: Option<Failure>,
}

/// Rows that were not acknowledged.
pub(crate) struct Failure {
    pub(crate) rows: usize,
    /// Whether none was.
    pub(crate) all: bool,
    /// The first error, one that trying again cures if there is one.
    pub(crate) error: BrokerError,
}

/// One publish call, bounded in time on this side too: a broker that never answers must not stop a loop for ever.
pub(crate) async fn publish_rows(broker: &dyn Broker, table: OutboxTable, rows: Vec<OutboxRow>, timeout: Duration) -> Outcome {
    let count = rows.len();
    metrics::histogram!("messaging_publish_batch_rows", "outbox" => table.0)
        .record(f64::from(u32::try_from(count).unwrap_or(u32::MAX)));
    let (ids, mut records): (Vec<_>, Vec<_>) = rows.into_iter().map(|row| (row.id, row.into_record())).unzip();
    let steps = trace::publishing(&ids, &mut records);
    let Ok(answers) = tokio::time::timeout(timeout, broker.publish(&records)).await else {
        let error = BrokerError::unavailable(format!("no answer within {timeout:?}"));
        steps.iter().for_each(|(_, step)| step.fail(&error));
        return Outcome { acknowledged: Vec::new(), failure: Some(Failure { rows: count, all: true, error }) };
    };
    let mut acknowledged = Vec::with_capacity(count);
    let mut first_error: Option<BrokerError> = None;
    for (id, answer) in ids.into_iter().zip(answers) {
        match answer {
            Ok(()) => acknowledged.push(id),
            Err(error) => {
                if let Some((_, step)) = steps.iter().find(|(published, _)| *published == id) {
                    step.fail(&error);
                }
                if error.is_transient() {
                    first_error = first_error.filter(BrokerError::is_transient).or(Some(error));
                } else {
                    // The table's row is the only place where it can be seen, so it is named here.
                    tracing::error!(%table, %id, %error, "the broker will not take an outbox row");
                    first_error = first_error.or(Some(error));
                }
            }
        }
    }
    let rows = count - acknowledged.len();
    let failure = (rows > 0).then(|| Failure {
        rows,
        all: acknowledged.is_empty(),
        error: first_error.unwrap_or_else(|| BrokerError::unavailable("the broker answered for fewer records than it was given")),
    });
    Outcome { acknowledged, failure }
}

/// Logs an outage once when it begins and once when it ends, instead of once per batch.
pub(crate) struct Outage {
    table: OutboxTable,
    since: Option<tokio::time::Instant>,
}

impl Outage {
    pub(crate) fn new(table: OutboxTable) -> Self {
        Self { table, since: None }
    }

    /// Whether the last publish call met a broker that took nothing because it was not available.
    pub(crate) fn is_on(&self) -> bool {
        self.since.is_some()
    }

    pub(crate) fn note(&mut self, failure: Option<Failure>) {
        let table = self.table;
        if let Some(failure) = &failure {
            metrics::counter!("messaging_publish_failed_total", "outbox" => table.0).increment(failure.rows as u64);
        }
        let unavailable = failure.filter(|failure| failure.error.is_transient());
        let outage = unavailable.as_ref().is_some_and(|failure| failure.all);
        if let (Some(failure), None) = (&unavailable, self.since) {
            tracing::warn!(%table, rows = failure.rows, error = %failure.error, "not published; the rows stay in the outbox");
        }
        match (outage, self.since) {
            (true, None) => self.since = Some(tokio::time::Instant::now()),
            (false, Some(since)) => {
                tracing::info!(%table, outage = ?since.elapsed(), "publishing works again");
                self.since = None;
            }
            (true, Some(_)) | (false, None) => {}
        }
    }
}

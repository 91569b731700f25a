//! Between replicas on PostgreSQL: `NOTIFY` after a commit shortens the other replicas' wait. SQLite has one process and needs none.
//!
//! It is a hint and nothing else: what is lost (a broken connection, a replica that starts) is found by the tail's poll.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use database::Database;
use sea_orm::{ConnectionTrait as _, DbBackend, Statement};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Feed;

/// One channel for all replicas on a database.
const CHANNEL: &str = "order_events";
/// From one notification to the next, and so the longest that a commit waits for its own: subscribers elsewhere wait a little, the database
/// is spared a lot.
const INTERVAL: Duration = Duration::from_millis(5);
/// Waits between attempts to listen while the database is away.
const RETRY_MIN: Duration = Duration::from_millis(200);
/// The longest of these waits.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Announces this replica's commits and listens to those of the others, until `shutdown`.
pub(super) async fn run(feed: Feed, database: Database, shutdown: CancellationToken) {
    if database.backend() != DbBackend::Postgres {
        return;
    }
    // A replica does not wake itself: it was told in process.
    let replica = Uuid::now_v7().to_string();
    let announcing = announce(&feed, &database, &replica);
    let listening = listen(&feed, &database, &replica);
    shutdown.run_until_cancelled(futures_util::future::join(announcing, listening)).await;
}

async fn announce(feed: &Feed, database: &Database, replica: &str) {
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        feed.shared.committed.notified().await;
        interval.tick().await;
        let notify =
            Statement::from_sql_and_values(DbBackend::Postgres, "SELECT pg_notify($1, $2)", [CHANNEL.into(), replica.into()]);
        // A read, as far as the database is concerned: one statement, and nothing to make durable.
        if let Err(error) = database.reader().query_all_raw(notify).await {
            tracing::debug!(%error, "other replicas find out by their poll");
        }
    }
}

async fn listen(feed: &Feed, database: &Database, replica: &str) {
    let backoff = ExponentialBuilder::new().with_min_delay(RETRY_MIN).with_max_delay(RETRY_MAX).with_jitter().without_max_times();
    let mut waits = backoff.build();
    loop {
        let ended = match database.listen(CHANNEL).await {
            Ok(Some(mut listener)) => {
                waits = backoff.build();
                // Something may have been announced while nobody listened.
                feed.shared.hint.notify_one();
                loop {
                    match listener.recv().await {
                        Ok(notification) if notification.payload() != replica => feed.shared.hint.notify_one(),
                        Ok(_) => {}
                        Err(error) => break error.to_string(),
                    }
                }
            }
            Ok(None) => return,
            Err(error) => error.to_string(),
        };
        tracing::debug!(error = ended, "not listening to other replicas; trying again");
        tokio::time::sleep(waits.next().unwrap_or(RETRY_MAX)).await;
    }
}

//! Reads what was committed and not handed out from memory, each batch once per replica.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use database::Database;
use sea_orm::DbErr;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Feed;
use crate::order::{Position, find};

/// Events per read: a burst is read in few statements, and a batch stays below a megabyte.
const BATCH_EVENTS: u64 = 1_000;
/// The fallback when a hint is lost or the event was committed elsewhere.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Subscribers come back within this time when they change replicas or reload a page.
const REST_AFTER: Duration = Duration::from_secs(10);
/// Waits between attempts while the database is away.
const RETRY_MIN: Duration = Duration::from_millis(50);
/// The longest of these waits: subscribers notice the recovery at once.
const RETRY_MAX: Duration = Duration::from_secs(1);

pub(super) async fn run(feed: Feed, database: Database, shutdown: CancellationToken) {
    let work = async {
        loop {
            feed.shared.registry.wanted().await;
            let position = start(&database).await;
            feed.shared.registry.start_at(position);
            follow(&feed, &database).await;
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = work => {}
    }
    feed.shared.registry.close();
}

/// Reads and hands out until nobody has followed anything for a while.
async fn follow(feed: &Feed, database: &Database) {
    let mut followed = Instant::now();
    loop {
        read_all(feed, database).await;
        if feed.shared.registry.is_followed() {
            followed = Instant::now();
        } else if followed.elapsed() > REST_AFTER && feed.shared.registry.rest() {
            return;
        }
        // A hint that came while reading is kept by `Notify`, so none is lost between the read and this wait.
        let _ = tokio::time::timeout(POLL_INTERVAL, feed.shared.hint.notified()).await;
    }
}

async fn start(database: &Database) -> Position {
    with_retries(|| async { find::cursor(database.reader()).await.map(find::Cursor::last) }).await
}

/// Reads and hands out until nothing is left.
async fn read_all(feed: &Feed, database: &Database) {
    while let Some(position) = feed.shared.registry.position() {
        let events = with_retries(|| find::events_after(database.reader(), position, BATCH_EVENTS)).await;
        let full = events.len() as u64 == BATCH_EVENTS;
        feed.shared.registry.dispatch(events);
        if !full {
            return;
        }
    }
}

/// The feed has nobody to report to: it tries until it is stopped.
async fn with_retries<T, F: Future<Output = Result<T, DbErr>>>(read: impl Fn() -> F) -> T {
    let mut waits =
        ExponentialBuilder::new().with_min_delay(RETRY_MIN).with_max_delay(RETRY_MAX).with_jitter().without_max_times().build();
    loop {
        match read().await {
            Ok(value) => return value,
            Err(error) => {
                tracing::warn!(%error, "reading order events failed; trying again");
                tokio::time::sleep(waits.next().unwrap_or(RETRY_MAX)).await;
            }
        }
    }
}

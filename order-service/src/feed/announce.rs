//! Between replicas on PostgreSQL: `NOTIFY` after a commit shortens the wait of other replicas' subscribers. SQLite has one process and needs
//! none.
//!
//! Telling is for those who listen: a replica that somebody is subscribed to says so now and then, and who has heard of none for a while
//! tells nobody. All of it is hints and nothing else: what is lost (a broken connection, a replica that starts) is found by the tail's poll.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use backon::{BackoffBuilder as _, ExponentialBuilder};
use database::Database;
use sea_orm::{ConnectionTrait as _, DbBackend, Statement};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Feed;

/// One channel for all replicas on a database. Payloads are one of the words below and who says it.
const CHANNEL: &str = "order_events";
/// Something was committed.
const COMMITTED: &str = "committed";
/// Somebody is subscribed here.
const FOLLOWING: &str = "following";
/// From one notification to the next, and so the longest that a commit waits for its own: subscribers elsewhere wait a little, the database
/// is spared a lot.
const INTERVAL: Duration = Duration::from_millis(5);
/// How often a replica says that somebody is subscribed to it.
const FOLLOWING_INTERVAL: Duration = Duration::from_secs(3);
/// How long others believe it: two of its notifications may get lost.
const BELIEVED: Duration = Duration::from_secs(10);
/// Within this time whoever listens has heard of all that follow: who has just begun to listen believes in them for so long.
const HEARD_WITHIN: Duration = Duration::from_secs(4);
/// After this time without a word the connection is made anew: it only reads, and would never notice that the network was cut.
const SILENCE: Duration = Duration::from_secs(60);
/// Waits between attempts to listen while the database is away.
const RETRY_MIN: Duration = Duration::from_millis(200);
/// The longest of these waits.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Announces this replica's commits and subscribers and listens to the others, until `shutdown`.
pub(super) async fn run(feed: Feed, database: Database, shutdown: CancellationToken) {
    if database.backend() != DbBackend::Postgres {
        return;
    }
    let replica = Replica { feed, database, id: Uuid::now_v7().to_string(), others: Others::new() };
    let work = async { tokio::join!(replica.tell_commits(), replica.tell_that_it_follows(), replica.listen()) };
    shutdown.run_until_cancelled(work).await;
}

struct Replica {
    feed: Feed,
    database: Database,
    id: String,
    others: Others,
}

impl Replica {
    async fn tell_commits(&self) {
        let mut interval = tokio::time::interval(INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.feed.shared.committed.notified().await;
            if self.others.follow_at(Instant::now()) {
                interval.tick().await;
                self.tell(COMMITTED).await;
            }
        }
    }

    async fn tell_that_it_follows(&self) {
        while self.feed.shared.registry.follows().await {
            self.tell(FOLLOWING).await;
            tokio::time::sleep(FOLLOWING_INTERVAL).await;
        }
    }

    async fn tell(&self, what: &str) {
        let values = [CHANNEL.into(), format!("{what} {}", self.id).into()];
        let notify = Statement::from_sql_and_values(DbBackend::Postgres, "SELECT pg_notify($1, $2)", values);
        // A read, as far as the database is concerned: one statement, and nothing to make durable.
        if let Err(error) = self.database.reader().query_all_raw(notify).await {
            tracing::debug!(%error, "other replicas find out by their poll");
        }
    }

    async fn listen(&self) {
        let backoff =
            ExponentialBuilder::new().with_min_delay(RETRY_MIN).with_max_delay(RETRY_MAX).with_jitter().without_max_times();
        let mut waits = backoff.build();
        loop {
            let ended = match self.database.listen(CHANNEL).await {
                Ok(Some(mut listener)) => {
                    waits = backoff.build();
                    self.missed();
                    loop {
                        let Ok(received) = tokio::time::timeout(SILENCE, listener.try_recv()).await else {
                            break "nothing was heard for a while".to_owned();
                        };
                        match received {
                            Ok(Some(notification)) => match notification.payload().split_once(' ') {
                                Some((what, id)) if id != self.id => self.heard(what),
                                _ => {}
                            },
                            // Its connection was lost; it makes a new one.
                            Ok(None) => self.missed(),
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

    /// Anything may have been told while nobody listened.
    fn missed(&self) {
        self.heard(COMMITTED);
        self.believe_for(HEARD_WITHIN);
    }

    fn heard(&self, what: &str) {
        match what {
            COMMITTED => self.feed.hint(),
            FOLLOWING => self.believe_for(BELIEVED),
            // Of a later version.
            _ => {}
        }
    }

    fn believe_for(&self, time: Duration) {
        let now = Instant::now();
        let believed = self.others.follow_at(now);
        self.others.believe_until(now + time);
        if !believed {
            // Whoever has just begun to follow has not been told of the last commits.
            self.feed.shared.committed.notify_one();
        }
    }
}

/// Whether anybody is subscribed to another replica, as far as this one has heard.
struct Others {
    believed_until: Mutex<Instant>,
}

impl Others {
    /// Who starts has not heard of anybody yet, and believes that there is somebody.
    fn new() -> Self {
        Self { believed_until: Mutex::new(Instant::now() + HEARD_WITHIN) }
    }

    /// Or longer, if that is believed already.
    fn believe_until(&self, instant: Instant) {
        let mut until = self.until();
        *until = instant.max(*until);
    }

    fn follow_at(&self, now: Instant) -> bool {
        now < *self.until()
    }

    fn until(&self) -> MutexGuard<'_, Instant> {
        self.believed_until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_are_told_until_nothing_was_heard_of_them_for_a_while() {
        let start = Instant::now();
        let others = Others::new();
        assert!(others.follow_at(start + FOLLOWING_INTERVAL), "who starts cannot know until those that follow have said so");
        let later = start + BELIEVED * 2;
        assert!(!others.follow_at(later));
        others.believe_until(later + BELIEVED);
        assert!(others.follow_at(later + FOLLOWING_INTERVAL * 3), "two notifications were lost");
        others.believe_until(later + HEARD_WITHIN);
        assert!(others.follow_at(later + FOLLOWING_INTERVAL * 3), "what was heard counts, although others may have been missed");
        assert!(!others.follow_at(later + BELIEVED));
    }
}

//! The consumer loop when a partition has more than a transaction takes: part by part, and the next part is made ready meanwhile.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use database::testing::on_both;

use crate::consumer::{broker, dead_letters, nothing_left, publish};
use crate::support::{TestBroker, TestHandler, TestMigrator, applied, count, event, eventually, new_log, run_loop, soon};

/// A key of another partition than the backlog's.
const OTHER: &str = "key-1";
/// Four parts, the last one smaller.
const MESSAGES: usize = 700;

/// A backlog of one partition. Some of its messages say something else than their number.
async fn publish_backlog(broker: &TestBroker, others: &[(usize, &str)]) -> Vec<String> {
    let mut payloads: Vec<_> = (0..MESSAGES).map(|n| n.to_string()).collect();
    for (n, other) in others {
        payloads[*n] = (*other).to_owned();
    }
    publish(broker, &payloads.iter().map(|payload| event("tasks", "key", payload)).collect::<Vec<_>>()).await;
    payloads
}

fn at_once() -> Arc<TestHandler> {
    let handler = TestHandler::new();
    handler.at_once.store(true, Ordering::SeqCst);
    handler
}

/// How many deliveries were made ready at a time.
fn made_ready(handler: &TestHandler) -> Vec<usize> {
    std::mem::take(&mut *handler.made_ready.lock().unwrap())
}

on_both!(TestMigrator;
    async fn each_part_is_made_ready_once_and_needs_no_transaction(db: &TestDatabase) {
        let log = new_log().await;
        let broker = broker(&log).await;
        let payloads = publish_backlog(&broker, &[]).await;
        let handler = at_once();
        let running = run_loop(db, Arc::new(broker.clone()), &handler);
        eventually("all are told", || async { handler.committed.load(Ordering::SeqCst) == MESSAGES }).await;
        running.stop().await;
        assert_eq!(made_ready(&handler), [200, 200, 200, 100]);
        assert_eq!(*handler.begun.borrow(), 0, "no transaction was begun");
        assert_eq!(applied(db).await.into_iter().map(|(_, payload)| payload).collect::<Vec<_>>(), payloads, "each once, in order");
        assert!(nothing_left(&broker).await);
    }

    async fn only_the_part_that_was_overtaken_needs_a_transaction(db: &TestDatabase) {
        let log = new_log().await;
        let broker = broker(&log).await;
        let payloads = publish_backlog(&broker, &[(250, "overtaken")]).await;
        let handler = at_once();
        let running = run_loop(db, Arc::new(broker.clone()), &handler);
        eventually("all are told", || async { handler.committed.load(Ordering::SeqCst) == MESSAGES }).await;
        running.stop().await;
        assert_eq!(*handler.attempts.lock().unwrap(), [200]);
        assert_eq!(made_ready(&handler), [200, 200, 200, 200, 100], "the third part again, as the handler sees it then");
        assert_eq!(applied(db).await.into_iter().map(|(_, payload)| payload).collect::<Vec<_>>(), payloads);
        assert!(nothing_left(&broker).await);
    }

    async fn a_part_that_was_seen_to_need_a_transaction_is_not_made_ready_again(db: &TestDatabase) {
        let log = new_log().await;
        let broker = broker(&log).await;
        let payloads = publish_backlog(&broker, &[(250, "locked")]).await;
        let handler = at_once();
        let running = run_loop(db, Arc::new(broker.clone()), &handler);
        eventually("all are told", || async { handler.committed.load(Ordering::SeqCst) == MESSAGES }).await;
        running.stop().await;
        assert_eq!(*handler.attempts.lock().unwrap(), [200]);
        assert_eq!(made_ready(&handler), [200, 200, 200, 100]);
        assert_eq!(applied(db).await.into_iter().map(|(_, payload)| payload).collect::<Vec<_>>(), payloads);
    }

    async fn poison_and_panics_in_later_parts_cost_one_message_each(db: &TestDatabase) {
        let log = new_log().await;
        let broker = broker(&log).await;
        let mut payloads = publish_backlog(&broker, &[(417, "poison"), (650, "panic")]).await;
        let handler = at_once();
        let running = run_loop(db, Arc::new(broker.clone()), &handler);
        eventually("the others are told", || async { handler.committed.load(Ordering::SeqCst) == MESSAGES - 2 }).await;
        let letters = dead_letters(&broker, 2).await;
        running.stop().await;
        assert_eq!(letters.iter().map(|(_, letter)| letter.offset).collect::<Vec<_>>(), [417, 650]);
        payloads.retain(|payload| payload.parse::<usize>().is_ok());
        assert_eq!(applied(db).await.into_iter().map(|(_, payload)| payload).collect::<Vec<_>>(), payloads, "each once, in order");
        assert!(nothing_left(&broker).await);
    }

    async fn what_was_made_ready_behind_a_part_that_failed_is_made_ready_again(db: &TestDatabase) {
        let log = new_log().await;
        let broker = broker(&log).await;
        let payloads = publish_backlog(&broker, &[(200, "stuck")]).await;
        let handler = at_once();
        handler.stuck.store(true, Ordering::SeqCst);
        let running = run_loop(db, Arc::new(broker.clone()), &handler);
        eventually("it was tried again", || async { handler.made_ready.lock().unwrap().len() > 3 }).await;
        assert_eq!(count(db, "applied").await, 200, "nothing behind it is applied");
        assert_eq!(handler.committed.load(Ordering::SeqCst), 200, "the part before it is told");
        handler.stuck.store(false, Ordering::SeqCst);
        eventually("all are told", || async { handler.committed.load(Ordering::SeqCst) == MESSAGES }).await;
        running.stop().await;
        assert_eq!(made_ready(&handler)[..4], [200, 200, 200, 100], "the third part comes after what is left of the second");
        assert_eq!(applied(db).await.into_iter().map(|(_, payload)| payload).collect::<Vec<_>>(), payloads, "each once, in order");
        assert!(nothing_left(&broker).await);
    }

    async fn a_part_that_is_committed_without_an_answer_is_applied_once(db: &TestDatabase) {
        let log = new_log().await;
        let broker = broker(&log).await;
        let payloads = publish_backlog(&broker, &[(250, "unanswered")]).await;
        let handler = at_once();
        let running = run_loop(db, Arc::new(broker.clone()), &handler);
        eventually("all are told", || async { handler.committed.load(Ordering::SeqCst) == MESSAGES }).await;
        running.stop().await;
        assert_eq!(applied(db).await.into_iter().map(|(_, payload)| payload).collect::<Vec<_>>(), payloads, "each once, in order");
        assert!(!handler.attempts.lock().unwrap().is_empty(), "the part was looked at closely");
        assert!(nothing_left(&broker).await);
    }

    async fn death_after_the_commit_of_a_part_applies_nothing_twice(db: &TestDatabase) {
        let log = new_log().await;
        let broker = broker(&log).await;
        let payloads = publish_backlog(&broker, &[]).await;
        let dying = at_once();
        dying.hang_after_commit.store(true, Ordering::SeqCst);
        let running = run_loop(db, Arc::new(broker.clone()), &dying);
        eventually("the first part is committed", || async { count(db, "applied").await == 200 }).await;
        running.task.abort();
        let _ = running.task.await;

        let handler = at_once();
        let running = run_loop(db, Arc::new(broker.clone()), &handler);
        eventually("all came (again)", || async { handler.committed.load(Ordering::SeqCst) == MESSAGES }).await;
        running.stop().await;
        assert_eq!(applied(db).await.into_iter().map(|(_, payload)| payload).collect::<Vec<_>>(), payloads, "each once, in order");
        assert_eq!(*handler.attempts.lock().unwrap(), [200], "only the part that had been applied was looked at closely");
    }

    async fn shutting_down_finishes_the_part_in_hand_and_hands_the_rest_back(db: &TestDatabase) {
        let log = new_log().await;
        let broker = broker(&log).await;
        let payloads = publish_backlog(&broker, &[]).await;
        let handler = TestHandler::new();
        handler.permits.forget_permits(usize::MAX);
        let running = run_loop(db, Arc::new(broker.clone()), &handler);
        let mut begun = handler.begun.subscribe();
        soon("in the first transaction", begun.wait_for(|begun| *begun == 1)).await.unwrap();
        running.shutdown.cancel();
        handler.permits.add_permits(1);
        running.stop().await;
        assert_eq!(count(db, "applied").await, 200);

        let handler = TestHandler::new();
        let running = run_loop(db, Arc::new(broker.clone()), &handler);
        eventually("the rest follows", || async { handler.committed.load(Ordering::SeqCst) == MESSAGES - 200 }).await;
        running.stop().await;
        assert_eq!(applied(db).await.into_iter().map(|(_, payload)| payload).collect::<Vec<_>>(), payloads, "each once, in order");
        assert!(nothing_left(&broker).await);
    }

    async fn small_parts_do_not_keep_other_partitions_waiting(db: &TestDatabase) {
        let log = new_log().await;
        let broker = broker(&log).await;
        let payloads = publish_backlog(&broker, &[]).await;
        let handler = TestHandler::new();
        handler.too_many.store(10, Ordering::SeqCst);
        handler.permits.forget_permits(usize::MAX);
        handler.permits.add_permits(5);
        let running = run_loop(db, Arc::new(broker.clone()), &handler);
        let mut begun = handler.begun.subscribe();
        soon("200, 100, 50, 25 and 12 were too many", begun.wait_for(|begun| *begun == 6)).await.unwrap();
        publish(&broker, &[event("tasks", OTHER, "other")]).await;
        handler.permits.add_permits(5);
        eventually("five transactions are done", || async { handler.committed.load(Ordering::SeqCst) > 4 * 6 }).await;
        assert!(applied(db).await.iter().any(|(_, payload)| payload == "other"), "its turn came after four transactions");
        handler.too_many.store(usize::MAX, Ordering::SeqCst);
        handler.permits.add_permits(MESSAGES);
        eventually("all are told", || async { handler.committed.load(Ordering::SeqCst) == MESSAGES + 1 }).await;
        running.stop().await;
        let mut applied: Vec<_> = applied(db).await.into_iter().map(|(_, payload)| payload).collect();
        applied.retain(|payload| payload != "other");
        assert_eq!(applied, payloads, "each once, in order");
        assert!(nothing_left(&broker).await);
    }

    async fn a_partition_taken_away_between_two_parts_leaves_the_rest_to_whoever_has_it(db: &TestDatabase) {
        let log = new_log().await;
        let broker = broker(&log).await;
        let payloads = publish_backlog(&broker, &[]).await;
        broker.faults.lost.store(true, Ordering::SeqCst);
        let losing = at_once();
        let running = run_loop(db, Arc::new(broker.clone()), &losing);
        eventually("the first part is told", || async { losing.committed.load(Ordering::SeqCst) == 200 }).await;
        running.stop().await;
        assert_eq!(count(db, "applied").await, 200);

        broker.faults.lost.store(false, Ordering::SeqCst);
        let handler = at_once();
        let running = run_loop(db, Arc::new(broker.clone()), &handler);
        eventually("all came (again)", || async { handler.committed.load(Ordering::SeqCst) == MESSAGES }).await;
        running.stop().await;
        assert_eq!(applied(db).await.into_iter().map(|(_, payload)| payload).collect::<Vec<_>>(), payloads, "each once, in order");
        assert!(nothing_left(&broker).await);
    }
);

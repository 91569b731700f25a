//! The inbox's SQL.

use std::collections::HashSet;
use std::time::Duration;

use database::testing::on_both;
use database::{Database, DatabaseError};
use messaging::inbox::claim_batch;
use messaging::{PRUNE_BATCH_ROWS, PRUNE_ROUND_BATCHES, Pruner};
use uuid::Uuid;

use crate::support::{INBOX, TestMigrator, count, execute, soon};

async fn claim(db: &Database, ids: Vec<Uuid>) -> HashSet<Uuid> {
    db.transaction("claim", move |tx| Box::pin(async move { Ok::<_, DatabaseError>(claim_batch(tx, INBOX, &ids).await?) }))
        .await
        .unwrap()
}

fn ids(count: usize) -> Vec<Uuid> {
    (0..count).map(|_| Uuid::now_v7()).collect()
}

on_both!(TestMigrator;
    async fn a_message_is_new_once_also_within_one_batch(db: &TestDatabase) {
        let ids = ids(3);
        assert_eq!(claim(db, vec![]).await, HashSet::new());
        assert_eq!(claim(db, vec![ids[1], ids[0], ids[1]]).await, HashSet::from([ids[0], ids[1]]));
        assert_eq!(claim(db, vec![ids[2], ids[1], ids[2]]).await, HashSet::from([ids[2]]));
        assert_eq!(claim(db, ids).await, HashSet::new());
    }

    async fn a_claim_does_not_outlive_its_rollback(db: &TestDatabase) {
        let claimed = ids(2);
        let ids = claimed.clone();
        let rolled_back = db
            .transaction("claim", move |tx| {
                Box::pin(async move {
                    claim_batch(tx, INBOX, &ids).await?;
                    Err::<(), _>(DatabaseError::TimedOut { what: "test", after: Duration::ZERO })
                })
            })
            .await;
        assert!(rolled_back.is_err());
        assert_eq!(claim(db, claimed.clone()).await, claimed.into_iter().collect());
    }

    async fn overlapping_batches_neither_deadlock_nor_share_a_claim(db: &TestDatabase) {
        // So many that the statements overlap.
        let all = ids(4_000);
        let claiming: Vec<_> = (0..8)
            .map(|n| {
                // Each in another order.
                let mut ids = all.clone();
                ids.rotate_left(n * 500);
                if n % 2 == 1 {
                    ids.reverse();
                }
                let db = (*db).clone();
                tokio::spawn(async move { claim(&db, ids).await })
            })
            .collect();
        let mut claims = Vec::new();
        for claiming in claiming {
            claims.extend(soon("claiming", claiming).await.unwrap());
        }
        assert_eq!(claims.len(), all.len());
        assert_eq!(claims.into_iter().collect::<HashSet<_>>(), all.into_iter().collect());
    }

    async fn pruning_forgets_only_old_claims_and_ends_in_bounded_time(db: &TestDatabase) {
        const BOUND: usize = PRUNE_BATCH_ROWS * PRUNE_ROUND_BATCHES;
        claim(db, ids(BOUND + 7)).await;
        execute(db, "UPDATE inbox_test SET received_at_ms = 5").await;
        let young = ids(2);
        claim(db, young.clone()).await;
        let pruner = Pruner::new((*db).clone(), INBOX, Duration::from_secs(3600));
        let round = pruner.round().await.unwrap();
        assert_eq!((round.rows as usize, round.cut_short), (BOUND, true));
        let round = pruner.round().await.unwrap();
        assert_eq!((round.rows, round.cut_short), (7, false));
        assert_eq!(count(db, "inbox_test").await, 2);
        assert_eq!(claim(db, young).await, HashSet::new());
    }
);

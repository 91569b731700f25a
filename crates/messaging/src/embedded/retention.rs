//! Removes old records that everybody is done with.

use std::time::Duration;

use database::{DatabaseError, now_ms_sql};
use sea_orm::{ConnectionTrait as _, DatabaseTransaction, DbBackend, DbErr, Statement};

use super::log::{Log, get, query, storage};
use crate::broker::{BrokerError, TopicPartition};
use crate::sql::{bigint, millis};

/// Records looked at per partition and round, in one transaction for all partitions; publishers wait meanwhile.
const LOOK_AT_RECORDS: usize = 200;

/// One bounded round. Removes records older than `retention` that every group which stored an offset for their
/// partition is done with; a partition that no group has read keeps everything. The last record of a partition stays,
/// because the next offset follows from it. Answers whether there is probably more.
pub(super) async fn prune(log: &Log, retention: Duration) -> Result<bool, BrokerError> {
    let sql = "SELECT topic, partition, MIN(next_offset) FROM log_offsets GROUP BY topic, partition";
    let mut done = Vec::new();
    for row in query(&log.db, sql, []).await? {
        let partition = TopicPartition { topic: get(&row, 0)?, partition: get(&row, 1)? };
        let last = log.topic(&partition.topic)?.head(partition.partition) - 1;
        done.push((get::<i64>(&row, 2)?.min(last), partition));
    }
    let pruning = log.db.transaction("prune log", move |tx| {
        Box::pin(async move {
            let mut more = false;
            for (below, partition) in &done {
                more |= prune_batch(tx, partition, *below, retention).await? == LOOK_AT_RECORDS as u64;
            }
            Ok::<_, DatabaseError>(more)
        })
    });
    pruning.await.map_err(storage)
}

/// Looks at the first records of a partition only, since those behind them are younger.
async fn prune_batch(
    tx: &DatabaseTransaction,
    partition: &TopicPartition,
    below: i64,
    retention: Duration,
) -> Result<u64, DbErr> {
    let now = now_ms_sql(DbBackend::Sqlite);
    let sql = format!(
        r#"DELETE FROM log_records WHERE rowid IN (
             SELECT row FROM (
               SELECT rowid AS row, appended_at_ms FROM log_records
               WHERE topic = $1 AND partition = $2 AND "offset" < $3 ORDER BY "offset" LIMIT $4
             ) WHERE appended_at_ms < {now} - $5
           )"#
    );
    let values = [
        partition.topic.as_str().into(),
        partition.partition.into(),
        below.into(),
        bigint(LOOK_AT_RECORDS),
        millis(retention).into(),
    ];
    let removed = tx.execute_raw(Statement::from_sql_and_values(DbBackend::Sqlite, sql, values)).await?;
    Ok(removed.rows_affected())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::{EmbeddedBroker, EmbeddedOptions};
    use crate::{Broker as _, Headers, Record, TopicSpec};
    use database::Database;
    use migrations::BrokerLogMigrator;

    const OLD: &str = "UPDATE log_records SET appended_at_ms = 5";
    const HOUR: Duration = Duration::from_secs(3600);

    async fn publish(broker: &EmbeddedBroker, count: usize) {
        let record = |_| Record { topic: "t".to_owned(), key: "key".to_owned(), headers: Headers::new(), payload: "x".into() };
        for answer in broker.publish(&(0..count).map(record).collect::<Vec<_>>()).await {
            answer.unwrap();
        }
    }

    async fn execute(db: &Database, sql: &'static str) {
        let run =
            db.transaction("test", move |tx| Box::pin(async move { Ok::<_, DatabaseError>(tx.execute_unprepared(sql).await?) }));
        run.await.unwrap();
    }

    async fn offsets(db: &Database) -> Vec<i64> {
        let rows = query(db, r#"SELECT "offset" FROM log_records ORDER BY 1"#, []).await.unwrap();
        rows.iter().map(|row| get(row, 0).unwrap()).collect()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn only_old_records_that_every_group_is_done_with_are_removed() {
        let db = database::testing::sqlite::<BrokerLogMigrator>().await;
        let broker = EmbeddedBroker::open((*db).clone(), EmbeddedOptions::default()).await.unwrap();
        broker.ensure_topics(&[TopicSpec { partitions: 1, ..TopicSpec::new("t") }]).await.unwrap();
        publish(&broker, LOOK_AT_RECORDS + 10).await;
        execute(&db, OLD).await;
        let everything = offsets(&db).await;
        prune(&broker.log, HOUR).await.unwrap();
        assert_eq!(offsets(&db).await, everything, "nobody has read it");

        for group in ["fast", "slow"] {
            let mut consumer = broker.consumer(group, &["t".to_owned()]).await.unwrap();
            let batch = consumer.next_batch(1_000).await.unwrap();
            let done = if group == "fast" { batch.deliveries.len() } else { LOOK_AT_RECORDS + 5 };
            consumer.store(&batch, done).await.unwrap();
            consumer.close().await.unwrap();
        }
        assert!(prune(&broker.log, HOUR).await.unwrap(), "there is more");
        assert!(!prune(&broker.log, HOUR).await.unwrap());
        assert_eq!(offsets(&db).await, everything[LOOK_AT_RECORDS + 5..], "the slow group still needs them");

        broker.seek_group("slow", "t", crate::embedded::Seek::End).await.unwrap();
        publish(&broker, 1).await;
        prune(&broker.log, HOUR).await.unwrap();
        let kept = offsets(&db).await;
        assert_eq!(kept, [everything.len() as i64], "what is young stays");
        execute(&db, OLD).await;
        broker.seek_group("slow", "t", crate::embedded::Seek::End).await.unwrap();
        broker.seek_group("fast", "t", crate::embedded::Seek::End).await.unwrap();
        prune(&broker.log, HOUR).await.unwrap();
        assert_eq!(offsets(&db).await, kept, "the last one stays, however old");
        broker.close().await.unwrap();

        let broker = EmbeddedBroker::open((*db).clone(), EmbeddedOptions::default()).await.unwrap();
        publish(&broker, 1).await;
        assert_eq!(offsets(&db).await, [kept[0], kept[0] + 1], "offsets go on");
    }
}

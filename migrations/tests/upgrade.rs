//! Upgrading a database that holds something loses nothing, and what guarded it before guards it afterwards.

use database::{Database, DatabaseError, testing::on_both};
use migrations::PaymentsMigrator;
use sea_orm::{ConnectionTrait as _, DbBackend, Statement};
use sea_orm_migration::{MigrationTrait, MigratorTrait};

/// Payments Service's database before two of its indexes went.
struct WithMoreIndexes;

#[async_trait::async_trait]
impl MigratorTrait for WithMoreIndexes {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        PaymentsMigrator::migrations().into_iter().take(3).collect()
    }
}

async fn execute(db: &Database, sql: &'static str) -> Result<(), DatabaseError> {
    db.transaction("test", move |tx| {
        Box::pin(async move {
            tx.execute_unprepared(sql).await?;
            Ok::<_, DatabaseError>(())
        })
    })
    .await
}

on_both!(WithMoreIndexes;
    async fn payments_outlive_the_loss_of_their_indexes_and_stay_permanent(db: &TestDatabase) {
        let insert = match db.backend() {
            DbBackend::Postgres => "INSERT INTO payments VALUES ('00000000-0000-0000-0000-000000000001', 'ada', 200, 'EUR', 'PAID', NULL,
                '00000000-0000-0000-0000-000000000002', '00000000-0000-0000-0000-000000000003', 4)",
            _ => "INSERT INTO payments VALUES (X'00000000000000000000000000000001', 'ada', 200, 'EUR', 'PAID', NULL,
                X'00000000000000000000000000000002', X'00000000000000000000000000000003', 4)",
        };
        execute(db, insert).await.unwrap();
        db.migrate::<PaymentsMigrator>().await.unwrap();

        let sql = "SELECT COUNT(*) FROM payments WHERE user_id = 'ada' AND amount_minor = 200 AND outcome = 'PAID' AND rejection_reason IS NULL
            AND entry_id IS NOT NULL AND decided_at_ms = 4";
        let kept = db.reader().query_one_raw(Statement::from_string(db.backend(), sql)).await.unwrap().unwrap();
        assert_eq!(kept.try_get_by_index::<i64>(0).unwrap(), 1);
        assert!(execute(db, insert).await.is_err(), "one decision per order");
        assert!(execute(db, "UPDATE payments SET amount_minor = 1").await.is_err());
        assert!(execute(db, "DELETE FROM payments").await.is_err());
    }
);

//! Set-based statements, and the classification of constraint errors, on both databases.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod support;

use database::array::Columns;
use database::testing::on_both;
use database::{DatabaseError, Writes, constraint_name, is_check_violation, is_overtaken, is_transient, is_unique_violation};
use sea_orm::{ConnectionTrait, DbBackend, DbErr, Statement};
use support::{Migrator, insert, insert_in_transaction};
use uuid::Uuid;

#[derive(Clone, Debug, PartialEq)]
struct Row {
    id: Uuid,
    amount: i64,
    small: i32,
    text: String,
    bytes: Vec<u8>,
    maybe_id: Option<Uuid>,
    maybe_bytes: Option<Vec<u8>>,
    maybe_text: Option<String>,
}

fn columns(backend: sea_orm::DbBackend, rows: &[Row]) -> Columns<'_, Row> {
    Columns::new(backend, rows)
        .uuid("id", |row| row.id)
        .bigint("amount", |row| row.amount)
        .int("small", |row| row.small)
        .text("body", |row| row.text.as_str())
        .bytes("bytes", |row| row.bytes.clone())
        .opt_uuid("maybe_id", |row| row.maybe_id)
        .opt_bytes("maybe_bytes", |row| row.maybe_bytes.clone())
        .opt_text("maybe_text", |row| row.maybe_text.clone())
}

fn rows() -> Vec<Row> {
    let mut rows: Vec<_> = (0_u8..250)
        .map(|n| (n, i64::from(n)))
        .map(|(byte, n)| Row {
            id: Uuid::now_v7(),
            amount: n * 1_000_000_007 - 5,
            small: i32::from(byte) - 125,
            text: format!("Zeile {n}: “naïve” 'quotes' \"double\" \\ {{}} $1 ?1 \u{1F600}"),
            bytes: vec![0, 255, byte],
            maybe_id: (n % 3 == 0).then(Uuid::max),
            maybe_bytes: (n % 5 == 0).then(|| vec![byte, 0]),
            maybe_text: (n % 7 == 0).then(|| format!("{n}")),
        })
        .collect();
    rows[0].amount = i64::MIN;
    rows[1].amount = i64::MAX;
    rows[2].text = String::new();
    rows
}

/// Inserts those of `ids` that are new, deletes 7, and inserts 100 with the given amount.
async fn write(db: &database::Database, ids: &'static [i64], amount: i64) -> Result<Vec<u64>, DatabaseError> {
    db.transaction("write", move |tx| {
        Box::pin(async move {
            let backend = tx.get_database_backend();
            let mut writes = Writes::new(backend);
            let mut rows = Columns::new(backend, ids).bigint("id", |id| *id);
            let one = rows.param(1_i64);
            writes.add(rows.statement(|rows| {
                format!("INSERT INTO entries (id, amount) SELECT r.id, {one} FROM {rows} AS r WHERE true ON CONFLICT DO NOTHING")
            }));
            writes.add(Statement::from_sql_and_values(backend, "DELETE FROM entries WHERE id = $1", [7.into()]));
            let sql = "INSERT INTO entries (id, amount) VALUES (100 + $2, $1)";
            writes.add(Statement::from_sql_and_values(backend, sql, [amount.into(), amount.into()]));
            Ok(writes.run_in_tx(tx).await?.counts)
        })
    })
    .await
}

on_both!(Migrator;
    async fn every_column_type_comes_back_as_it_went_in(db: &TestDatabase) {
        let rows = rows();
        let mut table = columns(db.backend(), &rows);
        let seven = table.param(7_i64);
        let statement = table.statement(|table| format!(
            "SELECT r.*, CAST({seven} AS BIGINT) AS seven FROM {table} AS r ORDER BY ord"));
        let found = db.reader().query_all_raw(statement).await.unwrap();
        assert_eq!(found.len(), rows.len());
        for (index, (found, expected)) in found.iter().zip(&rows).enumerate() {
            let row = Row {
                id: found.try_get("", "id").unwrap(),
                amount: found.try_get("", "amount").unwrap(),
                small: found.try_get("", "small").unwrap(),
                text: found.try_get("", "body").unwrap(),
                bytes: found.try_get("", "bytes").unwrap(),
                maybe_id: found.try_get("", "maybe_id").unwrap(),
                maybe_bytes: found.try_get("", "maybe_bytes").unwrap(),
                maybe_text: found.try_get("", "maybe_text").unwrap(),
            };
            assert_eq!(&row, expected);
            assert_eq!(found.try_get::<i64>("", "ord").unwrap(), i64::try_from(index).unwrap() + 1);
            assert_eq!(found.try_get::<i64>("", "seven").unwrap(), 7);
        }
    }

    async fn what_stands_for_null_is_null_on_both(db: &TestDatabase) {
        let rows = [(Some(Uuid::nil()), Some(""), Some(Vec::<u8>::new())), (None, None, None)];
        let table = Columns::new(db.backend(), &rows).opt_uuid("id", |row| row.0).opt_text("body", |row| row.1).opt_bytes("bytes", |row| row.2.clone());
        let statement = table.statement(|table| format!("SELECT r.* FROM {table} AS r WHERE id IS NULL AND body IS NULL AND bytes IS NULL"));
        assert_eq!(db.reader().query_all_raw(statement).await.unwrap().len(), 2);
    }

    async fn writes_over_the_same_rows_see_each_other_only_by_name(db: &TestDatabase) {
        insert_in_transaction(db, 2).await.unwrap();
        let answered = db.transaction("write", |tx| Box::pin(async move {
            let backend = tx.get_database_backend();
            let ids = [(1_i64, 10_i64), (2, 20), (3, 30)];
            let mut writes = Writes::over("given", Columns::new(backend, &ids).bigint("id", |row| row.0).bigint("amount", |row| row.1));
            writes.answer("stored", "INSERT INTO entries (id, amount) SELECT id, amount FROM given WHERE true ON CONFLICT DO NOTHING RETURNING id".to_owned());
            let new = match backend {
                sea_orm::DbBackend::Postgres => "SELECT * FROM given WHERE id IN (SELECT id FROM stored)",
                _ => "SELECT * FROM given WHERE amount IN (SELECT amount FROM entries)",
            };
            writes.table("new", new);
            writes.add_sql("INSERT INTO entries (id, amount) SELECT id + 100, amount FROM new".to_owned());
            writes.add(Statement::from_sql_and_values(backend, "INSERT INTO entries (id, amount) SELECT id + 200, amount + $1 FROM new", [5_i64.into()]));
            let written = writes.run_in_tx(tx).await?;
            assert_eq!(written.counts, [2, 2]);
            written.rows.iter().map(|row| Ok(row.try_get("", "id")?)).collect::<Result<Vec<i64>, DatabaseError>>()
        })).await.unwrap();
        assert_eq!(answered, [1, 3]);
        let found = db.reader().query_all_raw(Statement::from_string(db.backend(), "SELECT id, amount FROM entries ORDER BY id")).await.unwrap();
        let found: Vec<(i64, i64)> = found.iter().map(|row| (row.try_get("", "id").unwrap(), row.try_get("", "amount").unwrap())).collect();
        assert_eq!(found.iter().filter(|(id, _)| *id != 2).copied().collect::<Vec<_>>(), [(1, 10), (3, 30), (101, 10), (103, 30), (201, 15), (203, 35)]);
    }

    async fn writes_are_all_applied_or_none_if_one_of_them_has_not_as_many_rows_as_it_must(db: &TestDatabase) {
        insert_in_transaction(db, 2).await.unwrap();
        insert_in_transaction(db, 3).await.unwrap();
        let backend = db.backend();
        let writes = move |exactly| {
            let mut writes = Writes::new(backend);
            let sql = |sql| Statement::from_sql_and_values(backend, sql, [20_i64.into()]);
            writes.add(sql("INSERT INTO entries (id, amount) VALUES ($1, 1)"));
            writes.add_exactly(exactly, sql("UPDATE entries SET amount = $1 WHERE id IN (2, 3)"));
            writes.add(sql("INSERT INTO entries (id, amount) VALUES ($1 + 1, 1)"));
            writes
        };
        let in_tx = |exactly| db.transaction("in a transaction", move |tx| Box::pin(async move {
            Ok::<_, DatabaseError>(writes(exactly).run_in_tx(tx).await?)
        }));
        for other in [0, 1, 3] {
            for failed in [writes(other).run(db, "of their own").await, in_tx(other).await] {
                let error = failed.unwrap_err();
                assert!(matches!(&error, DatabaseError::Db(error) if is_overtaken(error)), "{error:?}");
                assert!(error.is_transient(), "{error:?}");
            }
        }
        let sql = "SELECT id FROM entries WHERE id > 3 OR amount = 20";
        assert!(db.reader().query_all_raw(Statement::from_string(backend, sql)).await.unwrap().is_empty());
        assert_eq!(writes(2).run(db, "of their own").await.unwrap().counts, [1, 2, 1]);
    }

    async fn an_answer_of_another_number_of_rows_ends_all_writes(db: &TestDatabase) {
        insert_in_transaction(db, 2).await.unwrap();
        insert_in_transaction(db, 3).await.unwrap();
        let backend = db.backend();
        // As many as there are of these ids are changed and answered.
        let writes = move |exactly, ids: &str| {
            let mut writes = Writes::new(backend);
            writes.add(Statement::from_sql_and_values(backend, "INSERT INTO entries (id, amount) VALUES ($1, 1)", [20_i64.into()]));
            writes.answer_exactly(exactly, "changed", format!("UPDATE entries SET amount = amount + 1 WHERE id IN ({ids}) RETURNING id, amount"));
            writes.add_exactly(1, Statement::from_sql_and_values(backend, "INSERT INTO entries (id, amount) VALUES ($1, 1)", [21_i64.into()]));
            writes
        };
        for (exactly, ids) in [(1, "8, 9"), (2, "2, 9"), (1, "2, 3"), (3, "2, 3")] {
            let error = writes(exactly, ids).run(db, "of their own").await.unwrap_err();
            assert!(matches!(&error, DatabaseError::Db(error) if is_overtaken(error)), "{error:?}");
        }
        assert_eq!(support::count(db).await, 2);
        let written = writes(2, "2, 3").run(db, "of their own").await.unwrap();
        assert_eq!(written.counts, [1, 1]);
        let mut ids: Vec<i64> = written.rows.iter().map(|row| row.try_get("", "id").unwrap()).collect();
        ids.sort_unstable();
        assert_eq!(ids, [2, 3]);
    }

    async fn the_text_does_not_vary_with_the_number_of_rows_and_none_is_fine(db: &TestDatabase) {
        let rows = rows();
        let text = |rows| columns(db.backend(), rows).statement(|table| format!("SELECT id FROM {table} AS r"));
        let none = text(&rows[..0]);
        assert_eq!(none.sql, text(&rows).sql);
        assert!(db.reader().query_all_raw(none).await.unwrap().is_empty());
    }

    async fn one_text_inserts_or_skips_on_both(db: &TestDatabase) {
        insert_in_transaction(db, 2).await.unwrap();
        let backend = db.backend();
        let inserted = db.transaction("insert batch", move |tx| Box::pin(async move {
            let ids = [1_i64, 2, 3, 3];
            let mut table = Columns::new(backend, &ids).bigint("id", |id| *id);
            let amount = table.param(5_i64);
            let statement = table.statement(|table| format!(
                "INSERT INTO entries (id, amount) SELECT r.id, {amount} FROM {table} AS r WHERE true
                 ON CONFLICT DO NOTHING RETURNING id"));
            let rows = tx.query_all_raw(statement).await?;
            rows.iter().map(|row| Ok(row.try_get("", "id")?)).collect::<Result<Vec<i64>, DatabaseError>>()
        })).await.unwrap();
        assert_eq!(inserted, [1, 3]);
    }

    async fn writes_run_together_tell_what_each_has_written(db: &TestDatabase) {
        insert_in_transaction(db, 2).await.unwrap();
        insert_in_transaction(db, 7).await.unwrap();
        assert_eq!(write(db, &[1, 2, 3], 3).await.unwrap(), [2, 1, 1]);
        assert_eq!(write(db, &[], 1).await.unwrap(), [0, 0, 1], "nothing to insert, and 7 is gone");
    }

    async fn of_writes_that_run_together_none_stays_when_one_fails(db: &TestDatabase) {
        insert_in_transaction(db, 7).await.unwrap();
        let error = write(db, &[1, 2], -1).await.unwrap_err();
        assert!(matches!(&error, DatabaseError::Db(error) if is_check_violation(error)), "{error}");
        assert_eq!(support::count(db).await, 1, "7 is not deleted, 1 and 2 are not inserted");
    }

    async fn constraint_errors_are_told_apart_and_are_not_transient(db: &TestDatabase) {
        insert_in_transaction(db, 1).await.unwrap();
        let failing = async |work: &'static str| -> DbErr {
            let result = db.transaction("fails", move |tx| Box::pin(async move {
                tx.execute_unprepared(work).await?;
                Ok::<_, DatabaseError>(())
            })).await;
            let Err(DatabaseError::Db(error)) = result else { panic!("{result:?}") };
            assert!(!is_transient(&error), "{error:?}");
            error
        };
        let unique = failing("INSERT INTO entries (id, amount) VALUES (1, 1)").await;
        assert!(is_unique_violation(&unique) && !is_check_violation(&unique));
        assert!(["entries_pkey", "entries.id"].contains(&constraint_name(&unique).unwrap()), "{unique:?}");

        let check = failing("INSERT INTO entries (id, amount) VALUES (2, 0)").await;
        assert!(is_check_violation(&check) && !is_unique_violation(&check));
        assert_eq!(constraint_name(&check), Some("amount_is_positive"));

        let syntax = failing("INSERT INTO nowhere VALUES (1)").await;
        assert!(!is_check_violation(&syntax) && !is_unique_violation(&syntax));
        assert_eq!(constraint_name(&syntax), None);
    }

    async fn an_entity_of_the_orm_reads_through_the_reader(db: &TestDatabase) {
        use sea_orm::entity::prelude::*;
        use sea_orm::QueryOrder;
        #[allow(unreachable_pub, reason = "as the derive wants it")]
        mod entry {
            use sea_orm::entity::prelude::*;
            #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
            #[sea_orm(table_name = "entries")]
            pub struct Model {
                #[sea_orm(primary_key, auto_increment = false)]
                pub id: i64,
                pub amount: i64,
            }
            #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
            pub enum Relation {}
            impl ActiveModelBehavior for ActiveModel {}
        }
        db.transaction("insert", |tx| Box::pin(async move {
            insert(tx, 1).await?;
            insert(tx, 2).await?;
            Ok::<_, DatabaseError>(())
        })).await.unwrap();
        let found = entry::Entity::find().filter(entry::Column::Id.gt(1)).order_by_asc(entry::Column::Id)
            .all(db.reader()).await.unwrap();
        assert_eq!(found, [entry::Model { id: 2, amount: 1 }]);
    }
);

/// Adds 10 to the amounts of these entries, and an entry for each, if all of them are there.
fn only_if_all_are_there(ids: &[i64], exactly: usize) -> Writes {
    let backend = DbBackend::Postgres;
    let mut writes = Writes::over("given", Columns::new(backend, ids).bigint("id", |id| *id));
    let wanted = Columns::new(backend, ids).bigint("id", |id| *id);
    writes.front("wanted", wanted.statement(|rows| format!("SELECT * FROM {rows} AS r")));
    writes.only_if(
        "complete",
        "SELECT NOT EXISTS (SELECT 1 FROM wanted AS w WHERE NOT EXISTS (SELECT 1 FROM entries AS e WHERE e.id = w.id)) AS holds",
    );
    let update = "UPDATE entries SET amount = entries.amount + $1 FROM wanted AS w
                  WHERE entries.id = w.id AND (SELECT holds FROM complete) RETURNING entries.id, entries.amount";
    writes.name_exactly(exactly, "changed", Statement::from_sql_and_values(backend, update, [10_i64.into()]));
    writes.add_sql("INSERT INTO entries (id, amount) SELECT id + 100, amount FROM changed".to_owned());
    writes
        .add_exactly(exactly, Statement::from_string(backend, "INSERT INTO entries (id, amount) SELECT id + 200, 1 FROM given"));
    writes
}

#[tokio::test]
async fn nothing_is_written_and_nothing_fails_where_the_condition_does_not_hold() {
    let Some(db) = database::testing::postgres::<Migrator>().await else { return };
    insert_in_transaction(&db, 2).await.unwrap();
    insert_in_transaction(&db, 3).await.unwrap();
    let written = only_if_all_are_there(&[2, 9], 2).run(&db, "incomplete").await.unwrap();
    assert!(!written.holds);
    assert_eq!(written.counts, [0, 0, 0]);
    assert_eq!(support::count(&db).await, 2);

    let error = only_if_all_are_there(&[2, 3], 3).run(&db, "another number").await.unwrap_err();
    assert!(matches!(&error, DatabaseError::Db(error) if is_overtaken(error)), "{error:?}");
    assert_eq!(support::count(&db).await, 2, "the condition excuses only those that write nothing");

    let written = only_if_all_are_there(&[2, 3], 2).run(&db, "complete").await.unwrap();
    assert!(written.holds);
    assert_eq!(written.counts, [2, 2, 2]);
    assert_eq!(support::count(&db).await, 6);
}

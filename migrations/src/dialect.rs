//! What Postgres and SQLite call differently.

use sea_orm::{ConnectionTrait as _, DbBackend, DbErr};
use sea_orm_migration::SchemaManager;

/// Runs one or more statements after filling in the database's own names of types.
///
/// Uuids are 16 bytes in SQLite, where tables are `STRICT` so that no column takes a value of a foreign type.
pub(crate) async fn execute(manager: &SchemaManager<'_>, sql: &str) -> Result<(), DbErr> {
    let sqlite = manager.get_database_backend() == DbBackend::Sqlite;
    let names: [(&str, &str); 4] = if sqlite {
        [("{uuid}", "BLOB"), ("{bigint}", "INTEGER"), ("{bytes}", "BLOB"), ("{strict}", "STRICT")]
    } else {
        [("{uuid}", "uuid"), ("{bigint}", "bigint"), ("{bytes}", "bytea"), ("{strict}", "")]
    };
    let sql = names.iter().fold(sql.to_owned(), |sql, (placeholder, name)| sql.replace(placeholder, name));
    manager.get_connection().execute_unprepared(&sql).await.map(drop)
}

/// Refuses `UPDATE` and `DELETE` on a table whose rows are permanent.
pub(crate) async fn make_immutable(manager: &SchemaManager<'_>, table: &str) -> Result<(), DbErr> {
    let sql = if manager.get_database_backend() == DbBackend::Sqlite {
        ["UPDATE", "DELETE"]
            .map(|action| {
                format!(
                    "CREATE TRIGGER {table}_no_{action} BEFORE {action} ON {table}
                     BEGIN SELECT RAISE(ABORT, 'rows of {table} are permanent'); END;"
                )
            })
            .concat()
    } else {
        format!(
            "CREATE FUNCTION {table}_is_immutable() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN RAISE EXCEPTION 'rows of {table} are permanent' USING ERRCODE = 'integrity_constraint_violation'; END $$;
             CREATE TRIGGER {table}_is_immutable BEFORE UPDATE OR DELETE ON {table}
             FOR EACH ROW EXECUTE FUNCTION {table}_is_immutable();"
        )
    };
    manager.get_connection().execute_unprepared(&sql).await.map(drop)
}

//! Several set-based writes of a transaction in one round trip.
//!
//! With small batches a statement's fixed part (the way to the server and back, binding, starting the executor) costs as much as its rows,
//! and with large ones taking arrays apart does. So [`Writes`] makes one PostgreSQL statement of what a transaction writes at its end, a
//! data-modifying CTE each, which may all select from the same rows ([`Writes::over`]); on SQLite, which has no such CTEs and no way to go,
//! they run one after the other. The writes are the same text for both.
//!
//! Because all parts of one PostgreSQL statement see the same snapshot, **no write may read what another one of the same [`Writes`] has
//! written** (on SQLite, where it would see it, neither, but for the rows of an answer), and no two may write the same row. What one of them has to learn from another is named ([`Writes::name`]). They take their
//! locks in the order in which they were added.
//!
//! What was read before, without locks, may have changed meanwhile. Who reads, decides and then writes says how many rows each write must
//! have ([`Writes::add_exactly`]): another number ends all of them.

use sea_orm::{ConnectionTrait, DbBackend, DbErr, QueryResult, Statement, Value, sqlx::error::DatabaseError as DriverError};

use crate::{
    Database, DatabaseError,
    array::Columns,
    error::{driver_error, overtaken},
};

/// PostgreSQL's `division_by_zero`. Nothing else divides.
const DIVISION_BY_ZERO: &str = "22012";

/// The column of [`Written::holds`].
const HOLDS: &str = "holds";

/// What an `INSERT` does with a row whose unique key is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnConflict {
    /// Leaves it out. For each row PostgreSQL then looks first, and inserts it provisionally.
    DoNothing,
    /// Fails ([`DatabaseError::is_overtaken`]): for rows that are almost certainly new.
    Fail,
}

impl OnConflict {
    /// The clause at the end of the `INSERT`; `target` is empty, or the columns in parentheses.
    #[must_use]
    pub fn clause(self, target: &str) -> String {
        match self {
            Self::DoNothing => format!("ON CONFLICT {target} DO NOTHING"),
            Self::Fail => String::new(),
        }
    }
}

/// Writes to be run together, in the order in which they are added.
pub struct Writes {
    backend: DbBackend,
    /// PostgreSQL: what the condition rests on, in front of everything.
    front: Vec<(&'static str, Statement)>,
    /// The last table in front: it says whether there are any rows.
    condition: Option<&'static str>,
    /// In front of all parts on PostgreSQL, of each part on SQLite.
    over: Option<Over>,
    /// After it.
    tables: Vec<String>,
    parts: Vec<Part>,
}

/// The rows that all parts may select from.
struct Over {
    name: String,
    table: String,
    values: Vec<Value>,
}

struct Part {
    statement: Statement,
    kind: Kind,
    /// How many rows it has to write.
    exactly: Option<u64>,
}

#[derive(Clone, Copy)]
enum Kind {
    /// Answers how many rows it has written.
    Counted,
    /// Referred to by a later part.
    Named(&'static str),
    /// Answers the number that it returns, and is referred to by a later part.
    Number(&'static str),
    /// Its rows are the answer.
    Answer(&'static str),
}

/// What became of [`Writes`].
#[derive(Debug)]
pub struct Written {
    /// How many rows each part has written, or the number that it has returned, in their order; without those that only have a name or are
    /// the answer. Empty when there is an answer and it has no rows.
    pub counts: Vec<u64>,
    /// The rows of [`Writes::answer`]. Other columns may come with them.
    pub rows: Vec<QueryResult>,
    /// What [`Writes::only_if`] has found; otherwise true.
    pub holds: bool,
}

impl Default for Written {
    fn default() -> Self {
        Self { counts: Vec::new(), rows: Vec::new(), holds: true }
    }
}

impl Written {
    /// Of PostgreSQL's answer.
    fn read(rows: Vec<QueryResult>, counted: &[String], conditional: bool) -> Result<Self, DbErr> {
        let count = |row: &QueryResult, name: &String| Ok(row.try_get::<i64>("", name)?.unsigned_abs());
        let counts = rows.first().map(|row| counted.iter().map(|name| count(row, name)).collect::<Result<_, DbErr>>());
        let holds = if conditional { rows.first().map(|row| row.try_get("", HOLDS)).transpose()? } else { None };
        Ok(Self { counts: counts.transpose()?.unwrap_or_default(), rows, holds: holds.unwrap_or(true) })
    }
}

impl Part {
    fn new(statement: Statement, kind: Kind) -> Self {
        Self { statement, kind, exactly: None }
    }

    /// The column of its count on PostgreSQL.
    fn counted_as(&self, index: usize) -> Option<String> {
        let named_exactly = matches!(self.kind, Kind::Named(_)) && self.exactly.is_some();
        (named_exactly || matches!(self.kind, Kind::Counted | Kind::Number(_))).then(|| format!("w{index}"))
    }
}

impl Writes {
    /// None so far.
    #[must_use]
    pub fn new(backend: DbBackend) -> Self {
        Self { backend, front: Vec::new(), condition: None, over: None, tables: Vec::new(), parts: Vec::new() }
    }

    /// None so far; all of them may select from the table `name`, whose rows are sent once.
    #[must_use]
    pub fn over<R>(name: &str, rows: Columns<'_, R>) -> Self {
        let backend = rows.backend();
        let (table, values) = rows.into_table();
        Self { over: Some(Over { name: name.to_owned(), table, values }), ..Self::new(backend) }
    }

    /// For building the statements.
    #[must_use]
    pub fn backend(&self) -> DbBackend {
        self.backend
    }

    /// Another table that later parts may select from: what the query finds in earlier tables and, on PostgreSQL, earlier parts with a name.
    pub fn table(&mut self, name: &'static str, query: &str) {
        match self.backend {
            DbBackend::Postgres => self.name(name, Statement::from_string(self.backend, query)),
            _ => self.tables.push(format!("{name} AS ({query})")),
        }
    }

    /// Adds an `INSERT`, `UPDATE` or `DELETE` without `RETURNING`, whose placeholders are `$1`, `$2`, …
    pub fn add(&mut self, statement: Statement) {
        self.parts.push(Part::new(statement, Kind::Counted));
    }

    /// As [`Writes::add`], of a statement that writes so many rows if everything still stands as it was read. If it writes another number, none of
    /// these writes is applied, and [`is_overtaken`](crate::is_overtaken) tells that from other errors. Not together with [`Writes::answer`],
    /// which may have no rows.
    pub fn add_exactly(&mut self, rows: usize, statement: Statement) {
        self.add(statement);
        self.last_exactly(rows);
    }

    /// As [`Writes::add`], without values of its own.
    pub fn add_sql(&mut self, sql: String) {
        self.add(Statement::from_string(self.backend, sql));
    }

    /// PostgreSQL only: adds a statement with `RETURNING`, whose rows a later one selects from `name`. It runs when that one does.
    pub fn name(&mut self, name: &'static str, statement: Statement) {
        debug_assert_eq!(self.backend, DbBackend::Postgres, "SQLite has no data-modifying CTE");
        self.parts.push(Part::new(statement, Kind::Named(name)));
    }

    /// [`Writes::name`] and [`Writes::add_exactly`] in one; it runs in its turn.
    pub fn name_exactly(&mut self, rows: usize, name: &'static str, statement: Statement) {
        self.name(name, statement);
        self.last_exactly(rows);
    }

    /// PostgreSQL only: a table in front of everything, for [`Writes::only_if`].
    pub fn front(&mut self, name: &'static str, statement: Statement) {
        self.front.push((name, statement));
    }

    /// PostgreSQL only: `query` answers in its one row and column `holds` whether there is anything to write: if not, [`Writes::over`] has no rows,
    /// and what must write some number of rows must write none. Parts that select from other tables name this one, too.
    pub fn only_if(&mut self, name: &'static str, query: &str) {
        self.front(name, Statement::from_string(self.backend, query));
        self.condition = Some(name);
    }

    /// Adds a statement that writes one row or none, and returns one number of it, as `number`: that is its count in [`Written::counts`], 0
    /// for none. On PostgreSQL later parts may select it from `name`.
    pub fn number(&mut self, name: &'static str, sql: String) {
        self.parts.push(Part::new(Statement::from_string(self.backend, sql), Kind::Number(name)));
    }

    /// Adds the one statement whose `RETURNING` rows are [`Written::rows`]. On PostgreSQL tables and later parts may select from `name`; on
    /// SQLite they find the rows where they were written.
    pub fn answer(&mut self, name: &'static str, sql: String) {
        self.parts.push(Part::new(Statement::from_string(self.backend, sql), Kind::Answer(name)));
    }

    /// [`Writes::answer`] and [`Writes::add_exactly`] in one: of at least one row.
    pub fn answer_exactly(&mut self, rows: usize, name: &'static str, sql: String) {
        debug_assert!(rows > 0, "on PostgreSQL an answer without rows is one row of NULLs");
        self.answer(name, sql);
        self.last_exactly(rows);
    }

    fn last_exactly(&mut self, rows: usize) {
        if let Some(part) = self.parts.last_mut() {
            part.exactly = Some(u64::try_from(rows).unwrap_or(u64::MAX));
        }
    }

    /// Runs them as a transaction of their own; `name` is for logs, metrics and errors. On PostgreSQL that is one round trip.
    ///
    /// # Errors
    /// [`DatabaseError::OutcomeUnknown`] when the connection is lost before the answer, on PostgreSQL at any time after they were sent.
    pub async fn run(self, database: &Database, name: &'static str) -> Result<Written, DatabaseError> {
        if self.backend == DbBackend::Postgres {
            let (counted, conditional) = (self.counted(), self.condition.is_some());
            let rows = database.statement(name, self.into_statement()).await.map_err(|error| match error {
                DatabaseError::Db(error) => DatabaseError::Db(overtaken_or(error)),
                error => error,
            })?;
            // They are applied by now, and no error may say otherwise.
            let unknown = |error: DbErr| DatabaseError::OutcomeUnknown { transaction: name, reason: error.to_string() };
            return Written::read(rows, &counted, conditional).map_err(unknown);
        }
        database.transaction(name, |tx| Box::pin(async move { Ok(self.run_in_tx(tx).await?) })).await
    }

    /// Runs them.
    ///
    /// # Errors
    /// What the database says; the transaction is then to be rolled back.
    pub async fn run_in_tx(self, tx: &impl ConnectionTrait) -> Result<Written, DbErr> {
        let mut written = Written::default();
        if self.parts.is_empty() {
            return Ok(written);
        }
        if self.backend == DbBackend::Postgres {
            let (counted, conditional) = (self.counted(), self.condition.is_some());
            return Written::read(tx.query_all_raw(self.into_statement()).await.map_err(overtaken_or)?, &counted, conditional);
        }
        for Part { statement, kind, exactly } in self.into_statements() {
            match kind {
                Kind::Answer(_) => {
                    written.rows = tx.query_all_raw(statement).await?;
                    if exactly.is_some_and(|exactly| written.rows.len() as u64 != exactly) {
                        return Err(overtaken());
                    }
                }
                Kind::Number(_) => {
                    let number = tx.query_one_raw(statement).await?.map(|row| row.try_get_by_index::<i64>(0)).transpose()?;
                    written.counts.push(number.unwrap_or_default().unsigned_abs());
                }
                Kind::Counted | Kind::Named(_) => {
                    let count = tx.execute_raw(statement).await?.rows_affected();
                    if exactly.is_some_and(|exactly| count != exactly) {
                        return Err(overtaken());
                    }
                    written.counts.push(count);
                }
            }
        }
        Ok(written)
    }

    /// PostgreSQL: the columns of the counts.
    fn counted(&self) -> Vec<String> {
        self.parts.iter().enumerate().filter_map(|(index, part)| part.counted_as(index)).collect()
    }

    /// SQLite: each with the tables in front of it, of which each part reads the columns that it needs.
    fn into_statements(self) -> impl Iterator<Item = Part> {
        let Self { backend, over, tables, parts, .. } = self;
        let (over, rows) = over.map(|Over { name, table, values }| (format!("{name} AS {table}"), values)).unzip();
        let tables: Vec<String> = over.into_iter().chain(tables).collect();
        let rows: Vec<Value> = rows.unwrap_or_default();
        parts.into_iter().map(move |Part { statement, kind, exactly }| {
            if tables.is_empty() {
                return Part { statement, kind, exactly };
            }
            let sql = format!("WITH {} {}", tables.join(", "), renumber(&statement.sql, rows.len()));
            let own = statement.values.into_iter().flat_map(|values| values.0);
            let values: Vec<Value> = rows.iter().cloned().chain(own).collect();
            Part { statement: Statement::from_sql_and_values(backend, sql, values), kind, exactly }
        })
    }

    /// PostgreSQL: what stands before the parts, and its values. All columns of the rows are read once.
    fn heads(&mut self) -> (Vec<String>, Vec<Value>) {
        let condition = self.condition.map(|name| format!("WHERE (SELECT holds FROM {name})")).unwrap_or_default();
        let over = self.over.take().map(|Over { name, table, values }| {
            (format!("{name} AS MATERIALIZED (SELECT * FROM {table} AS r {condition})"), values)
        });
        let (over, values) = over.unzip();
        let mut values: Vec<Value> = values.unwrap_or_default();
        let mut heads = Vec::new();
        for (name, statement) in self.front.drain(..) {
            heads.push(format!("{name} AS ({})", renumber(&statement.sql, values.len())));
            values.extend(statement.values.into_iter().flat_map(|values| values.0));
        }
        heads.extend(over);
        heads.append(&mut self.tables);
        (heads, values)
    }

    /// `WITH w0 AS (INSERT … RETURNING 1), cursor AS (…), w2 AS (…) SELECT (SELECT COUNT(*) FROM w0) AS w0, (SELECT COUNT(*) FROM w2) AS w2`:
    /// the counts are subqueries, which PostgreSQL answers one after the other, each by running its part to the end. An answer comes in front
    /// of them, `SELECT answer.*, (SELECT COUNT(*) FROM w1) AS w1 FROM answer`: asking for the counts is what runs the others in their order.
    /// Of an answer that must have so many rows these are counted in front of it: `… FROM (SELECT COUNT(*) … FROM answer) AS answered LEFT JOIN answer ON
    /// true`, which also is a row, and so asks for the counts, where there is no answer.
    fn into_statement(mut self) -> Statement {
        let may_be_empty = |part: &Part| matches!(part.kind, Kind::Answer(_)) && part.exactly.is_none();
        debug_assert!(
            !self.parts.iter().any(may_be_empty) || self.parts.iter().all(|part| part.exactly.is_none()),
            "an answer without rows would count nothing"
        );
        let (mut selected, mut from) = (Vec::new(), String::new());
        let condition = self.condition;
        let (mut ctes, mut values) = self.heads();
        selected.extend(condition.map(|name| format!("(SELECT holds FROM {name}) AS {HOLDS}")));
        for (index, part) in self.parts.into_iter().enumerate() {
            let count = part.counted_as(index).unwrap_or_default();
            let Part { statement, kind, exactly } = part;
            let sql = renumber(&statement.sql, values.len());
            values.extend(statement.values.into_iter().flat_map(|values| values.0));
            match kind {
                Kind::Named(name) => {
                    ctes.push(format!("{name} AS ({sql})"));
                    if let Some(exactly) = exactly {
                        let counted = counted_exactly(exactly, condition, &mut values);
                        selected.push(format!("(SELECT {counted} FROM {name}) AS {count}"));
                    }
                }
                Kind::Number(name) => {
                    ctes.push(format!("{name} AS ({sql})"));
                    selected.push(format!("COALESCE((SELECT number FROM {name}), 0) AS {count}"));
                }
                Kind::Answer(name) => {
                    ctes.push(format!("{name} AS ({sql})"));
                    selected.push(format!("{name}.*"));
                    from = match exactly {
                        None => format!(" FROM {name}"),
                        // Counted first, and also when there is nothing to count.
                        Some(exactly) => {
                            let counted = counted_exactly(exactly, condition, &mut values);
                            selected.push(format!("answered.rows AS {name}_rows"));
                            format!(" FROM (SELECT {counted} AS rows FROM {name}) AS answered LEFT JOIN {name} ON true")
                        }
                    };
                }
                Kind::Counted => {
                    ctes.push(format!("{count} AS ({sql} RETURNING 1)"));
                    let counted =
                        exactly.map_or_else(|| "COUNT(*)".to_owned(), |exactly| counted_exactly(exactly, condition, &mut values));
                    selected.push(format!("(SELECT {counted} FROM {count}) AS {count}"));
                }
            }
        }
        let sql = format!("WITH {} SELECT {}{from}", ctes.join(", "), selected.join(", "));
        Statement::from_sql_and_values(DbBackend::Postgres, sql, values)
    }
}

/// Divided by zero if it is another number: an error is the one way to end a statement without its writes.
fn counted_exactly(exactly: u64, condition: Option<&str>, values: &mut Vec<Value>) -> String {
    values.push(i64::try_from(exactly).unwrap_or(i64::MAX).into());
    let expected = format!("${}", values.len());
    let expected = match condition {
        Some(name) => format!("CASE WHEN (SELECT holds FROM {name}) THEN {expected} ELSE 0 END"),
        None => expected,
    };
    format!("COUNT(*) / (COUNT(*) = {expected})::int")
}

/// PostgreSQL tells it as what ended the statement.
fn overtaken_or(error: DbErr) -> DbErr {
    let ended_by_count = driver_error(&error).and_then(DriverError::code).is_some_and(|code| code == DIVISION_BY_ZERO);
    if ended_by_count { overtaken() } else { error }
}

/// `$1` becomes `$4` after three values. Texts are values, so a `$` is always a placeholder.
fn renumber(sql: &str, values: usize) -> String {
    let mut parts = sql.split('$');
    let mut renumbered = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        let (number, rest) = part.split_at(digits);
        renumbered.push('$');
        match number.parse::<usize>() {
            Ok(number) => renumbered.push_str(&(number + values).to_string()),
            Err(_) => renumbered.push_str(number),
        }
        renumbered.push_str(rest);
    }
    renumbered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_keep_their_values() {
        let mut writes = Writes::new(DbBackend::Postgres);
        writes.add(Statement::from_sql_and_values(
            DbBackend::Postgres,
            "DELETE FROM a WHERE x = $1 AND y = $2",
            [1.into(), 2.into()],
        ));
        writes.name(
            "taken",
            Statement::from_sql_and_values(DbBackend::Postgres, "UPDATE b SET n = n + $1 RETURNING n", [3.into()]),
        );
        writes.add(Statement::from_sql_and_values(
            DbBackend::Postgres,
            "INSERT INTO c SELECT n, $2 FROM taken WHERE $1",
            [true.into(), 4.into()],
        ));
        let statement = writes.into_statement();
        assert_eq!(
            statement.sql,
            "WITH w0 AS (DELETE FROM a WHERE x = $1 AND y = $2 RETURNING 1), taken AS (UPDATE b SET n = n + $3 RETURNING n), \
             w2 AS (INSERT INTO c SELECT n, $5 FROM taken WHERE $4 RETURNING 1) \
             SELECT (SELECT COUNT(*) FROM w0) AS w0, (SELECT COUNT(*) FROM w2) AS w2"
        );
        assert_eq!(statement.values.unwrap().0, [1.into(), 2.into(), 3.into(), true.into(), 4.into()]);
    }
}

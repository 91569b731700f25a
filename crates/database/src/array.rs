//! Set-based statements whose text never varies with the number of rows.
//!
//! [`Columns`] turns a slice of rows into a table that a statement can select from: on PostgreSQL
//! `UNNEST` over one array parameter per column, on SQLite `json_each` over one JSON parameter. The
//! statement around it is usually the same text for both:
//!
//! ```
//! use database::array::Columns;
//! use sea_orm::DbBackend;
//!
//! struct Row { id: uuid::Uuid, amount: i64, note: Option<String> }
//! # let rows: Vec<Row> = Vec::new();
//! # let backend = DbBackend::Postgres;
//! let mut rows = Columns::new(backend, &rows)
//!     .uuid("id", |row| row.id)
//!     .bigint("amount", |row| row.amount)
//!     .opt_text("note", |row| row.note.clone());
//! let account = rows.param(7_i64);
//! let statement = rows.statement(|rows| format!(
//!     "INSERT INTO entries (id, account, amount, note)
//!      SELECT r.id, {account}, r.amount, r.note FROM {rows} AS r WHERE true
//!      ON CONFLICT DO NOTHING"
//! ));
//! ```
//!
//! The table has one column more, `ord`, counting the rows from 1 in the order of the slice.
//! (SQLite needs the `WHERE true` to tell `ON CONFLICT` from a join's `ON`.)
//!
//! Every column costs PostgreSQL an array to take apart, so several writes of the same rows share one table: see
//! [`Writes::over`](crate::Writes::over).

use sea_orm::sea_query::ArrayType;
use sea_orm::{DbBackend, EntityTrait, IdenStatic as _, Iterable as _, Statement, Value};
use serde_json::Value as Json;
use uuid::Uuid;

/// Rows as a table inside of one statement; see the module's documentation.
///
/// Column names are written into the SQL as they are: they must be plain identifiers.
pub struct Columns<'a, R> {
    backend: DbBackend,
    rows: &'a [R],
    /// `name` and how SQLite reads the column, or PostgreSQL writes it.
    columns: Vec<Column>,
    /// PostgreSQL: one array per column.
    arrays: Vec<Value>,
    /// SQLite: one JSON array per row.
    json: Vec<Vec<Json>>,
    scalars: Vec<Value>,
}

struct Column {
    name: &'static str,
    kind: Kind,
    nullable: bool,
}

#[derive(Clone, Copy)]
enum Kind {
    Uuid,
    Int,
    BigInt,
    Text,
    Bytes,
}

impl Kind {
    fn postgres_type(self) -> &'static str {
        match self {
            Self::Uuid => "uuid",
            Self::Int => "int",
            Self::BigInt => "bigint",
            Self::Text => "text",
            Self::Bytes => "bytea",
        }
    }

    fn array_type(self) -> ArrayType {
        match self {
            Self::Uuid => ArrayType::Uuid,
            Self::Int => ArrayType::Int,
            Self::BigInt => ArrayType::BigInt,
            Self::Text => ArrayType::String,
            Self::Bytes => ArrayType::Bytes,
        }
    }

    /// What stands for NULL, as a value and as PostgreSQL writes it: drivers send no arrays with holes. Only for what may be NULL.
    fn placeholder(self) -> (Value, &'static str) {
        match self {
            Self::Uuid => (Uuid::nil().into(), "'00000000-0000-0000-0000-000000000000'::uuid"),
            Self::Bytes => (Vec::<u8>::new().into(), "''::bytea"),
            Self::Text | Self::Int | Self::BigInt => (String::new().into(), "''"),
        }
    }
}

macro_rules! required {
    ($($name:ident: $type:ty => $kind:ident;)*) => {$(
        #[doc = concat!("A column that is never NULL: ", stringify!($type), ".")]
        #[must_use]
        pub fn $name<T: Into<$type>>(self, name: &'static str, value: impl Fn(&'a R) -> T) -> Self {
            self.column(name, Kind::$kind, false, |row| {
                let value: $type = value(row).into();
                Some(Value::from(value))
            })
        }
    )*};
}

macro_rules! optional {
    ($($name:ident: $type:ty => $kind:ident, $empty:literal;)*) => {$(
        #[doc = concat!("A column that may be NULL: ", stringify!($type), ". ", $empty, " counts as NULL.")]
        #[must_use]
        pub fn $name<T: Into<$type>>(self, name: &'static str, value: impl Fn(&'a R) -> Option<T>) -> Self {
            self.column(name, Kind::$kind, true, |row| {
                let value: $type = value(row)?.into();
                Some(Value::from(value)).filter(|value| *value != Kind::$kind.placeholder().0)
            })
        }
    )*};
}

impl<'a, R> Columns<'a, R> {
    /// A table with a row for each element and, so far, no columns.
    pub fn new(backend: DbBackend, rows: &'a [R]) -> Self {
        Self {
            backend,
            rows,
            columns: Vec::new(),
            arrays: Vec::new(),
            json: match backend {
                DbBackend::Postgres => Vec::new(),
                _ => rows.iter().map(|_| Vec::new()).collect(),
            },
            scalars: Vec::new(),
        }
    }

    required! {
        uuid: Uuid => Uuid;
        int: i32 => Int;
        bigint: i64 => BigInt;
        text: String => Text;
        bytes: Vec<u8> => Bytes;
    }

    optional! {
        opt_uuid: Uuid => Uuid, "The nil UUID";
        opt_text: String => Text, "The empty text";
        opt_bytes: Vec<u8> => Bytes, "No bytes";
    }

    fn column(mut self, name: &'static str, kind: Kind, nullable: bool, value: impl Fn(&'a R) -> Option<Value>) -> Self {
        debug_assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'), "{name:?} is no plain identifier");
        let values = self.rows.iter().map(value);
        match self.backend {
            DbBackend::Postgres => {
                let values = values.map(|value| value.unwrap_or_else(|| kind.placeholder().0)).collect();
                self.arrays.push(Value::Array(kind.array_type(), Some(Box::new(values))));
            }
            _ => {
                for (row, value) in self.json.iter_mut().zip(values) {
                    row.push(json(value));
                }
            }
        }
        self.columns.push(Column { name, kind, nullable });
        self
    }

    /// Adds a single value and answers its placeholder (`$3`), after every column was named.
    pub fn param(&mut self, value: impl Into<Value>) -> String {
        self.scalars.push(value.into());
        format!("${}", self.table_params() + self.scalars.len())
    }

    /// The statement: `sql` gets the table expression to select from, without an alias.
    pub fn statement(self, sql: impl FnOnce(&str) -> String) -> Statement {
        let backend = self.backend;
        let (table, values) = self.into_table();
        Statement::from_sql_and_values(backend, sql(&table), values)
    }

    /// The table expression, and the values of its placeholders.
    pub(crate) fn into_table(self) -> (String, Vec<Value>) {
        let table = self.table();
        let mut values = match self.backend {
            DbBackend::Postgres => self.arrays,
            _ => {
                let rows = self.json.into_iter().map(Json::Array).collect();
                vec![Json::Array(rows).to_string().into()]
            }
        };
        values.extend(self.scalars);
        (table, values)
    }

    pub(crate) fn backend(&self) -> DbBackend {
        self.backend
    }

    fn table_params(&self) -> usize {
        match self.backend {
            DbBackend::Postgres => self.arrays.len(),
            _ => 1,
        }
    }

    fn table(&self) -> String {
        match self.backend {
            DbBackend::Postgres => self.postgres_table(),
            _ => self.sqlite_table(),
        }
    }

    /// `(SELECT c0 AS id, NULLIF(c1, '') AS note, ord FROM UNNEST(…) …)`
    fn postgres_table(&self) -> String {
        let (mut selected, mut arrays, mut names) = (Vec::new(), Vec::new(), Vec::new());
        for (index, Column { name, kind, nullable }) in self.columns.iter().enumerate() {
            arrays.push(format!("${}::{}[]", index + 1, kind.postgres_type()));
            names.push(format!("c{index}"));
            selected.push(match nullable {
                true => format!("NULLIF(c{index}, {}) AS {name}", kind.placeholder().1),
                false => format!("c{index} AS {name}"),
            });
        }
        format!(
            "(SELECT {}, ord FROM UNNEST({}) WITH ORDINALITY AS u({}, ord))",
            selected.join(", "),
            arrays.join(", "),
            names.join(", ")
        )
    }

    /// `(SELECT unhex(value ->> 0) AS id, value ->> 1 AS note, key + 1 AS ord FROM json_each($1))`
    fn sqlite_table(&self) -> String {
        let selected: Vec<_> = self
            .columns
            .iter()
            .enumerate()
            .map(|(index, column)| {
                let name = column.name;
                match column.kind {
                    Kind::Uuid | Kind::Bytes => format!("unhex(value ->> {index}) AS {name}"),
                    _ => format!("value ->> {index} AS {name}"),
                }
            })
            .collect();
        format!("(SELECT {}, key + 1 AS ord FROM json_each($1))", selected.join(", "))
    }
}

/// A condition: the column's value is one that `query` answers.
///
/// On PostgreSQL the query runs once, and its rows are looked up in the column's index, whatever the planner believes about the table's size.
/// With `IN (SELECT …)` it may read the whole table for each of them: tables of what waits are often empty when they are analyzed.
///
/// ```
/// let due = database::array::is_one_of(sea_orm::DbBackend::Postgres, "id", "SELECT id FROM due");
/// assert_eq!(due, "id = ANY(ARRAY(SELECT id FROM due))");
/// ```
pub fn is_one_of(backend: DbBackend, column: &str, query: &str) -> String {
    match backend {
        DbBackend::Postgres => format!("{column} = ANY(ARRAY({query}))"),
        _ => format!("{column} IN ({query})"),
    }
}

/// The columns of an entity as this version knows them, of the table that a query calls `alias`. `SELECT *` of a prepared statement fails for
/// as long as its connection lives once a later version's migration has added a column.
pub fn columns_of<E: EntityTrait>(alias: &str) -> String {
    E::Column::iter().map(|column| format!("{alias}.{}", column.as_str())).collect::<Vec<_>>().join(", ")
}

/// For a query that claims rows: leaves out those that somebody else is claiming. SQLite has one writer, and nobody to skip.
pub fn skip_locked(backend: DbBackend) -> &'static str {
    if backend == DbBackend::Postgres { "FOR UPDATE SKIP LOCKED" } else { "" }
}

fn json(value: Option<Value>) -> Json {
    match value {
        Some(Value::Uuid(Some(id))) => Json::from(id.simple().to_string()),
        Some(Value::Int(Some(number))) => Json::from(number),
        Some(Value::BigInt(Some(number))) => Json::from(number),
        Some(Value::String(Some(text))) => Json::from(text),
        Some(Value::Bytes(Some(bytes))) => Json::from(hex(&bytes)),
        _ => Json::Null,
    }
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 0xf]).map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

//! `DATABASE_URL`: parsed once, printed without its password.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use sea_orm::sqlx::postgres::PgConnectOptions;

/// Where a database is.
///
/// ```
/// use database::DatabaseUrl;
/// let url: DatabaseUrl = "sqlite://data/orders.db".parse()?;
/// assert_eq!(url.to_string(), "sqlite://data/orders.db");
/// let url: DatabaseUrl = "postgres://app:secret@db.internal/orders?sslmode=require".parse()?;
/// assert_eq!(url.to_string(), "postgres://app:***@db.internal:5432/orders");
/// # Ok::<(), database::InvalidDatabaseUrl>(())
/// ```
#[derive(Clone, Debug)]
pub enum DatabaseUrl {
    /// A SQLite file; it and its folder are created when missing.
    Sqlite(PathBuf),
    /// A PostgreSQL database.
    Postgres(PostgresUrl),
}

/// A parsed PostgreSQL URL. TLS is chosen by `sslmode` (`disable`, `prefer` (default), `require`,
/// `verify-ca`, `verify-full`) and `sslrootcert`.
#[derive(Clone)]
pub struct PostgresUrl {
    options: Box<PgConnectOptions>,
}

/// Why a text is no database URL. Never contains the text, which may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDatabaseUrl {
    /// Neither `sqlite` nor `postgres`.
    #[error(
        "the database URL starts with {found:?}; allowed are postgres://user:password@host:5432/name and sqlite://path/to/file.db"
    )]
    Scheme {
        /// What stands before the colon; empty if there is none.
        found: String,
    },
    /// `sqlite://` without a path.
    #[error("the SQLite URL names no file; write sqlite://path/to/file.db")]
    NoPath,
    /// An in-memory database would be another one for every connection.
    #[error("an in-memory SQLite database cannot be used; write sqlite://path/to/file.db")]
    InMemory,
    /// SQLite URLs take no parameters; the settings are fixed for the sake of durability.
    #[error("the SQLite URL has parameters ({found:?}); none are allowed")]
    SqliteParameters {
        /// What stands after the question mark.
        found: String,
    },
    /// Anything wrong in the rest of a PostgreSQL URL.
    #[error("the PostgreSQL URL cannot be read: {reason}")]
    Postgres {
        /// What the parser says.
        reason: String,
    },
    /// No database name: PostgreSQL would silently use the one named like the user.
    #[error("the PostgreSQL URL names no database; write postgres://user:password@host:5432/name")]
    NoDatabase,
}

impl DatabaseUrl {
    /// The URL of a SQLite file.
    pub fn sqlite(path: impl Into<PathBuf>) -> Self {
        Self::Sqlite(path.into())
    }
}

impl FromStr for DatabaseUrl {
    type Err = InvalidDatabaseUrl;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (scheme, rest) = text.split_once(':').unwrap_or(("", text));
        match scheme {
            "sqlite" => parse_sqlite(rest.strip_prefix("//").unwrap_or(rest)),
            "postgres" | "postgresql" => parse_postgres(text),
            // Without a known scheme the text may be anything, even a password.
            _ => Err(InvalidDatabaseUrl::Scheme { found: scheme.chars().take(16).collect() }),
        }
    }
}

fn parse_sqlite(path: &str) -> Result<DatabaseUrl, InvalidDatabaseUrl> {
    if let Some((_, parameters)) = path.split_once('?') {
        return Err(InvalidDatabaseUrl::SqliteParameters { found: parameters.to_owned() });
    }
    match path {
        "" => Err(InvalidDatabaseUrl::NoPath),
        ":memory:" => Err(InvalidDatabaseUrl::InMemory),
        path => Ok(DatabaseUrl::Sqlite(Path::new(path).to_owned())),
    }
}

fn parse_postgres(text: &str) -> Result<DatabaseUrl, InvalidDatabaseUrl> {
    let options = PgConnectOptions::from_str(text).map_err(|error| InvalidDatabaseUrl::Postgres { reason: error.to_string() })?;
    if options.get_database().is_none() {
        return Err(InvalidDatabaseUrl::NoDatabase);
    }
    Ok(DatabaseUrl::Postgres(PostgresUrl { options: Box::new(options) }))
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite://{}", path.display()),
            Self::Postgres(url) => url.fmt(f),
        }
    }
}

impl PostgresUrl {
    pub(crate) fn options(&self) -> &PgConnectOptions {
        &self.options
    }

    /// The same server and user, another database.
    #[cfg(feature = "testing")]
    pub(crate) fn with_database(&self, name: &str) -> Self {
        Self { options: Box::new(PgConnectOptions::clone(&self.options).database(name)) }
    }
}

impl fmt::Display for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options = &self.options;
        let host = match options.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => options.get_host().to_owned(),
        };
        write!(
            f,
            "postgres://{}:***@{host}:{}/{}",
            options.get_username(),
            options.get_port(),
            options.get_database().unwrap_or_default()
        )
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_printed() {
        let url: DatabaseUrl = "postgres://app:hunter2@db:6000/orders".parse().unwrap();
        assert_eq!(url.to_string(), "postgres://app:***@db:6000/orders");
        assert!(!format!("{url:?}").contains("hunter2"));
    }

    #[test]
    fn a_broken_url_says_what_is_allowed_and_does_not_repeat_it() {
        for (text, expected) in [
            ("mysql://root:hunter2@db/x", "starts with \"mysql\""),
            ("hunter2", "starts with \"\""),
            ("sqlite://", "names no file"),
            ("sqlite::memory:", "in-memory"),
            ("sqlite://a.db?mode=memory", "mode=memory"),
            ("postgres://app:hunter2@db:port/orders", "invalid port"),
            ("postgres://app:hunter2@db", "names no database"),
            ("postgres://app:hunter2@db/x?sslmode=maybe", "maybe"),
        ] {
            let message = text.parse::<DatabaseUrl>().unwrap_err().to_string();
            assert!(message.contains(expected), "{text}: {message}");
            assert!(!message.contains("hunter2"), "{text}: {message}");
        }
    }

    #[test]
    fn sqlite_urls_take_relative_and_absolute_paths() {
        for (text, path) in [
            ("sqlite://data/orders.db", "data/orders.db"),
            ("sqlite:///var/lib/orders.db", "/var/lib/orders.db"),
            ("sqlite:orders.db", "orders.db"),
        ] {
            let DatabaseUrl::Sqlite(parsed) = text.parse().unwrap() else {
                panic!("{text} is a SQLite URL");
            };
            assert_eq!(parsed, Path::new(path));
        }
    }
}

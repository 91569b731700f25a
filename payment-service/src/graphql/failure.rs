//! Failures of the database as GraphQL errors: the details go to the log, here and only here, and the code to the client.

use database::DatabaseError;
use schema::graphql::{ErrorCode, GraphqlError};
use sea_orm::DbErr;

/// What the client is told when reading failed.
pub(super) fn read_failure(what: &'static str, error: &DbErr) -> GraphqlError {
    answer(what, error, database::is_transient(error))
}

/// What the client is told when a use case failed.
pub(super) fn write_failure(what: &'static str, error: &DatabaseError) -> GraphqlError {
    if error.is_outcome_unknown() {
        tracing::error!(what, %error, "the outcome is unknown");
        return GraphqlError::new(ErrorCode::Timeout, "no answer in time: it is unknown whether this was carried out");
    }
    answer(what, error, error.is_transient())
}

fn answer(what: &'static str, error: &dyn std::fmt::Display, transient: bool) -> GraphqlError {
    if transient {
        tracing::warn!(what, %error, "failed for the moment");
        GraphqlError::unavailable()
    } else {
        tracing::error!(what, %error, "failed");
        GraphqlError::internal()
    }
}

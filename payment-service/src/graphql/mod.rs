//! The payments subgraph (Apollo Federation v2).
//!
//! Resolvers translate only: read the viewer, call one use case or loader, wrap. Nobody sees what is not theirs: every entity goes through
//! `viewer::Viewer::may_see`, and what is somebody else's looks like what does not exist.
//!
//! Nullable fields are `Option<Result<T>>`: a failure then is null with an error beside it. `Result<Option<T>>` would leave out the key, and an
//! `Err` from an entity resolver would null the whole list of entities.

mod account;
mod entry;
mod failure;
mod loader;
mod mutation;
mod node;
mod order;
mod payment;
mod query;
mod user;
mod viewer;

use async_graphql::{EmptySubscription, SDLExportOptions, Schema, SchemaBuilder, dataloader::DataLoader};
use database::Database;

use self::{loader::Loader, node::Node};
pub use self::{mutation::Mutation, query::Query};

/// The executable schema.
pub type PaymentsSchema = Schema<Query, Mutation, EmptySubscription>;

/// Nesting of one internal query. The gateway bounds what clients send; this only stops what cannot come from it.
const MAX_DEPTH: usize = 64;
/// Fields of one internal query, entities counted once: far above what the gateway's limits let through.
const MAX_COMPLEXITY: usize = 20_000;

/// The schema over a service's database.
pub fn schema(database: Database) -> PaymentsSchema {
    // Without a cache the loaders of all requests are one: what they ask for in the same millisecond is one statement.
    let loader = DataLoader::new(Loader::new(database.clone()), tokio::spawn).max_batch_size(loader::MAX_KEYS);
    builder().data(database).data(loader).limit_depth(MAX_DEPTH).limit_complexity(MAX_COMPLEXITY).finish()
}

/// The subgraph's SDL as composition needs it; the same text for the same code.
pub fn sdl() -> String {
    let options = SDLExportOptions::new()
        .federation()
        .include_specified_by()
        .prefer_single_line_descriptions()
        .sorted_fields()
        .sorted_arguments()
        .sorted_enum_items()
        .use_space_ident();
    builder().finish().sdl_with_options(options)
}

fn builder() -> SchemaBuilder<Query, Mutation, EmptySubscription> {
    Schema::build(Query, Mutation, EmptySubscription).enable_federation().register_output_type::<Node>()
}

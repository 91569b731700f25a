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

use async_graphql::{EmptySubscription, Executor as _, Request, Response, SDLExportOptions, Schema, SchemaBuilder};
use database::Database;
use schema::graphql::loading::{self, Loading};

use self::{loader::Loader, node::Node};
pub use self::{mutation::Mutation, query::Query};

/// The executable schema.
#[derive(Clone)]
pub struct PaymentsSchema {
    schema: Loading<Schema<Query, Mutation, EmptySubscription>>,
    database: Database,
}

impl PaymentsSchema {
    /// Answers one request, which brings the caller's identity if there is one.
    pub async fn execute(&self, request: Request) -> Response {
        let loader = loading::loader(Loader::new(self.database.clone()), loader::MAX_KEYS);
        self.schema.execute(request.data(loader)).await
    }
}

/// Nesting of one internal query. The gateway bounds what clients send; this only stops what cannot come from it.
const MAX_DEPTH: usize = 64;
/// Fields of one internal query, entities counted once: far above what the gateway's limits let through.
const MAX_COMPLEXITY: usize = 20_000;

/// The schema over a service's database.
pub fn schema(database: Database) -> PaymentsSchema {
    let schema = builder().data(database.clone()).limit_depth(MAX_DEPTH).limit_complexity(MAX_COMPLEXITY).finish();
    PaymentsSchema { schema: Loading(schema), database }
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

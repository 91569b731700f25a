//! The orders subgraph. Resolvers translate: parse, call one use case, wrap.

mod event;
mod loader;
mod mutation;
mod node;
mod order;
mod query;
mod subscription;
mod user;
mod viewer;

use async_graphql::{Request, SDLExportOptions, Schema, ValidationMode};
use database::Database;
use schema::graphql::loading::Loading;

pub use self::viewer::Viewer;
use self::{loader::Loaders, mutation::Mutation, query::Query, subscription::Subscription};
use crate::{feed::Feed, order::intake::Intake};

/// The schema that serves the orders subgraph.
pub type OrdersSchema = Loading<Schema<Query, Mutation, Subscription>>;

/// Deepest selection that the subgraph accepts; the gateway has tighter limits for what clients send.
const MAX_DEPTH: usize = 32;

/// What the resolvers work with.
#[derive(Clone)]
pub struct Context {
    /// For reads.
    pub database: Database,
    /// For `createOrder`.
    pub intake: Intake,
    /// For subscriptions.
    pub feed: Feed,
}

/// Builds the schema around its context. Operations of the gateway in this process were validated and planned by it: for them
/// [`ValidationMode::Fast`] is enough, and saves a third of their execution.
pub fn schema(context: Context, validation: ValidationMode) -> OrdersSchema {
    Loading(builder().data(context).limit_depth(MAX_DEPTH).validation_mode(validation).finish())
}

/// The subgraph's SDL with the federation directives, as committed under `schema/graphql/orders.graphql`.
pub fn sdl() -> String {
    let options =
        SDLExportOptions::new().federation().include_specified_by().sorted_fields().sorted_arguments().sorted_enum_items();
    builder().finish().sdl_with_options(options)
}

/// Makes a request the viewer's: who asks, and loaders that live as long as the request.
pub fn prepare(request: Request, viewer: Viewer, database: &Database) -> Request {
    let loaders = Loaders::new(database.clone(), viewer.owner());
    request.data(viewer).data(loaders)
}

fn builder() -> async_graphql::SchemaBuilder<Query, Mutation, Subscription> {
    Schema::build(Query, Mutation, Subscription)
        .enable_federation()
        .enable_subscription_in_federation()
        .register_output_type::<node::Node>()
}

//! A GraphQL federation gateway as a library.
//!
//! It answers operations of one public schema from several subgraphs, in process or over HTTP, and knows nothing about what they
//! are about.
//!
//! # Order of steps
//!
//! 1. The document is measured, parsed, costed and validated against the public schema ([`Limits`]); the result is kept.
//! 2. Variables are coerced, and `@skip` and `@include` are decided.
//! 3. The operation is planned against the supergraph; the plan is kept per combination of conditions.
//! 4. The plan is executed: fetches in parallel or in sequence, entities in bounded batches, mutations one after the other.
//! 5. The gathered data is projected to the shape of the query, with nulls and errors as the specification has them.
//!
//! # What holds
//!
//! - A mutation is sent once. Its result is reported even if something beside it failed.
//! - A subgraph that fails makes the fields null that it was to answer, each with an error and its path; the rest is answered.
//! - A request that is not executed is answered with `data: null`, and **none of its errors has a path**. An executed request whose
//!   answer came out as null has at least one error with a path. That is how a transport tells the two apart.
//! - Every error of the gateway has one of the codes of [`ErrorCode`] on `extensions.code`; errors of subgraphs keep theirs.
//! - Memory and computing per request are bounded by [`Limits`].
//!
//! # Deliberately absent
//!
//! No `@defer`, no file uploads, no batching across requests, no response cache, no subscriptions over HTTP subgraphs.

mod cache;
mod condition;
mod data;
mod error;
mod execute;
mod gateway;
mod introspection;
mod limits;
mod operation;
mod plan;
mod project;
mod shape;
mod subgraph;
mod subscription;
mod supergraph;
mod text;
mod variables;

pub use error::{ErrorCode, GatewayError};
pub use gateway::Gateway;
pub use limits::Limits;
pub use subgraph::{
    Caller, HttpSubgraph, HttpSubgraphOptions, LocalSubgraph, OperationKind, Subgraph, SubgraphError, SubgraphOperation,
    SubgraphRequest, SubgraphResponse,
};

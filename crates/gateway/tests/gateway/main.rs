//! The gateway over two subgraphs, seen from a client.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod build;
mod cache;
mod entities;
mod errors;
mod fixtures;
mod http;
mod introspection;
mod limits;
mod mutation;
mod parallel;
mod query;
mod subscription;
mod support;
mod variables;

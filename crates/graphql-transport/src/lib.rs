//! GraphQL over HTTP and WebSocket for any [`async_graphql::Executor`], and a GraphiQL page that needs no network.
//!
//! What a client may rely on:
//!
//! - **HTTP** follows the GraphQL-over-HTTP specification: the `Accept` header chooses between
//!   `application/graphql-response+json` and `application/json`, only JSON bodies are read (so a form on another site cannot
//!   send one), mutations are refused over GET, and every refusal is itself a GraphQL response whose errors carry
//!   `extensions.code`.
//! - **WebSocket** speaks `graphql-transport-ws` with its close codes, see [`websocket`](self#websocket) below.
//! - A mutation that has started runs to its end, whether its client waits or not. Queries and subscriptions stop with it.
//! - Nothing is unbounded: body, message, queue, operations per socket, sockets, and every wait. The bounds and their reasons
//!   are the fields of [`TransportOptions`].
//!
//! # WebSocket
//!
//! One task per socket polls the socket and all of its operations. Outgoing messages go through one queue, bounded in messages
//! and bytes; while it is full neither the operations nor the client's next messages are polled. So a slow reader slows its
//! own sources down and misses nothing; if it takes nothing at all for the send timeout it is told so by close code 1013.
//!
//! | code | when |
//! |---|---|
//! | 4400 | not a valid message, not text, or larger than allowed |
//! | 4401 | `subscribe` before the acknowledgement |
//! | 4403 | the token is missing, bad, or expired (also later, while connected) |
//! | 4406 | the client does not offer `graphql-transport-ws` |
//! | 4408 | no `connection_init` in time |
//! | 4409 | an operation with this id is running |
//! | 4429 | a second `connection_init` |
//! | 1012 | the server drains; connect again |
//! | 1013 | the reader is too slow, or a dependency is missing; try again later |
//!
//! # Metrics
//!
//! | name | labels |
//! |---|---|
//! | `graphql_requests_total` | `transport`, `operation`, `outcome`: `ok`, `field_error`, `request_error`, `refused` (before it was read) |
//! | `graphql_request_duration_seconds` | `transport` (HTTP only), `operation` |
//! | `graphql_websocket_connections` | gauge of open sockets |
//! | `graphql_websocket_closed_total` | `reason`: the close code, `peer` or `pong_timeout` |
//! | `graphql_subscriptions_active` | gauge |
//!
//! Server-sent events are not offered yet: a new response format in `negotiation` is where they start.

mod auth;
mod error;
mod graphiql;
mod http;
mod negotiation;
mod operation;
mod options;
mod origin;
mod request;
mod router;
mod survivor;
mod websocket;

pub use auth::{Anonymous, Authenticated, Authenticator, Rejected};
pub use error::ErrorCode;
pub use graphiql::{GraphiqlOptions, GraphiqlTab, graphiql_router};
pub use options::TransportOptions;
pub use origin::{OriginPattern, OriginPatternError};
pub use router::router;

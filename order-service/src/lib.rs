//! Order Service: accepts orders, follows their payment, and shows both, live, through one GraphQL API.

pub mod app;
pub mod endpoint;
pub mod events;
pub mod feed;
pub mod graphql;
pub mod order;

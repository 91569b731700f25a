//! graphql-transport

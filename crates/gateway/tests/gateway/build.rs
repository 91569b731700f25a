//! Building a gateway: a supergraph and subgraphs that do not belong together are found out at the start.

use std::sync::Arc;

use gateway::{Gateway, GatewayError, Limits, LocalSubgraph, Subgraph};

use crate::support::{SUPERGRAPH, books};

fn local() -> Arc<dyn Subgraph> {
    Arc::new(LocalSubgraph::new(books::schema(Arc::default()), |request, _| request))
}

fn build(supergraph: &str, names: &[&str]) -> GatewayError {
    let subgraphs = names.iter().map(|name| ((*name).to_owned(), local())).collect();
    Gateway::new(supergraph, subgraphs, Limits::default()).unwrap_err()
}

#[test]
fn a_subgraph_that_is_missing_or_unknown_is_named() {
    assert!(matches!(build(SUPERGRAPH, &["books"]), GatewayError::MissingSubgraph(name) if name == "reviews"));
    assert!(matches!(build(SUPERGRAPH, &["books", "reviews", "other"]), GatewayError::UnknownSubgraph(name) if name == "other"));
}

#[test]
fn a_text_that_is_no_supergraph_is_refused_with_the_reason() {
    assert!(matches!(build("type Query {", &[]), GatewayError::Supergraph(_)));
    assert!(matches!(build("type Query { a: Missing }", &[]), GatewayError::Supergraph(_)));
}

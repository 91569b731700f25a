//! What the gateway costs before a subgraph is asked, and on top of what the subgraphs cost: both are in process here.
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot be set up has failed")]

#[path = "../tests/gateway/support/books.rs"]
mod books;
#[path = "../tests/gateway/support/reviews.rs"]
mod reviews;

use std::hint::black_box;
use std::sync::Arc;

use async_graphql::{Executor as _, Request};
use criterion::{Criterion, criterion_group, criterion_main};
use gateway::{Gateway, Limits, LocalSubgraph, Subgraph};
use tokio::runtime::Runtime;

const SUPERGRAPH: &str = include_str!("../tests/fixtures/supergraph.graphql");

fn gateway() -> Gateway {
    let subgraphs: [(&str, Arc<dyn Subgraph>); 2] = [
        ("books", Arc::new(LocalSubgraph::new(books::schema(Arc::default()), |request, _| request))),
        ("reviews", Arc::new(LocalSubgraph::new(reviews::schema(), |request, _| request))),
    ];
    let subgraphs = subgraphs.into_iter().map(|(name, subgraph)| (name.to_owned(), subgraph)).collect();
    Gateway::new(SUPERGRAPH, subgraphs, Limits::default()).unwrap()
}

/// Both services and an entity fetch; what is asked for is not there, so that next to nothing is executed. Each alias is another document.
fn document(alias: u64) -> String {
    format!("{{ nothing {{ id a{alias}: title author {{ name bio }} rating reviews {{ text stars }} }} }}")
}

async fn run(gateway: &Gateway, query: &str) {
    let response = gateway.execute(Request::new(query)).await;
    assert!(response.errors.is_empty(), "{:?}", response.errors);
    black_box(response);
}

fn benchmarks(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let gateway = gateway();
    let mut alias = 0;
    criterion.bench_function("plan a document that is new: parse, validate, plan", |bencher| {
        bencher.iter(|| {
            alias += 1;
            runtime.block_on(run(&gateway, &document(alias)));
        });
    });
    let known = document(0);
    criterion.bench_function("plan a document that is known: from the cache", |bencher| {
        bencher.iter(|| runtime.block_on(run(&gateway, &known)));
    });
    for books in [1, 50] {
        // From 10: b2 of the tests' subgraph has no rating.
        let ids = (10..10 + books).map(|book| format!("\"b{book}\"")).collect::<Vec<_>>().join(" ");
        let query = format!("{{ booksOf(ids: [{ids}]) {{ id title author {{ name bio }} rating reviews {{ text stars }} }} }}");
        criterion.bench_function(&format!("execute over two subgraphs in process, {books} entities"), |bencher| {
            bencher.iter(|| runtime.block_on(run(&gateway, &query)));
        });
    }
}

criterion_group!(benches, benchmarks);
criterion_main!(benches);

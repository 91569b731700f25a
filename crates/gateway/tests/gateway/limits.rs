//! Limits: a document that costs too much is refused before it costs anything.

use std::fmt::Write;
use std::time::{Duration, Instant};

use gateway::Limits;

use crate::support::World;

/// Far more than refusing needs, far less than expanding would take.
const PROMPT: Duration = Duration::from_secs(2);

async fn refused(world: &World, query: &str) {
    let started = Instant::now();
    let answer = world.ask(query).await;
    assert_eq!(answer.rejected(), "LIMIT_EXCEEDED", "{:?}", answer.errors());
    assert!(started.elapsed() < PROMPT);
    assert!(world.books.calls().is_empty() && world.reviews.calls().is_empty());
}

#[tokio::test]
async fn a_document_that_is_too_long_is_not_even_parsed() {
    let world = World::start().await;
    refused(&world, &format!("{{ books {{ id }} }} # {}", "x".repeat(64 * 1024))).await;
}

#[tokio::test]
async fn too_many_tokens_end_parsing() {
    let world = World::start().await;
    refused(&world, &format!("{{ {} }}", "a ".repeat(20_000))).await;
}

#[tokio::test]
async fn nesting_that_would_overflow_the_stack_ends_parsing() {
    let world = World::start().await;
    let levels = 4_000;
    refused(&world, &format!("{} a {}", "{ a ".repeat(levels), "}".repeat(levels))).await;
    refused(&world, &format!("{{ texts(texts: {}{}) }}", "[".repeat(4_000), "]".repeat(4_000))).await;
}

#[tokio::test]
async fn depth_is_bounded_also_through_fragments() {
    let world = World::start().await;
    let deep = format!("{{ book(id: \"b1\") {{ {} id {} }} }}", "author { favourite { ".repeat(8), "} } ".repeat(8));
    refused(&world, &deep).await;
    let mut fragments = String::from("{ book(id: \"b1\") { ...F0 } }");
    for index in 0..8 {
        let _ = write!(fragments, " fragment F{index} on Book {{ author {{ favourite {{ ...F{} }} }} }}", index + 1);
    }
    fragments.push_str(" fragment F8 on Book { id }");
    refused(&world, &fragments).await;
}

#[tokio::test]
async fn a_fragment_bomb_is_refused_without_being_expanded() {
    let world = World::start().await;
    let mut bomb = String::from("{ books { ...F0 } }");
    for index in 0..60 {
        let _ = write!(bomb, " fragment F{index} on Book {{ ...F{next} ...F{next} title }}", next = index + 1);
    }
    bomb.push_str(" fragment F60 on Book { id }");
    refused(&world, &bomb).await;
    // Also when no operation uses it.
    refused(&world, &bomb.replace("{ books { ...F0 } }", "{ books { id } }")).await;
}

#[tokio::test]
async fn root_fields_aliases_directives_and_conditions_are_bounded() {
    let world = World::start().await;
    let many = |count: usize, part: &dyn Fn(usize) -> String| (0..count).map(part).collect::<Vec<_>>().join(" ");
    refused(&world, &format!("{{ {} }}", many(21, &|index| format!("a{index}: nothing {{ id }}")))).await;
    refused(&world, &format!("{{ books {{ {} }} }}", many(51, &|index| format!("a{index}: id")))).await;
    refused(&world, &format!("{{ books {{ id {} }} }}", many(101, &|_| "... @include(if: true) { id }".to_owned()))).await;
    let variables = many(17, &|index| format!("$c{index}: Boolean = true"));
    let fields = many(17, &|index| format!("... @include(if: $c{index}) {{ id }}"));
    refused(&world, &format!("query({variables}) {{ books {{ title {fields} }} }}")).await;
}

#[tokio::test]
async fn the_number_of_fields_counts_fragments_as_often_as_they_are_spread() {
    let limits = Limits { max_fields: 30, ..Limits::default() };
    let world = World::with_limits(limits).await;
    let spreads = |count: usize| {
        format!(
            "{{ {} }} fragment F on Book {{ id title genre }}",
            (0..count).map(|i| format!("a{i}: book(id: \"b1\") {{ ...F }}")).collect::<String>()
        )
    };
    refused(&world, &spreads(8)).await;
    assert!(world.ask(&spreads(7)).await.0.errors.is_empty());
}

#[tokio::test]
async fn abstract_types_in_abstract_types_are_planned_or_refused_in_time() {
    let world = World::start().await;
    let mut query = String::from("id");
    for _ in 0..6 {
        query = format!(
            "... on Book {{ author {{ books {{ {query} rating }} }} }} ... on Author {{ favourite {{ {query} }} bio }} ... on Node {{ id }}"
        );
    }
    let started = Instant::now();
    let answer = world.ask(&format!("{{ node(id: \"b1\") {{ {query} }} items {{ {query} }} }}")).await;
    assert!(started.elapsed() < Duration::from_secs(10), "{:?} {:?}", started.elapsed(), answer.errors());
}

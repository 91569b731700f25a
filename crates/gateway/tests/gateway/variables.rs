//! Variables: coerced as the specification says, and refused before anything is executed.

use async_graphql::{Request, Variables};
use gateway::Caller;
use serde_json::json;

use crate::support::World;
use crate::support::books::CallerName;

#[tokio::test]
async fn defaults_single_values_for_lists_and_fields_of_inputs_are_filled_in() {
    let world = World::start().await;
    let query = "query($input: EchoInput! = { text: \"d\", tags: \"one\" }) { echo(input: $input) { text times tags } }";
    assert_eq!(world.ask(query).await.ok(), r#"{"echo":{"text":"d","times":7,"tags":["one"]}}"#);
    let given = json!({ "input": { "text": "t", "tags": "x" } });
    assert_eq!(world.ask_with(query, given).await.ok(), r#"{"echo":{"text":"t","times":7,"tags":["x"]}}"#);
    let query = "query($texts: [String!]!) { texts(texts: $texts) }";
    assert_eq!(world.ask_with(query, json!({ "texts": "one" })).await.ok(), r#"{"texts":["one"]}"#);
    let query = "query($genre: Genre = POETRY) { genre(genre: $genre) }";
    assert_eq!(world.ask(query).await.ok(), r#"{"genre":"POETRY"}"#);
    assert_eq!(world.ask_with(query, json!({ "genre": "NOVEL" })).await.ok(), r#"{"genre":"NOVEL"}"#);
}

#[tokio::test]
async fn a_variable_that_was_not_given_is_not_sent_as_null() {
    let world = World::start().await;
    let query = "query($value: Int) { optional(value: $value) }";
    world.ask(query).await.ok();
    assert_eq!(world.ask_with(query, json!({ "value": null })).await.ok(), r#"{"optional":"Null"}"#);
    assert_eq!(world.ask_with(query, json!({ "value": 3 })).await.ok(), r#"{"optional":"Value(3)"}"#);
    let sent: Vec<_> = world.books.calls().into_iter().map(|call| call.variables).collect();
    assert_eq!(sent, [json!({}), json!({ "value": null }), json!({ "value": 3 })]);
}

#[tokio::test]
async fn a_variable_that_does_not_fit_its_type_is_refused_before_anything_is_executed() {
    let world = World::start().await;
    for (query, variables) in [
        ("query($id: ID!) { book(id: $id) { id } }", json!({})),
        ("query($id: ID!) { book(id: $id) { id } }", json!({ "id": null })),
        ("query($id: ID!) { book(id: $id) { id } }", json!({ "id": [1] })),
        ("query($n: Int!) { books(first: $n) { id } }", json!({ "n": "2" })),
        ("query($n: Int!) { books(first: $n) { id } }", json!({ "n": 3_000_000_000_i64 })),
        ("query($g: Genre!) { genre(genre: $g) }", json!({ "g": "HIDDEN" })),
        ("query($g: Genre!) { genre(genre: $g) }", json!({ "g": "other" })),
        ("query($i: EchoInput!) { echo(input: $i) { text } }", json!({ "i": { "times": 1 } })),
        ("query($i: EchoInput!) { echo(input: $i) { text } }", json!({ "i": { "text": "t", "other": 1 } })),
        ("query($c: Boolean! = true) { books { id @skip(if: $c) } }", json!({ "c": "yes" })),
        ("query($c: Boolean = true) { books { id @skip(if: $c) } }", json!({ "c": null })),
    ] {
        assert_eq!(world.ask_with(query, variables.clone()).await.rejected(), "BAD_USER_INPUT", "{query} {variables}");
    }
    assert!(world.books.calls().is_empty());
}

#[tokio::test]
async fn what_a_custom_scalar_may_be_is_for_the_subgraph_to_say() {
    let world = World::start().await;
    let query = "query($isbn: Isbn!) { byIsbn(isbn: $isbn) { id } }";
    assert_eq!(world.ask_with(query, json!({ "isbn": "978-b1" })).await.ok(), r#"{"byIsbn":{"id":"b1"}}"#);
    let answer = world.ask_with(query, json!({ "isbn": 12.50 })).await;
    assert_eq!(world.books.calls()[1].variables, json!({ "isbn": 12.50 }));
    assert_eq!(answer.data(), r#"{"byIsbn":null}"#);
    assert_eq!(answer.0.errors.len(), 1);
}

#[tokio::test]
async fn the_caller_travels_with_every_call() {
    let world = World::start().await;
    let mut caller = Caller::default();
    caller.extensions.insert(CallerName("me".to_owned()));
    let answer = world.send(Request::new("{ caller }").data(caller)).await;
    assert_eq!(answer.ok(), r#"{"caller":"me"}"#);
    assert_eq!(world.send(Request::new("{ caller }").variables(Variables::default())).await.ok(), r#"{"caller":null}"#);
}

//! Reading: the answer has the query's shape, whichever subgraphs it comes from.

use async_graphql::Request;
use serde_json::json;

use crate::support::World;

#[tokio::test]
async fn a_query_over_two_subgraphs_comes_back_as_one_object_in_the_order_of_the_query() {
    let world = World::start().await;
    let answer = world.ask("{ book(id: \"b1\") { rating title id reviews { stars id } author { bio name } } }").await;
    assert_eq!(
        answer.ok(),
        r#"{"book":{"rating":4.5,"title":"Title b1","id":"b1","reviews":[{"stars":4,"id":"b1-r1"},{"stars":4,"id":"b1-r2"}],"author":{"bio":"Bio a1","name":"Author a1"}}}"#
    );
}

#[tokio::test]
async fn an_alias_that_is_named_like_a_key_does_not_name_the_wrong_entity() {
    let world = World::start().await;
    let answer = world.ask("{ book(id: \"b1\") { id: title real: id rating } }").await;
    assert_eq!(answer.ok(), r#"{"book":{"id":"Title b1","real":"b1","rating":4.5}}"#);
    let answer = world.ask("{ book(id: \"b1\") { id: title rating shippingCost weightGrams: title } }").await;
    assert_eq!(answer.ok(), r#"{"book":{"id":"Title b1","rating":4.5,"shippingCost":600,"weightGrams":"Title b1"}}"#);
}

#[tokio::test]
async fn aliases_of_one_field_are_answered_apart() {
    let world = World::start().await;
    let query = "{ a: book(id: \"b1\") { t: title all: reviews { id } none: reviews(minStars: 5) { id } } b: book(id: \"b2\") { t: title } }";
    let answer = world.ask(query).await;
    assert_eq!(answer.ok(), r#"{"a":{"t":"Title b1","all":[{"id":"b1-r1"},{"id":"b1-r2"}],"none":[]},"b":{"t":"Title b2"}}"#);
}

#[tokio::test]
async fn named_and_inline_fragments_are_merged_where_they_meet() {
    let world = World::start().await;
    let query = "query { ...Root ... { book(id: \"b1\") { id } } }
        fragment Root on Query { book(id: \"b1\") { ...Part author { name } } }
        fragment Part on Book { title ... on Node { id } author { bio } }";
    assert_eq!(
        world.ask(query).await.ok(),
        r#"{"book":{"title":"Title b1","id":"b1","author":{"bio":"Bio a1","name":"Author a1"}}}"#
    );
}

#[tokio::test]
async fn node_finds_every_type_and_fragments_apply_to_their_own_type_only() {
    let world = World::start().await;
    let query = "query($id: ID!) { node(id: $id) { id ... on Book { title rating } ... on Author { name bio }
        ... on Magazine { issue } ... on Review { text stars } } }";
    for (id, expected) in [
        ("b1", r#"{"node":{"id":"b1","title":"Title b1","rating":4.5}}"#),
        ("a1", r#"{"node":{"id":"a1","name":"Author a1","bio":"Bio a1"}}"#),
        ("m1", r#"{"node":{"id":"m1","issue":7}}"#),
        ("r1", r#"{"node":{"id":"r1","text":"Text r1","stars":4}}"#),
        ("x1", r#"{"node":null}"#),
    ] {
        assert_eq!(world.ask_with(query, json!({ "id": id })).await.ok(), expected);
    }
}

#[tokio::test]
async fn union_members_get_the_fields_of_their_own_type() {
    let world = World::start().await;
    let query =
        "{ items { __typename ... on Node { id } ... on Book { rating } ... on Magazine { issue } ... on Author { bio } } }";
    assert_eq!(
        world.ask(query).await.ok(),
        r#"{"items":[{"__typename":"Book","id":"b1","rating":4.5},{"__typename":"Magazine","id":"m1","issue":7},{"__typename":"Author","id":"a2","bio":"Bio a2"}]}"#
    );
}

#[tokio::test]
async fn typename_is_answered_everywhere_also_under_an_alias_and_without_any_subgraph() {
    let world = World::start().await;
    assert_eq!(world.ask("{ __typename a: __typename }").await.ok(), r#"{"__typename":"Query","a":"Query"}"#);
    assert_eq!(world.ask("mutation { __typename }").await.ok(), r#"{"__typename":"Mutation"}"#);
    assert!(world.books.calls().is_empty() && world.reviews.calls().is_empty());
    let query = "{ t: __typename book(id: \"b1\") { k: __typename author { __typename } } node(id: \"a1\") { n: __typename } }";
    assert_eq!(
        world.ask(query).await.ok(),
        r#"{"t":"Query","book":{"k":"Book","author":{"__typename":"Author"}},"node":{"n":"Author"}}"#
    );
}

#[tokio::test]
async fn include_and_skip_decide_on_fields_and_fragments_by_literal_and_by_variable() {
    let world = World::start().await;
    let query = "query($yes: Boolean!, $no: Boolean = false) { book(id: \"b1\") {
        id title @include(if: $no) isbn @skip(if: $yes) rating @include(if: $yes)
        ...Author @include(if: $yes) ... on Book @skip(if: $no) { genre } ... @include(if: false) { pages } reviews @skip(if: true) { id } } }
        fragment Author on Book { author { name @skip(if: $yes) bio } }";
    assert_eq!(
        world.ask_with(query, json!({ "yes": true })).await.ok(),
        r#"{"book":{"id":"b1","rating":4.5,"author":{"bio":"Bio a1"},"genre":"NOVEL"}}"#
    );
    assert_eq!(
        world.ask_with(query, json!({ "yes": false, "no": true })).await.ok(),
        r#"{"book":{"id":"b1","title":"Title b1","isbn":"978-b1"}}"#
    );
}

#[tokio::test]
async fn an_object_of_which_everything_is_skipped_is_still_an_object() {
    let world = World::start().await;
    assert_eq!(
        world.ask("{ book(id: \"b1\") { id @skip(if: true) } nothing { id @skip(if: true) } }").await.ok(),
        r#"{"book":{},"nothing":null}"#
    );
    assert_eq!(world.ask("{ book(id: \"b1\") @skip(if: true) { id } }").await.ok(), "{}");
    assert_eq!(
        world.ask("{ node(id: \"b1\") { id @skip(if: true) } items { ... on Book { id @skip(if: true) } } }").await.ok(),
        r#"{"node":{},"items":[{},{},{}]}"#
    );
}

#[tokio::test]
async fn a_conditional_fetch_is_not_made_when_its_condition_says_no() {
    let world = World::start().await;
    let query = "query($with: Boolean!) { book(id: \"b1\") { id rating @include(if: $with) } }";
    assert_eq!(world.ask_with(query, json!({ "with": false })).await.ok(), r#"{"book":{"id":"b1"}}"#);
    assert!(world.reviews.calls().is_empty());
    assert_eq!(world.ask_with(query, json!({ "with": true })).await.ok(), r#"{"book":{"id":"b1","rating":4.5}}"#);
    assert_eq!(world.reviews.calls().len(), 1);
}

#[tokio::test]
async fn lists_of_lists_with_nulls_keep_their_places() {
    let world = World::start().await;
    assert_eq!(
        world.ask("{ shelves { id reviews(minStars: 5) { id } shippingCost } }").await.ok(),
        r#"{"shelves":[[{"id":"b1","reviews":[],"shippingCost":600},null],[],[{"id":"b2","reviews":[],"shippingCost":null},{"id":"b1","reviews":[],"shippingCost":600}]]}"#
    );
}

#[tokio::test]
async fn a_fetch_may_depend_on_a_fetch_that_depends_on_a_fetch() {
    let world = World::start().await;
    assert_eq!(
        world.ask("{ topReview { book { title rating author { bio favourite { rating: id shippingCost } } } } }").await.ok(),
        r#"{"topReview":{"book":{"title":"Title b1","rating":4.5,"author":{"bio":"Bio a1","favourite":{"rating":"b2","shippingCost":null}}}}}"#
    );
}

#[tokio::test]
async fn the_operation_is_chosen_by_name_and_an_unknown_name_is_the_clients_mistake() {
    let world = World::start().await;
    let document = "query A { book(id: \"b1\") { id } } query B { book(id: \"b2\") { id } }";
    let named = |name: &str| Request::new(document).operation_name(name);
    assert_eq!(world.send(named("A")).await.ok(), r#"{"book":{"id":"b1"}}"#);
    assert_eq!(world.send(named("B")).await.ok(), r#"{"book":{"id":"b2"}}"#);
    let unknown = world.send(named("C")).await;
    assert_eq!(unknown.rejected(), "BAD_USER_INPUT");
    assert_eq!(world.ask(document).await.rejected(), "BAD_USER_INPUT");
    assert_eq!(world.send(Request::new("{ book(id: \"b1\") { id } }").operation_name("")).await.ok(), r#"{"book":{"id":"b1"}}"#);
}

#[tokio::test]
async fn every_character_of_a_string_in_the_document_reaches_the_subgraph_unharmed() {
    let world = World::start().await;
    let query = r#"{ echo(input: { text: "q\" b\\ n\n t\t u\u00e9 \u0001 ${x} ' } { # 𝄞 é", tags: ["""
        block "quoted" \""" end
    """] }) { text tags } }"#;
    let answer = world.ask(query).await;
    let data: serde_json::Value = serde_json::from_str(&answer.ok()).unwrap();
    assert_eq!(data["echo"]["text"], "q\" b\\ n\n t\t u\u{e9} \u{1} ${x} ' } { # 𝄞 é");
    assert_eq!(data["echo"]["tags"][0], "block \"quoted\" \"\"\" end");
}

#[tokio::test]
async fn numbers_of_the_document_reach_the_subgraph_or_are_refused() {
    let world = World::start().await;
    assert_eq!(
        world.ask("{ a: numbers(float: 1) b: numbers(float: -2.5e-3) c: numbers(float: 1e20) }").await.ok(),
        r#"{"a":1.0,"b":-0.0025,"c":1e+20}"#
    );
    assert_eq!(world.ask("{ numbers(float: 99999999999999999999999) }").await.rejected(), "GRAPHQL_VALIDATION_FAILED");
    assert_eq!(world.ask("{ byIsbn(isbn: 99999999999999999999999) { id } }").await.rejected(), "GRAPHQL_VALIDATION_FAILED");
    assert_eq!(world.ask("{ book(id: 12) { id } }").await.ok(), r#"{"book":{"id":"12"}}"#);
}

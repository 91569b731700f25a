//! What is wrong is said at the right place, and nothing else is lost for it.

use std::sync::Arc;

use async_graphql::{PathSegment, ServerError, Value};
use async_trait::async_trait;
use futures_util::stream::BoxStream;
use gateway::{Caller, Limits, Subgraph, SubgraphError, SubgraphRequest, SubgraphResponse};
use serde_json::json;

use crate::support::World;

/// A subgraph that always answers the same.
struct Canned(serde_json::Value, Vec<ServerError>);

#[async_trait]
impl Subgraph for Canned {
    async fn execute(&self, _: SubgraphRequest, _: &Caller) -> Result<SubgraphResponse, SubgraphError> {
        Ok(SubgraphResponse { data: Value::from_json(self.0.clone()).unwrap(), errors: self.1.clone() })
    }

    fn subscribe(&self, _: SubgraphRequest, _: &Caller) -> BoxStream<'static, Result<SubgraphResponse, SubgraphError>> {
        unreachable!("no subscription in these tests")
    }
}

fn canned(data: serde_json::Value, errors: Vec<ServerError>) -> World {
    World::with_reviews(Arc::new(Canned(data, errors)), Limits::default())
}

fn error(message: &str, path: &[&str]) -> ServerError {
    let mut error = ServerError::new(message, None);
    error.path = path
        .iter()
        .map(|segment| segment.parse().map_or_else(|_| PathSegment::Field((*segment).to_owned()), PathSegment::Index))
        .collect();
    error
}

#[tokio::test]
async fn a_subgraph_that_is_down_makes_its_own_fields_null_and_nothing_else() {
    let world = World::with_reviews_down();
    let answer = world.ask("{ books { id rating title all: reviews { id } } book(id: \"b1\") { id } topReview { id } }").await;
    assert_eq!(
        answer.data(),
        r#"{"books":[{"id":"b1","rating":null,"title":"Title b1","all":null},{"id":"b2","rating":null,"title":"Title b2","all":null}],"book":{"id":"b1"},"topReview":null}"#
    );
    assert_eq!(
        answer.codes(),
        [
            "SERVICE_UNAVAILABLE books.0.rating",
            "SERVICE_UNAVAILABLE books.0.all",
            "SERVICE_UNAVAILABLE books.1.rating",
            "SERVICE_UNAVAILABLE books.1.all",
            "SERVICE_UNAVAILABLE topReview",
        ]
    );
    assert!(!answer.errors()[0].contains("127.0.0.1"), "addresses are not for clients: {:?}", answer.errors());
}

#[tokio::test]
async fn what_depends_on_a_failed_fetch_fails_for_the_same_reason() {
    let world = World::with_reviews_down();
    let answer = world.ask("{ topReview { book { title } } }").await;
    assert_eq!(
        (answer.data().as_str(), answer.codes()),
        (r#"{"topReview":null}"#, vec!["SERVICE_UNAVAILABLE topReview".to_owned()])
    );
}

#[tokio::test]
async fn a_non_null_field_of_a_subgraph_that_is_down_makes_the_nearest_nullable_parent_null() {
    let world = World::with_reviews_down();
    let answer = world.ask("{ book(id: \"b1\") { title strictRating } nothing { id } }").await;
    assert_eq!(answer.data(), r#"{"book":null,"nothing":null}"#);
    assert_eq!(answer.codes(), ["SERVICE_UNAVAILABLE book.strictRating"]);

    let answer = world.ask("{ shelves { strictRating } }").await;
    assert_eq!(answer.data(), r#"{"shelves":[[null,null],[],[null,null]]}"#);
    assert_eq!(
        answer.codes(),
        [
            "SERVICE_UNAVAILABLE shelves.0.0.strictRating",
            "SERVICE_UNAVAILABLE shelves.2.0.strictRating",
            "SERVICE_UNAVAILABLE shelves.2.1.strictRating"
        ]
    );
}

#[tokio::test]
async fn null_that_propagates_to_the_root_leaves_an_error_with_a_path_unlike_a_request_that_was_not_executed() {
    let world = World::with_reviews_down();
    let answer = world.ask("{ books { author { reviewCount } } }").await;
    assert_eq!(answer.data(), "null");
    assert_eq!(answer.codes()[0], "SERVICE_UNAVAILABLE books.0.author.reviewCount");

    let answer = world.ask("{ strict { id } nothing { id } }").await;
    assert_eq!((answer.data().as_str(), answer.codes()), ("null", vec!["NOT_FOUND strict".to_owned()]));
}

#[tokio::test]
async fn codes_and_messages_of_subgraphs_pass_through() {
    let world = World::start().await;
    let answer = world.ask("{ book(id: \"b1\") { id softFail x: softFail } }").await;
    assert_eq!(answer.data(), r#"{"book":{"id":"b1","softFail":null,"x":null}}"#);
    assert_eq!(answer.errors(), ["FORBIDDEN book.softFail: soft", "FORBIDDEN book.x: soft"]);
}

#[tokio::test]
async fn an_error_below_an_alias_that_was_renamed_on_the_way_has_the_clients_path() {
    let world = World::start().await;
    let answer = world.ask("{ book(id: \"b1\") { title: softFail } strict: book(id: \"b1\") { genre: softFail } }").await;
    assert_eq!(answer.data(), r#"{"book":{"title":null},"strict":{"genre":null}}"#);
    assert_eq!(answer.codes(), ["FORBIDDEN book.title", "FORBIDDEN strict.genre"]);
}

#[tokio::test]
async fn a_key_that_the_subgraph_left_out_is_null_in_the_answer() {
    let world = World::start().await;
    let answer = world.ask("{ book(id: \"b1\") { id droppedKey title } }").await;
    assert_eq!(answer.data(), r#"{"book":{"id":"b1","droppedKey":null,"title":"Title b1"}}"#);
    assert_eq!(answer.codes(), ["INTERNAL_SERVER_ERROR book.droppedKey"]);
}

#[tokio::test]
async fn an_error_of_one_entity_of_a_list_is_told_at_its_index() {
    let world = World::start().await;
    let answer = world.ask("{ books(first: 3) { id rating } }").await;
    assert_eq!(answer.data(), r#"{"books":[{"id":"b1","rating":4.5},{"id":"b2","rating":null},{"id":"b3","rating":4.5}]}"#);
    assert_eq!(answer.errors(), ["FORBIDDEN books.1.rating: no rating"]);
}

#[tokio::test]
async fn an_error_of_an_entity_is_told_at_every_place_of_the_entity_through_lists_of_lists() {
    let world = World::start().await;
    let answer = world.ask("{ shelves { rating } book(id: \"b2\") { rating } }").await;
    assert_eq!(
        answer.data(),
        r#"{"shelves":[[{"rating":4.5},null],[],[{"rating":null},{"rating":4.5}]],"book":{"rating":null}}"#
    );
    let mut codes = answer.codes();
    codes.sort();
    assert_eq!(codes, ["FORBIDDEN book.rating", "FORBIDDEN shelves.2.0.rating"]);
}

#[tokio::test]
async fn an_error_deep_inside_an_entity_has_all_indices() {
    let world = World::start().await;
    let answer = world.ask("{ books { reviews { detail { words } } } }").await;
    assert_eq!(answer.codes(), ["FORBIDDEN books.1.reviews.1.detail.words"]);
    assert_eq!(
        answer.data(),
        r#"{"books":[{"reviews":[{"detail":{"words":12}},{"detail":{"words":12}}]},{"reviews":[{"detail":{"words":12}},{"detail":{"words":null}}]}]}"#
    );
}

#[tokio::test]
async fn an_unknown_entity_that_takes_the_whole_call_with_it_is_reported_for_each_field() {
    let world = World::start().await;
    // async-graphql answers null for the whole list of entities when one of their resolvers fails.
    let answer = world.ask("{ a: booksOf(ids: [\"unknown\", \"b1\"]) { id rating } b: book(id: \"b1\") { rating } }").await;
    assert_eq!(answer.data(), r#"{"a":[{"id":"unknown","rating":null},{"id":"b1","rating":null}],"b":{"rating":null}}"#);
    assert_eq!(answer.codes(), ["NOT_FOUND a.0.rating", "NOT_FOUND a.1.rating", "NOT_FOUND b.rating"]);
}

#[tokio::test]
async fn an_entity_that_its_subgraph_says_does_not_exist_is_null_up_to_the_next_nullable_field_without_an_error() {
    let world = canned(json!({ "_entities": [null, { "rating": 1.5 }] }), vec![]);
    let answer = world.ask("{ books { rating } }").await;
    assert_eq!(answer.ok(), r#"{"books":[{"rating":null},{"rating":1.5}]}"#);

    let answer = canned(json!({ "_entities": [null] }), vec![]).ask("{ book(id: \"b1\") { strictRating } }").await;
    assert_eq!(answer.ok(), r#"{"book":null}"#);
}

#[tokio::test]
async fn a_list_of_entities_of_the_wrong_length_is_not_spread_over_the_wrong_objects() {
    for entities in [json!([{ "rating": 1.0 }]), json!([{ "rating": 1.0 }, null, { "rating": 3.0 }]), json!({}), json!(null)] {
        let answer = canned(json!({ "_entities": entities }), vec![]).ask("{ books { id rating } }").await;
        assert_eq!(answer.data(), r#"{"books":[{"id":"b1","rating":null},{"id":"b2","rating":null}]}"#);
        assert_eq!(answer.codes(), ["INTERNAL_SERVER_ERROR books.0.rating", "INTERNAL_SERVER_ERROR books.1.rating"]);
    }
}

#[tokio::test]
async fn an_error_at_an_index_that_does_not_exist_harms_nobody() {
    let errors = vec![error("far", &["_entities", "99", "rating"]), error("farther", &["_entities", "99"])];
    let answer = canned(json!({ "_entities": [{ "rating": 1.0 }, null] }), errors).ask("{ books { rating } }").await;
    assert_eq!(answer.data(), r#"{"books":[{"rating":1.0},{"rating":null}]}"#);
}

#[tokio::test]
async fn an_index_that_a_subgraph_does_give_is_used() {
    let errors = vec![error("first", &["_entities", "0", "rating"]), error("second", &["_entities", "1"])];
    let answer = canned(json!({ "_entities": [{ "rating": null }, null] }), errors).ask("{ books { id rating } }").await;
    assert_eq!(answer.data(), r#"{"books":[{"id":"b1","rating":null},{"id":"b2","rating":null}]}"#);
    assert_eq!(answer.errors(), ["INTERNAL_SERVER_ERROR books.0.rating: first", "INTERNAL_SERVER_ERROR books.1.rating: second"]);
}

#[tokio::test]
async fn an_error_without_a_path_is_told_for_what_is_null_because_of_it() {
    let mut refused = error("who are you", &[]);
    refused.extensions.get_or_insert_default().set("code", "UNAUTHENTICATED");
    let answer = canned(json!(null), vec![refused]).ask("{ books { id rating } topReview { id } }").await;
    assert_eq!(answer.data(), r#"{"books":[{"id":"b1","rating":null},{"id":"b2","rating":null}],"topReview":null}"#);
    let mut codes = answer.codes();
    codes.sort();
    assert_eq!(codes, ["UNAUTHENTICATED books.0.rating", "UNAUTHENTICATED books.1.rating", "UNAUTHENTICATED topReview"]);
}

#[tokio::test]
async fn answers_that_do_not_fit_the_schema_become_null_with_an_error() {
    for (data, expected) in [
        (json!({ "topReview": [1] }), r#"{"topReview":null}"#),
        (json!({ "topReview": { "stars": null } }), r#"{"topReview":null}"#),
        (json!({ "topReview": 3 }), r#"{"topReview":null}"#),
    ] {
        let answer = canned(data, vec![]).ask("{ topReview { stars } }").await;
        assert_eq!(answer.data(), expected);
        assert_eq!(answer.0.errors.len(), 1, "{:?}", answer.errors());
    }
    let world = World::start().await;
    let answer = world.ask("{ book(id: \"hidden\") { genre } }").await;
    assert_eq!(
        (answer.data().as_str(), answer.codes()),
        (r#"{"book":null}"#, vec!["INTERNAL_SERVER_ERROR book.genre".to_owned()])
    );
}

#[tokio::test]
async fn the_number_of_errors_is_bounded() {
    let limits = Limits { max_response_errors: 3, ..Limits::default() };
    let world = World::with_reviews(Arc::new(Canned(json!(null), vec![error("no", &[])])), limits);
    let answer = world.ask("{ books(first: 20) { rating } }").await;
    assert_eq!(answer.0.errors.len(), 3);
}

#[tokio::test]
async fn what_is_not_graphql_or_does_not_fit_the_schema_is_not_executed() {
    let world = World::start().await;
    for (query, code) in [
        ("{ book(", "GRAPHQL_PARSE_FAILED"),
        ("", "GRAPHQL_PARSE_FAILED"),
        ("{ unknown }", "GRAPHQL_VALIDATION_FAILED"),
        ("{ book }", "GRAPHQL_VALIDATION_FAILED"),
        ("{ book(id: \"b1\") { secret } }", "GRAPHQL_VALIDATION_FAILED"),
        ("{ genre(genre: HIDDEN) }", "GRAPHQL_VALIDATION_FAILED"),
        ("{ _service { sdl } }", "GRAPHQL_VALIDATION_FAILED"),
        ("{ _entities(representations: []) { __typename } }", "GRAPHQL_VALIDATION_FAILED"),
        ("{ ...A } fragment A on Query { ...B } fragment B on Query { ...A }", "GRAPHQL_VALIDATION_FAILED"),
        ("{ book(id: \"b1\") { __typename: title } }", "GRAPHQL_VALIDATION_FAILED"),
        ("{ book(id: \"b1\") { _internal_qp_alias_0: title } }", "GRAPHQL_VALIDATION_FAILED"),
        ("{ book(id: \"b1\") { id: title _alias_id: title } }", "GRAPHQL_VALIDATION_FAILED"),
        ("query($representations: ID!) { book(id: $representations) { rating } }", "GRAPHQL_VALIDATION_FAILED"),
        ("type Query { a: Int }", "GRAPHQL_VALIDATION_FAILED"),
        ("subscription { many { id } }", "BAD_USER_INPUT"),
    ] {
        assert_eq!(world.ask(query).await.rejected(), code, "{query}");
    }
    assert!(world.books.calls().is_empty() && world.reviews.calls().is_empty());
    let located = world.ask("{\n  unknown\n}").await;
    assert_eq!((located.0.errors[0].locations[0].line, located.0.errors[0].locations[0].column), (2, 3));
}

#[tokio::test]
async fn the_type_s_name_may_have_any_alias() {
    let world = World::start().await;
    let answer = world.ask("{ book(id: \"b1\") { __isBook: __typename id } }").await;
    assert_eq!(answer.ok(), r#"{"book":{"__isBook":"Book","id":"b1"}}"#);
}

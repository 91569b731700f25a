//! Entities: asked for once each, in calls of bounded size, and put back at every place.

use gateway::Limits;

use crate::support::World;

#[tokio::test]
async fn the_same_entity_is_asked_for_once_however_often_it_occurs() {
    let world = World::start().await;
    let answer = world.ask("{ books(first: 4) { author { bio } } shelves { rating } b: book(id: \"b1\") { rating } }").await;
    assert!(answer.data().contains(r#""b":{"rating":4.5}"#) && answer.data().contains(r#"[[{"rating":4.5},null],[]"#));
    let representations: usize = world.reviews.calls().iter().map(super::support::recorder::Call::representations).sum();
    // Two authors, the books of the shelves (b1, b2), and b1 once more at most: its fetch has a variable of its own.
    assert!(representations <= 5, "{:?}", world.reviews.calls());
}

#[tokio::test]
async fn a_long_list_is_asked_for_in_calls_of_bounded_size_and_comes_back_in_order() {
    let limits = Limits { entities_per_call: 7, ..Limits::default() };
    let world = World::with_limits(limits).await;
    let answer = world.ask("{ books(first: 40) { id reviews { id } shippingCost } }").await;
    let books = answer.0.data.clone().into_json().unwrap();
    for (index, book) in books["books"].as_array().unwrap().iter().enumerate() {
        assert_eq!(book["id"], format!("b{}", index + 1));
        assert_eq!(book["reviews"][1]["id"], format!("b{}-r2", index + 1));
    }
    let calls = world.reviews.calls();
    assert_eq!(calls.len(), 6);
    assert!(calls.iter().all(|call| call.representations() <= 7));
    assert_eq!(calls.iter().map(super::support::recorder::Call::representations).sum::<usize>(), 40);
}

#[tokio::test]
async fn calls_with_several_lists_of_entities_are_bounded_too() {
    let limits = Limits { entities_per_call: 3, ..Limits::default() };
    let world = World::with_limits(limits).await;
    let query = "{ books(first: 4) { id rating author { id bio } } shelves { reviews { id } } }";
    let answer = world.ask(query).await;
    let unbounded = World::start().await.ask(query).await;
    assert_eq!(answer.data(), unbounded.data());
    assert_eq!(answer.codes(), unbounded.codes());
    assert!(world.reviews.calls().iter().all(|call| call.representations() <= 3), "{:?}", world.reviews.calls());
}

#[tokio::test]
async fn nothing_is_asked_when_there_is_no_entity() {
    let world = World::start().await;
    assert_eq!(world.ask("{ nothing { rating } books(first: 0) { rating } }").await.ok(), r#"{"nothing":null,"books":[]}"#);
    assert!(world.reviews.calls().is_empty());
}

#[tokio::test]
async fn a_required_field_is_sent_although_the_client_did_not_ask_for_it() {
    let world = World::start().await;
    assert_eq!(world.ask("{ books { shippingCost } }").await.ok(), r#"{"books":[{"shippingCost":600},{"shippingCost":null}]}"#);
    let sent = world.reviews.calls()[0].variables["representations"].clone();
    assert_eq!(sent[0], serde_json::json!({ "__typename": "Book", "id": "b1", "weightGrams": 300 }));
    assert_eq!(sent[1], serde_json::json!({ "__typename": "Book", "id": "b2", "weightGrams": null }));
}

#[tokio::test]
async fn only_the_variables_that_a_fetch_uses_are_sent_with_it() {
    let world = World::start().await;
    let query = "query($id: ID!, $stars: Int!) { book(id: $id) { reviews(minStars: $stars) { id } } }";
    let answer = world.ask_with(query, serde_json::json!({ "id": "b1", "stars": 5, "unknown": 1 })).await;
    assert_eq!(answer.ok(), r#"{"book":{"reviews":[]}}"#);
    assert_eq!(world.books.calls()[0].variables, serde_json::json!({ "id": "b1" }));
    let sent = world.reviews.calls()[0].variables.clone();
    assert_eq!(sent["stars"], 5);
    assert_eq!(sent.as_object().unwrap().len(), 2);
}

#[tokio::test]
async fn more_entities_than_anybody_can_want_are_not_asked_for_at_all() {
    let limits = Limits { max_entities_per_fetch: 5, ..Limits::default() };
    let world = World::with_limits(limits).await;
    assert!(world.ask("{ books(first: 5) { shippingCost } }").await.0.errors.is_empty());
    let calls = world.reviews.calls().len();
    let answer = world.ask("{ books(first: 6) { id shippingCost } }").await;
    assert_eq!(answer.codes()[5], "LIMIT_EXCEEDED books.5.shippingCost");
    assert!(answer.data().starts_with(r#"{"books":[{"id":"b1","shippingCost":null}"#));
    assert_eq!(world.reviews.calls().len(), calls);
}

#[tokio::test]
async fn one_entity_at_too_many_places_is_not_copied_to_them() {
    let query = "{ books(first: 6) { author { bio } } }";
    let world = World::with_limits(Limits { max_repeated_values: 1_000, ..Limits::default() }).await;
    let answer = world.ask(query).await;
    assert!(answer.0.errors.is_empty(), "{:?}", answer.0.errors);
    let world = World::with_limits(Limits { max_repeated_values: 2, ..Limits::default() }).await;
    let answer = world.ask(query).await;
    assert!(!answer.codes().is_empty() && answer.codes().iter().all(|code| code.starts_with("LIMIT_EXCEEDED books.")));
}

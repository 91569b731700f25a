//! Writing: one after the other, never twice, and what was done is reported.

use crate::support::World;

#[tokio::test]
async fn mutations_run_in_the_order_of_the_document_across_subgraphs() {
    let world = World::start().await;
    let query = "mutation { a: addBook(id: \"b1\") { position } r: addReview(book: \"b1\") { id } b: addBook(id: \"b2\") { position book { rating } } }";
    let answer = world.ask(query).await;
    assert_eq!(answer.data(), r#"{"a":{"position":0},"r":{"id":"b1-new"},"b":{"position":1,"book":{"rating":null}}}"#);
    assert_eq!(answer.codes(), ["FORBIDDEN b.book.rating"]);
}

#[tokio::test]
async fn a_mutation_that_committed_beside_one_that_failed_is_reported() {
    let world = World::start().await;
    let answer = world.ask("mutation { failBook { id } addBook { position book { title } } }").await;
    assert_eq!(answer.data(), r#"{"failBook":null,"addBook":{"position":1,"book":{"title":"Title b9"}}}"#);
    assert_eq!(answer.codes(), ["FORBIDDEN failBook"]);
}

#[tokio::test]
async fn a_mutation_goes_on_after_one_whose_subgraph_is_down_and_sends_nothing_twice() {
    let world = World::with_reviews_down();
    let answer = world.ask("mutation { a: addBook { position } addReview(book: \"b1\") { id } b: addBook { position } }").await;
    assert_eq!(answer.data(), r#"{"a":{"position":0},"addReview":null,"b":{"position":1}}"#);
    assert_eq!(answer.codes(), ["SERVICE_UNAVAILABLE addReview"]);
    assert_eq!(world.reviews.calls().len(), 1);
}

#[tokio::test]
async fn what_a_mutation_answers_is_completed_by_other_subgraphs() {
    let world = World::start().await;
    assert_eq!(
        world.ask("mutation { __typename addReview(book: \"b1\") { text book { title } } }").await.ok(),
        r#"{"__typename":"Mutation","addReview":{"text":"Text b1-new","book":{"title":"Title b1"}}}"#
    );
}

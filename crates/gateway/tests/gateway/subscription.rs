//! Subscriptions: every event completed by the other subgraphs, at the pace of the client.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_graphql::{Data, Executor, Request, Response};
use futures_util::StreamExt;
use gateway::Caller;

use crate::support::{Answer, World};

async fn all(world: &World, query: &str) -> Vec<Answer> {
    let responses: Vec<Response> = world.gateway.execute_stream(Request::new(query), None).collect().await;
    responses.into_iter().map(Answer).collect()
}

#[tokio::test]
async fn every_event_is_completed_by_the_other_subgraph() {
    let world = World::start().await;
    let answers = all(&world, "subscription { added: bookAdded(ids: [\"b1\", \"b3\"]) { rating title author { bio } } }").await;
    let data: Vec<String> = answers.iter().map(Answer::ok).collect();
    assert_eq!(
        data,
        [
            r#"{"added":{"rating":4.5,"title":"Title b1","author":{"bio":"Bio a1"}}}"#,
            r#"{"added":{"rating":4.5,"title":"Title b3","author":{"bio":"Bio a1"}}}"#,
        ]
    );
}

#[tokio::test]
async fn an_event_whose_completion_fails_is_still_an_event_and_the_next_one_comes() {
    let world = World::with_reviews_down();
    let answers = all(&world, "subscription { bookAdded(ids: [\"b1\", \"b2\"]) { id rating } }").await;
    assert_eq!(answers.len(), 2);
    assert_eq!(answers[1].data(), r#"{"bookAdded":{"id":"b2","rating":null}}"#);
    assert_eq!(answers[1].codes(), ["SERVICE_UNAVAILABLE bookAdded.rating"]);

    // A non-null field inside makes the event null, and is no failure of the source.
    let answers = all(&world, "subscription { bookAdded(ids: [\"b1\", \"b2\"]) { id strictRating } }").await;
    assert_eq!(answers.len(), 2);
    assert_eq!(
        (answers[0].data().as_str(), answers[0].codes()),
        ("null", vec!["SERVICE_UNAVAILABLE bookAdded.strictRating".to_owned()])
    );
    let answers = all(&world, "subscription { bookAdded(ids: [\"b2\", \"b1\"]) { hardFail } }").await;
    assert_eq!((answers[0].data().as_str(), answers[0].codes()), ("null", vec!["NOT_FOUND bookAdded.hardFail".to_owned()]));
    assert_eq!(answers[1].ok(), r#"{"bookAdded":{"hardFail":"fine"}}"#);
}

#[tokio::test]
async fn a_source_that_breaks_says_so_once_and_ends() {
    let world = World::start().await;
    let answers = all(&world, "subscription { b: breaks { id } }").await;
    assert_eq!(answers.len(), 2);
    assert_eq!(answers[0].ok(), r#"{"b":{"id":"b1"}}"#);
    assert_eq!((answers[1].data().as_str(), answers[1].errors()), ("null", vec!["CURSOR_EXPIRED b: too old".to_owned()]));

    let answers = all(&world, "subscription { refuses(id: \"b1\") { id } }").await;
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0].errors(), ["NOT_FOUND refuses: no b1"]);
}

#[tokio::test]
async fn a_slow_client_slows_the_source_down() {
    let world = World::start().await;
    let mut events = world.gateway.execute_stream(Request::new("subscription { many { id rating } }"), None);
    for _ in 0..3 {
        let event = Answer(events.next().await.unwrap());
        assert_eq!(event.ok(), r#"{"many":{"id":"b1","rating":4.5}}"#);
    }
    assert!(world.asked.load(Ordering::SeqCst) <= 4, "{} events were taken from the source", world.asked.load(Ordering::SeqCst));
}

#[tokio::test]
async fn what_is_not_executed_is_one_response_without_paths() {
    let world = World::start().await;
    for (query, code) in [
        ("subscription { unknown }", "GRAPHQL_VALIDATION_FAILED"),
        ("subscription { a: many { id } b: many { id } }", "GRAPHQL_VALIDATION_FAILED"),
        ("subscription { __typename }", "GRAPHQL_VALIDATION_FAILED"),
        ("subscription($ids: [ID!]!) { bookAdded(ids: $ids) { id } }", "BAD_USER_INPUT"),
    ] {
        let answers = all(&world, query).await;
        assert_eq!(answers.len(), 1);
        assert_eq!(answers[0].rejected(), code, "{query}");
    }
}

#[tokio::test]
async fn queries_and_mutations_may_come_over_a_stream_too_with_the_sessions_caller() {
    let world = World::start().await;
    let mut caller = Caller::default();
    caller.extensions.insert(crate::support::books::CallerName("me".to_owned()));
    let mut session = Data::default();
    session.insert(caller);
    let responses: Vec<Response> =
        world.gateway.execute_stream(Request::new("{ caller }"), Some(Arc::new(session))).collect().await;
    assert_eq!(Answer(responses.into_iter().next().unwrap()).ok(), r#"{"caller":"me"}"#);
}

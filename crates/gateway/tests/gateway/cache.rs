//! The plan cache: one plan for many requests, and nothing that grows.

use gateway::Limits;
use serde_json::json;

use crate::support::World;

#[tokio::test]
async fn concurrent_first_requests_all_get_their_answer() {
    let world = World::start().await;
    let query = "query($id: ID!) { book(id: $id) { id rating } }";
    let ask = |id: String| {
        let world = &world;
        async move { (id.clone(), world.ask_with(query, json!({ "id": id })).await.data()) }
    };
    for (id, data) in futures_util::future::join_all((10..60).map(|index| ask(format!("b{index}")))).await {
        assert_eq!(data, format!(r#"{{"book":{{"id":"{id}","rating":4.5}}}}"#));
    }
}

#[tokio::test]
async fn plans_of_different_conditions_and_operations_of_one_document_are_kept_apart() {
    let world = World::start().await;
    let query = "query($a: Boolean!, $b: Boolean!) { book(id: \"b1\") { id title @include(if: $a) genre @skip(if: $b) } }";
    for _ in 0..2 {
        for (a, b, expected) in [
            (false, true, r#"{"book":{"id":"b1"}}"#),
            (true, true, r#"{"book":{"id":"b1","title":"Title b1"}}"#),
            (false, false, r#"{"book":{"id":"b1","genre":"NOVEL"}}"#),
            (true, false, r#"{"book":{"id":"b1","title":"Title b1","genre":"NOVEL"}}"#),
        ] {
            assert_eq!(world.ask_with(query, json!({ "a": a, "b": b })).await.ok(), expected);
        }
    }
}

#[tokio::test]
async fn a_cache_that_is_too_small_makes_plans_again_and_answers_the_same() {
    let limits = Limits { plan_cache_entries: 1, ..Limits::default() };
    let world = World::with_limits(limits).await;
    for round in 0..3 {
        for id in ["b1", "b2", "b3"] {
            let answer = world.ask(&format!("{{ book(id: \"{id}\") {{ id }} }}")).await;
            assert_eq!(answer.ok(), format!(r#"{{"book":{{"id":"{id}"}}}}"#), "{round}");
        }
    }
}

#[tokio::test]
async fn a_document_that_failed_fails_again_and_does_not_stand_in_the_way_of_others() {
    let world = World::start().await;
    for _ in 0..3 {
        assert_eq!(world.ask("{ unknown }").await.rejected(), "GRAPHQL_VALIDATION_FAILED");
    }
    assert_eq!(world.ask("{ nothing { id } }").await.ok(), r#"{"nothing":null}"#);
}

//! Services that are there before what they need.

use std::time::Duration;

use serde_json::json;
use tandem::client::Client;
use tokio::time::{Instant, sleep_until};

use crate::{
    cluster::{Cluster, Places, Shape, unique_prefix},
    load::Load,
    replica::{Replica, health},
    servers::{Instance, Servers},
    support::until_within,
};

/// How long the services wait for their servers.
const EARLY_BY: Duration = Duration::from_secs(15);
/// A replica that has just been started listens after this time at the latest.
const LISTENS_WITHIN: Duration = Duration::from_secs(20);
/// From the last server's start to the last order's end.
const SETTLED_WITHIN: Duration = Duration::from_secs(30);

/// The names of the checks that are not ready.
async fn missing(replica: &Replica) -> Vec<String> {
    let (status, body) = health(&replica.base()).await.expect("it answers while it waits");
    let checks = body["checks"].as_object().unwrap();
    let missing: Vec<String> = checks.iter().filter(|(_, state)| *state != "ready").map(|(name, _)| name.clone()).collect();
    assert_eq!(status == 200, missing.is_empty(), "{body}");
    missing
}

/// Alive, not ready, and honest about it.
async fn assert_waits(replica: &Replica) {
    let live = reqwest::get(format!("{}/health/live", replica.base())).await.unwrap();
    assert_eq!(live.status().as_u16(), 200);
    let request = reqwest::Client::new().post(format!("{}/graphql", replica.base())).json(&json!({ "query": "{ __typename }" }));
    let response = request.send().await.unwrap();
    assert_eq!(response.status().as_u16(), 503);
    let body: serde_json::Value = response.json().await.unwrap();
    assert_eq!(body["errors"][0]["extensions"]["code"], "SERVICE_UNAVAILABLE", "{body}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_that_start_before_their_servers_say_what_is_missing_and_become_ready_by_themselves() {
    // The servers are this test's own; the shared ones only say whether there are any.
    if Servers::shared().is_none() {
        return;
    }
    let (orders_db, payments_db, kafka) =
        tokio::join!(Instance::postgres("late-orders"), Instance::postgres("late-payments"), Instance::kafka("late"));
    // Started once, so that their addresses are known.
    tokio::join!(orders_db.run("stop"), payments_db.run("stop"), kafka.run("kill"));
    let places = Places {
        orders_url: orders_db.url.clone(),
        payments_url: payments_db.url.clone(),
        kafka: kafka.url.clone(),
        prefix: unique_prefix("late"),
    };
    let mut cluster = Cluster::new("late", Shape::of(2), places);
    let begin = Instant::now();
    cluster.start_all();
    let replicas = || cluster.orders.iter().chain(&cluster.payments);
    for replica in replicas() {
        until_within(LISTENS_WITHIN, "it listens", async || health(&replica.base()).await.is_some()).await;
        assert!(missing(replica).await.contains(&"database".to_owned()));
        assert_waits(replica).await;
    }
    sleep_until(begin + EARLY_BY).await;
    for replica in replicas() {
        assert_waits(replica).await;
        let missing = missing(replica).await;
        assert!(missing.contains(&"database".to_owned()) && missing.contains(&"broker".to_owned()), "{missing:?}");
    }

    tokio::join!(orders_db.run("start"), payments_db.run("start"));
    for replica in replicas() {
        until_within(SETTLED_WITHIN, "only the broker is missing", async || {
            !missing(replica).await.contains(&"database".to_owned())
        })
        .await;
        assert!(missing(replica).await.contains(&"broker".to_owned()));
    }
    // Orders are accepted without a broker.
    let load = Load::prepare(&cluster, 3, 10).await;
    load.run(3, |number| number < 30).await;

    kafka.run("start").await;
    let started = Instant::now();
    cluster.ready().await;
    println!("ready {:?} after the last server", started.elapsed());
    cluster.settled(SETTLED_WITHIN).await;
    let verdict = cluster.verdict(&load.accepted(), 0).await;
    assert!(verdict.is_clean() && verdict.accepted == 30, "\n{verdict}");
    let schema = Client::new(&cluster.orders[0].base(), None).unwrap().run("{ __typename }", json!({})).await.unwrap();
    assert_eq!(schema.data["__typename"], "Query");
}

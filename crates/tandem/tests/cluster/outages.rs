//! Servers that go away under load and come back.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use crate::{
    cluster::{Cluster, Places, Shape, change, count, unique_prefix},
    kafka::Kafka,
    load::{Load, Trouble},
    replica::{Replica, health},
    servers::{Instance, Servers},
    support::until_within,
};

/// From the end of the load, with everything back, to the last order's end.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);
/// Due orders are looked for every five seconds.
const RESENT_WITHIN: Duration = Duration::from_secs(6);
/// Calls under way at the same time.
const CLIENTS: usize = 8;

/// Runs load while `events` happen, and two seconds more.
async fn under_load<T>(load: &Load, events: impl Future<Output = T>) -> T {
    let over = AtomicBool::new(false);
    let happen = async {
        let before = load.begun();
        until_within(SETTLED_WITHIN, "orders come in", async || load.begun() > before + 50).await;
        let outcome = events.await;
        let before = load.begun();
        until_within(SETTLED_WITHIN, "orders come in again", async || load.begun() > before + 50).await;
        over.store(true, Ordering::Relaxed);
        outcome
    };
    tokio::join!(load.run(CLIENTS, |_| !over.load(Ordering::Relaxed)), happen).1
}

async fn assert_nothing_lost(cluster: &Cluster, load: &Load) {
    let settled = cluster.settled(SETTLED_WITHIN).await;
    let verdict = cluster.verdict(&load.accepted(), 0).await;
    assert!(verdict.is_clean(), "\n{verdict}");
    println!("{verdict}  clients met {:?}, slowest call {:?}, all final {settled:?} later", load.troubles(), load.slowest());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_are_accepted_while_kafka_is_away_and_paid_when_it_is_back() {
    const AWAY_FOR: Duration = Duration::from_secs(20);
    const ANSWERED_WITHIN: Duration = Duration::from_secs(5);
    let Some(servers) = Servers::shared() else { return };
    let Some(orders) = database::testing::postgres::<migrations::OrdersMigrator>().await else { return };
    let Some(payments) = database::testing::postgres::<migrations::PaymentsMigrator>().await else { return };
    let kafka = Instance::kafka("outage").await;
    let places = Places {
        orders_url: crate::cluster::with_database(&servers.postgres, &orders),
        payments_url: crate::cluster::with_database(&servers.postgres, &payments),
        kafka: kafka.url.clone(),
        prefix: unique_prefix("outage"),
    };
    let mut cluster = Cluster::new("kafka-outage", Shape::of(1), places);
    cluster.start_all();
    cluster.ready().await;
    let mut load = Load::prepare(&cluster, 20, 50).await;
    load.pause = Duration::from_millis(100);
    let bases: Vec<String> = cluster.orders.iter().chain(&cluster.payments).map(Replica::base).collect();
    let away = under_load(&load, async {
        let stopped = Instant::now();
        kafka.run("stop").await;
        sleep(AWAY_FOR.saturating_sub(stopped.elapsed())).await;
        for base in &bases {
            let (status, body) = health(base).await.expect("an answer");
            assert_eq!((status, &body["status"]), (200, &"degraded".into()), "no load balancer looks elsewhere: {body}");
        }
        let meanwhile = load.accepted().len();
        kafka.run("start").await;
        meanwhile
    });
    let meanwhile = away.await;
    println!("{meanwhile} orders accepted until Kafka was started again, {} in all", load.accepted().len());
    assert_eq!(load.troubles(), BTreeMap::new(), "no call is refused or without an answer");
    assert!(load.slowest() < ANSWERED_WITHIN, "{:?}", load.slowest());
    assert_nothing_lost(&cluster, &load).await;
    cluster.ready().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn databases_that_restart_under_load_lose_no_accepted_order_and_callers_are_told_to_try_again() {
    let Some(servers) = Servers::shared() else { return };
    let (orders_db, payments_db) = tokio::join!(Instance::postgres("outage-orders"), Instance::postgres("outage-payments"));
    let places = Places {
        orders_url: orders_db.url.clone(),
        payments_url: payments_db.url.clone(),
        kafka: servers.kafka,
        prefix: unique_prefix("databases"),
    };
    let mut cluster = Cluster::new("database-outage", Shape::of(2), places);
    cluster.start_all();
    cluster.ready().await;
    let mut load = Load::prepare(&cluster, 20, 50).await;
    load.pause = Duration::from_millis(20);
    // Any other error than one to try again fails the load.
    under_load(&load, orders_db.run("restart")).await;
    let met = load.troubles();
    assert!(!met.contains_key(&Trouble::NoAnswer), "every call has an answer: {met:?}");
    under_load(&load, payments_db.run("restart")).await;
    assert_eq!(load.troubles(), met, "Payments' database is of no interest to whoever orders");
    // As a crash does.
    under_load(&load, async {
        for server in [&orders_db, &payments_db] {
            server.run("kill").await;
            server.run("start").await;
        }
    })
    .await;
    assert_nothing_lost(&cluster, &load).await;
    cluster.ready().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_that_are_deleted_and_created_anew_with_orders_in_them_lose_no_order_in_the_end() {
    const PARTITIONS: i32 = 6;
    const ON_THEIR_WAY: usize = 100;
    let Some(mut cluster) = Cluster::start("topics", Shape::of(2)).await else { return };
    let mut load = Load::prepare(&cluster, 20, 50).await;
    load.pause = Duration::from_millis(20);
    let kafka = Kafka::new(&cluster.places.kafka);
    let topics = ["payment_tasks", "payment_results"].map(|topic| format!("{}{topic}", cluster.places.prefix));
    let orders = cluster.orders_db().await;

    // Nobody takes these tasks out of the topic before it is deleted.
    for replica in &mut cluster.payments {
        replica.kill().await;
    }
    load.run(CLIENTS, |number| number < ON_THEIR_WAY).await;
    until_within(SETTLED_WITHIN, "every task is published", async || count(&orders, "outbox_orders").await == 0).await;
    cluster.payments.iter_mut().for_each(Replica::start);
    kafka.recreate(&topics, PARTITIONS).await;
    cluster.ready().await;
    // And again, with everybody at work.
    under_load(&load, kafka.recreate(&topics, PARTITIONS)).await;
    cluster.ready().await;

    let begin = Instant::now();
    let mut asked: Option<Instant> = None;
    until_within(SETTLED_WITHIN, "every order is final", async || {
        // The minute after which an order is sent again has passed. Once more every few seconds: Kafka may still be busy with the old
        // topics, and what was sent is lost with them.
        if asked.is_none_or(|asked| asked.elapsed() > RESENT_WITHIN) {
            let lost = change(&orders, "UPDATE pending_orders SET resend_at_ms = 1").await;
            println!("{lost} orders are PENDING after {:?}", begin.elapsed());
            asked = Some(Instant::now());
        }
        count(&orders, "orders WHERE status = 'PENDING'").await == 0
    })
    .await;
    orders.close().await;
    assert_nothing_lost(&cluster, &load).await;
}

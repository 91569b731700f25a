//! Replicas that vanish in the middle of the work.

use std::time::Duration;

use tokio::time::Instant;

use crate::{cluster::Cluster, follower::Followers, load::Load, support::until_within};

/// Users, each followed at every replica.
const USERS: usize = 50;
/// Calls under way at the same time.
const CLIENTS: usize = 32;
/// From a kill to the last order's end.
const SETTLED_WITHIN: Duration = Duration::from_secs(30);

/// Waits until so many orders were taken on.
async fn begun(load: &Load, orders: usize) {
    until_within(Duration::from_secs(60), "enough orders were created", async || load.begun() >= orders).await;
}

/// Nothing is lost or doubled in either database, and every follower has seen everything once.
async fn assert_exact(cluster: &Cluster, load: &Load, followers: Followers, kills: usize) {
    let last = load.last_orders().await;
    cluster.settled(SETTLED_WITHIN).await;
    let ends = followers.saw_everything_once(load, &last).await;
    let verdict = cluster.verdict(&load.accepted(), kills).await;
    assert!(verdict.is_clean(), "\n{verdict}");
    assert!(verdict.paid > 0 && verdict.rejected > 0, "\n{verdict}");
    println!("{verdict}  clients met {:?}, followers met {ends:?}, slowest call {:?}", load.troubles(), load.slowest());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_of_each_service_killed_under_load_loses_and_doubles_nothing() {
    const ORDERS: usize = 5_000;
    let Some(mut cluster) = Cluster::start("killed", 2).await else { return };
    let load = Load::prepare(&cluster, USERS, ORDERS / USERS).await;
    let followers = Followers::start(&load).await;

    let begin = Instant::now();
    let kill = async {
        begun(&load, ORDERS / 2).await;
        let killed = Instant::now();
        cluster.orders[0].kill().await;
        cluster.payments[0].kill().await;
        killed
    };
    let ((), killed) = tokio::join!(load.run(CLIENTS, |number| number < ORDERS), kill);
    println!("{ORDERS} orders accepted in {:?}, killed after {:?}", begin.elapsed(), killed - begin);
    cluster.settled(SETTLED_WITHIN.saturating_sub(killed.elapsed())).await;
    println!("all final {:?} after the kill", killed.elapsed());
    assert_exact(&cluster, &load, followers, 2).await;
}

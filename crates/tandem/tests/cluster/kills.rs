//! Replicas that vanish in the middle of the work.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use crate::{
    cluster::{Cluster, Shape},
    follower::Followers,
    load::Load,
    support::until_within,
};

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
pub async fn assert_exact(cluster: &Cluster, load: &Load, followers: Followers, kills: usize) {
    assert_exact_and(cluster, load, followers, kills, |_| {}).await;
}

/// [`assert_exact`], and a look at why followers had to connect again, and how often.
pub async fn assert_exact_and(
    cluster: &Cluster,
    load: &Load,
    followers: Followers,
    kills: usize,
    look: impl FnOnce(&BTreeMap<String, usize>),
) {
    let last = load.last_orders().await;
    cluster.settled(SETTLED_WITHIN).await;
    let ends = followers.saw_everything_once(load, &last).await;
    let verdict = cluster.verdict(&load.accepted(), kills).await;
    assert!(verdict.is_clean(), "\n{verdict}");
    assert!(verdict.paid > 0 && verdict.rejected > 0, "\n{verdict}");
    look(&ends);
    println!("{verdict}  clients met {:?}, followers met {ends:?}, slowest call {:?}", load.troubles(), load.slowest());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_of_each_service_killed_under_load_loses_and_doubles_nothing() {
    const ORDERS: usize = 5_000;
    let Some(mut cluster) = Cluster::start("killed", Shape::of(2)).await else { return };
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_of_each_service_that_stands_still_for_half_a_minute_and_goes_on_loses_and_doubles_nothing() {
    const STOPPED_FOR: Duration = Duration::from_secs(30);
    const LOAD_FOR: Duration = Duration::from_secs(12);
    let Some(cluster) = Cluster::start("stopped", Shape::of(2)).await else { return };
    let mut load = Load::prepare(&cluster, 10, 10).await;
    // Clients find another replica before the paused one is back.
    load.patience = Duration::from_secs(2);
    load.pause = Duration::from_millis(50);
    let followers = Followers::start(&load).await;

    let begin = Instant::now();
    let stop = async {
        begun(&load, 100).await;
        for replica in [&cluster.orders[0], &cluster.payments[0]] {
            replica.signal("STOP").await;
        }
        Instant::now()
    };
    let ((), stopped) = tokio::join!(load.run(8, |_| begin.elapsed() < LOAD_FOR), stop);
    // The others do the work of those that stand still, whatever locks and partitions these hold.
    let settled = cluster.settled(STOPPED_FOR.saturating_sub(stopped.elapsed())).await;
    println!("{} orders, all final {settled:?} after the last one, while replicas stand still", load.accepted().len());
    tokio::time::sleep_until(stopped + STOPPED_FOR).await;
    for replica in [&cluster.orders[0], &cluster.payments[0]] {
        replica.signal("CONT").await;
    }
    let go_on = Instant::now();
    load.run(8, |_| go_on.elapsed() < Duration::from_secs(2)).await;
    assert_exact(&cluster, &load, followers, 0).await;
}

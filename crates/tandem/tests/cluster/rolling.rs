//! A new version is rolled out: one replica after the other is stopped and started again, behind a load balancer.

use std::time::Duration;

use crate::{
    balancer::Balancer,
    cluster::{Cluster, Shape},
    follower::Followers,
    kills::assert_exact_and,
    load::Load,
    support::until_within,
};

/// More than the restarts of a busy machine take.
const ROLLED_WITHIN: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_fails_no_request_and_subscribers_miss_nothing() {
    let shape = Shape { drain_notice: "2s", ..Shape::of(2) };
    let Some(mut cluster) = Cluster::start("rolling", shape).await else { return };
    let balancer = Balancer::start(cluster.orders.iter().map(|replica| replica.address)).await;
    // Two followers of each user, wherever the balancer sends them.
    let mut load = Load::prepare_at(&cluster, vec![balancer.base(), balancer.base()], 10, 20).await;
    load.pause = Duration::from_millis(20);
    let followers = Followers::start(&load).await;

    let rolled = std::sync::atomic::AtomicBool::new(false);
    let roll = async {
        for replica in 0..cluster.orders.len() {
            let before = load.begun();
            until_within(ROLLED_WITHIN, "orders come in", async || load.begun() > before + 20).await;
            cluster.orders[replica].stop().await;
            cluster.orders[replica].start();
            cluster.orders[replica].ready().await;
        }
        let before = load.begun();
        until_within(ROLLED_WITHIN, "orders come in after all of that", async || load.begun() > before + 50).await;
        rolled.store(true, std::sync::atomic::Ordering::Relaxed);
    };
    tokio::join!(load.run(8, |_| !rolled.load(std::sync::atomic::Ordering::Relaxed)), roll);
    assert_eq!(load.troubles().len(), 0, "every request is answered: {:?}", load.troubles());
    assert_exact_and(&cluster, &load, followers, 0, |ends| {
        assert!(ends.keys().all(|end| end.contains("1012")), "closed with a code that clients take for a restart: {ends:?}");
        assert!(!ends.is_empty(), "somebody was connected to a replica that stopped");
    })
    .await;
}

//! Consumers that come and go.

use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::time::{Instant, sleep};

use crate::{
    cluster::{Cluster, Shape},
    load::Load,
};

/// How long replicas are interrupted; more seconds with this variable.
const SECONDS: u64 = 10;
const SECONDS_VARIABLE: &str = "TANDEM_TEST_REBALANCE_SECONDS";
/// Repeats the choices of a run.
const SEED_VARIABLE: &str = "TANDEM_TEST_SEED";
/// The longest pause between two interruptions: some come while the group still deals with the one before.
const PAUSE_MAX_MS: u64 = 700;
/// From the last interruption to the last order's end: a killed member is missed after six seconds.
const SETTLED_WITHIN: Duration = Duration::from_secs(30);

fn number(variable: &str, otherwise: impl FnOnce() -> u64) -> u64 {
    std::env::var(variable).map_or_else(|_| otherwise(), |text| text.parse().unwrap())
}

/// Starts, stops and kills replicas of Payments at random; how many of each.
async fn interrupt(cluster: &mut Cluster, random: &mut StdRng, until: Instant) -> (usize, usize, usize) {
    let (mut starts, mut stops, mut kills) = (0, 0, 0);
    while Instant::now() < until {
        let replicas = cluster.payments.len();
        let replica = &mut cluster.payments[random.random_range(0..replicas)];
        if !replica.runs() {
            replica.start();
            starts += 1;
        } else if random.random_bool(0.5) {
            // Before it listens to signals, one ends it like any other program.
            replica.signal("TERM").await;
            replica.ended().await;
            stops += 1;
        } else {
            replica.kill().await;
            kills += 1;
        }
        sleep(Duration::from_millis(random.random_range(0..PAUSE_MAX_MS))).await;
    }
    (starts, stops, kills)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consumers_that_join_leave_and_die_at_random_apply_each_task_once() {
    let shape = Shape { orders: 1, payments: 3, ..Shape::of(1) };
    let Some(mut cluster) = Cluster::start("rebalance", shape).await else { return };
    let mut load = Load::prepare(&cluster, 30, 50).await;
    load.pause = Duration::from_millis(20);
    let seed = number(SEED_VARIABLE, || rand::rng().random());
    println!("{SEED_VARIABLE}={seed}");
    let end = Instant::now() + Duration::from_secs(number(SECONDS_VARIABLE, || SECONDS));

    let interrupted = async {
        let mut random = StdRng::seed_from_u64(seed);
        interrupt(&mut cluster, &mut random, end).await
    };
    let ((), (starts, stops, kills)) = tokio::join!(load.run(8, |_| Instant::now() < end), interrupted);
    cluster.payments.iter_mut().filter(|replica| !replica.runs()).for_each(crate::replica::Replica::start);
    cluster.ready().await;
    let settled = cluster.settled(SETTLED_WITHIN).await;
    let verdict = cluster.verdict(&load.accepted(), kills).await;
    assert!(verdict.is_clean(), "\n{verdict}");
    assert_eq!(load.troubles().len(), 0, "orders are accepted whatever becomes of Payments: {:?}", load.troubles());
    println!("{verdict}  {starts} starts, {stops} stops, {kills} kills; all final {settled:?} after the last one was ready");
}

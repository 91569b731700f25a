//! Figure 2: orders that are created, debited and stored as PAID, at a rate that is sustained for a minute.
//!
//! First a closed loop shows about how much the machine can do, and short open loops, each faster than the one before, what it does when it
//! no longer keeps up. Then orders arrive in an open loop at a fixed rate, a little below that, for the whole time, and once a second what is
//! accepted and not yet settled is counted. A rate is sustained when that lag does not grow; if it grows, a lower one is tried.

use std::time::Duration;

use schema::OrderId;
use tokio::time::{Instant, sleep_until};

use crate::bench::{
    Bench, BenchError,
    costs::{Costs, PerOrder},
    load::{Load, Pace, open_accounts},
    progress::Progress,
    report::{Bar, Figure, Yardstick},
    stage::{self, Stage},
    verify,
};

/// Users that order, spread over all partitions.
pub const USERS: usize = 1_000;
/// Connections of the open loop: more than are busy at any moment while the rate is sustained.
const CONNECTIONS: usize = 256;
/// The first short loop is as fast as the closed one, each further one faster by so much.
const PROBE_STEP: f64 = 1.1;
/// Long enough for a lag to grow.
const PROBE: Duration = Duration::from_secs(8);
/// The first rate of the whole time, in parts of the most that a short loop settled: one that falls behind shows what there is to be had, and
/// nothing is sustained without some room.
const FIRST_RATE: f64 = 0.97;
/// Each further try is lower by so much.
const STEP: f64 = 0.97;
/// What may be under way is what arrives in this time; and the lag may not be longer at the end than in the middle by more than this.
const LAG_SLACK_SECONDS: f64 = 0.5;
/// After the last order, everything is settled within this time or the figure is none.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);

/// What a minute at a fixed rate showed.
#[derive(Debug)]
pub struct Sustained {
    /// Orders settled per second of the measured time.
    pub per_second: f64,
    /// Whether the lag did not grow.
    pub sustained: bool,
    /// Every accepted order, those of the warm-up too.
    pub accepted: Vec<OrderId>,
}

/// Measures.
///
/// # Errors
/// [`BenchError`].
pub async fn measure(bench: &mut Bench) -> Result<Vec<Figure>, BenchError> {
    let progress = Progress::new("2 settled");
    let yardstick = bench.order_yardstick(&progress).await?;
    let stage = Stage::start(&bench.servers, "settle").await?;
    let Found { per_second, costs } = find_rate(bench, &stage, &progress).await?;
    let bloat = bloat(&stage).await?;
    stage.stop().await?;
    progress.done();
    bench.settled_per_second = Some(per_second);
    let yardstick = yardstick
        .map(|rate| Yardstick { name: format!("pgbench of figure 1, best at {} clients", rate.clients), value: rate.per_second });
    let name = format!("settled orders, open loop, {} s, lag not growing", bench.options.sustained().as_secs());
    let settled = Figure::new(2, name, per_second, "orders/s", yardstick, Bar::AtLeastTimes(0.5));
    Ok(std::iter::once(settled).chain(costs.figures(2)).chain(bloat).collect())
}

/// What the load left in the tables that every message passes: rows that are dead and not yet vacuumed away, beside the orders that passed.
async fn bloat(stage: &Stage) -> Result<Vec<Figure>, BenchError> {
    let passed = stage.events().await? as f64 / 2.0;
    let mut figures = Vec::new();
    for (db, table) in
        [(&stage.orders_db, "outbox_orders"), (&stage.payments_db, "inbox_payments"), (&stage.payments_db, "outbox_payments")]
    {
        let dead = stage::number(db, &format!("SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = '{table}'")).await?;
        let bytes = stage::number(db, &format!("SELECT pg_total_relation_size('{table}')")).await?;
        let name = format!("  dead rows of {table}, {} MB with its indexes", bytes / 1_000_000);
        let orders = Yardstick { name: "orders that passed it until then".to_owned(), value: passed };
        figures.push(Figure::new(2, name, dead as f64, "rows", Some(orders), Bar::None));
    }
    Ok(figures)
}

/// A rate that is sustained.
#[derive(Debug, Clone, Copy)]
pub struct Found {
    /// Settled orders.
    pub per_second: f64,
    /// Of one order, in that minute.
    pub costs: PerOrder,
}

/// The highest rate of those tried that is sustained.
///
/// # Errors
/// When none is.
pub async fn find_rate(bench: &Bench, stage: &Stage, progress: &Progress) -> Result<Found, BenchError> {
    let target = stage.target(USERS)?;
    progress.step("accounts", Duration::ZERO);
    open_accounts(&target, "1000000.00").await?;
    let mut accepted = Vec::new();
    let capacity = capacity(bench, stage, progress, &mut accepted).await?;
    let mut rate = FIRST_RATE * probe(stage, capacity, progress, &mut accepted).await?;
    for run in RUNS {
        progress.step(format!("{rate:.0} orders/s"), bench.options.sustained());
        let before = Costs::now(stage)?;
        let minute = sustain(stage, run, rate, Duration::from_secs(5), bench.options.sustained()).await?;
        let costs = Costs::now(stage)?.per_order(before, minute.accepted.len());
        tracing::info!("{rate:.0} orders/s took {costs}");
        accepted.extend(minute.accepted);
        verify::accepted_are_settled(stage, &accepted).await?;
        if minute.sustained {
            return Ok(Found { per_second: minute.per_second, costs });
        }
        rate *= STEP;
    }
    Err(BenchError::Unexpected(format!("{rate:.0} orders/s are not sustained either")))
}

/// In front of the idempotency keys of each try. A rate that is not found after so many tries is not worth a figure.
const RUNS: [&str; 8] = ["try-1", "try-2", "try-3", "try-4", "try-5", "try-6", "try-7", "try-8"];
/// The same for short loops.
const PROBES: [&str; 6] = ["probe-1", "probe-2", "probe-3", "probe-4", "probe-5", "probe-6"];

/// The most that short loops settle per second, the first that falls behind included; at least what the closed loop settles.
async fn probe(stage: &Stage, capacity: f64, progress: &Progress, accepted: &mut Vec<OrderId>) -> Result<f64, BenchError> {
    let (mut rate, mut most) = (capacity, capacity);
    for run in PROBES {
        progress.step(format!("{rate:.0} orders/s for a short time"), PROBE);
        let short = sustain(stage, run, rate, Duration::from_secs(2), PROBE).await?;
        accepted.extend(short.accepted);
        most = most.max(short.per_second);
        if !short.sustained {
            break;
        }
        rate *= PROBE_STEP;
    }
    Ok(most)
}

/// What a closed loop settles per second.
async fn capacity(bench: &Bench, stage: &Stage, progress: &Progress, accepted: &mut Vec<OrderId>) -> Result<f64, BenchError> {
    let (warm_up, measured) = (Duration::from_secs(3), bench.options.measured());
    progress.step("capacity, closed loop", warm_up + measured);
    let load = Load { run: "capacity", clients: CONNECTIONS, pace: Pace::Closed, warm_up, measured };
    let started = Instant::now();
    let outcome = load.run(stage.target(USERS)?).await?;
    let created = outcome.accepted.len() as f64;
    accepted.extend(outcome.accepted);
    wait_until_settled(stage, accepted.len()).await?;
    Ok(created / started.elapsed().as_secs_f64())
}

/// Orders at a fixed rate, watched.
///
/// # Errors
/// [`BenchError`], also when orders stay unsettled afterwards.
pub async fn sustain(
    stage: &Stage,
    run: &'static str,
    rate: f64,
    warm_up: Duration,
    measured: Duration,
) -> Result<Sustained, BenchError> {
    let before = settled(stage).await?;
    let load = Load { run, clients: CONNECTIONS, pace: Pace::Open(rate), warm_up, measured };
    let started = Instant::now();
    let counting = async {
        let mut counts = Vec::new();
        let mut second = started + warm_up;
        while second <= started + warm_up + measured {
            sleep_until(second).await;
            counts.push(settled(stage).await?);
            second += Duration::from_secs(1);
        }
        Ok(counts)
    };
    // A refused order ends both at once, and not when the time is over.
    let (outcome, counts) = tokio::try_join!(load.run(stage.target(USERS)?), counting)?;
    let settled_of = |at: &i64| (at - before) as f64;
    let (first, last) = (counts.first(), counts.last());
    let per_second = first.zip(last).map_or(0.0, |(first, last)| (settled_of(last) - settled_of(first)) / measured.as_secs_f64());
    let in_time = |(second, at): (usize, &i64)| {
        // Against what should have arrived, not what was accepted: an intake that is behind is lag too.
        let due = rate * (warm_up.as_secs_f64() + second as f64);
        due - settled_of(at)
    };
    let lags: Vec<f64> = counts.iter().enumerate().map(in_time).collect();
    tracing::info!(rate, per_second, ?lags, "a rate was tried");
    let third = lags.len() / 3;
    let mean = |lags: &[f64]| lags.iter().sum::<f64>() / lags.len().max(1) as f64;
    let grown = mean(&lags[lags.len() - third..]) - mean(&lags[..third]);
    let settled = before - stage.earlier.orders + outcome.accepted.len() as i64;
    wait_until_settled(stage, usize::try_from(settled).unwrap_or_default()).await?;
    Ok(Sustained {
        per_second,
        sustained: grown <= rate * LAG_SLACK_SECONDS && per_second >= 0.98 * rate,
        accepted: outcome.accepted,
    })
}

/// Orders that are settled now. Each has one event when it is created and one when it is decided; the counter counts both, and costs one
/// row to read.
async fn settled(stage: &Stage) -> Result<i64, BenchError> {
    let created =
        stage::number(&stage.orders_db, "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM order_number").await?;
    Ok(stage.events().await? - created)
}

/// Waits until so many orders are settled, besides the earlier ones of the stage.
///
/// # Errors
/// When they are not after a minute.
pub async fn wait_until_settled(stage: &Stage, orders: usize) -> Result<(), BenchError> {
    let deadline = Instant::now() + SETTLED_WITHIN;
    let expected = stage.earlier.orders + i64::try_from(orders).unwrap_or(i64::MAX);
    loop {
        let events = stage.events().await?;
        if events == 2 * expected {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(BenchError::Unexpected(format!("{} of {expected} orders are settled", events - expected)));
        }
        sleep_until(Instant::now() + Duration::from_millis(50)).await;
    }
}

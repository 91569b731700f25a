//! Figure 10: the memory of each service under nine tenths of figure 2's load, and whether it grows over ten minutes.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::settle;
use crate::bench::{
    Bench, BenchError,
    load::open_accounts,
    process::resident_bytes,
    progress::Progress,
    report::{Bar, Figure, Yardstick},
    stage::Stage,
    verify,
};

/// Of figure 2's rate: it does not fall behind, so that no queue is measured.
const SHARE: f64 = 0.9;
const WARM_UP: Duration = Duration::from_secs(5);

/// Measures; figure 2 was measured before.
///
/// # Errors
/// [`BenchError`].
pub async fn measure(bench: &mut Bench) -> Result<Vec<Figure>, BenchError> {
    let progress = Progress::new("10 memory");
    let rate = bench.figure_2()? * SHARE;
    let stage = Stage::start(&bench.servers, "memory").await?;
    progress.step("accounts", Duration::ZERO);
    open_accounts(&stage.target(settle::USERS)?, "1000000.00").await?;
    let measured = Duration::from_secs(if bench.options.quick { 20 } else { 600 });
    progress.step(format!("{rate:.0} orders/s"), WARM_UP + measured);
    let sampling = sample([stage.orders.pid, stage.payments.pid], measured);
    let (minutes, [orders, payments]) = tokio::try_join!(settle::sustain(&stage, "memory", rate, WARM_UP, measured), sampling)?;
    if !minutes.sustained {
        tracing::warn!(rate, settled = minutes.per_second, "the rate was not sustained: the memory is that of a growing queue");
    }
    progress.step("comparing what is stored", Duration::ZERO);
    verify::accepted_are_settled(&stage, &minutes.accepted).await?;
    stage.stop().await?;
    progress.done();
    let time = if bench.options.quick { "20 s" } else { "10 min" };
    Ok(figures("Order Service", rate, time, &orders)
        .into_iter()
        .chain(figures("Payments Service", rate, time, &payments))
        .collect())
}

/// The most that it had, and whether that grows.
fn figures(service: &str, rate: f64, time: &str, megabytes: &[f64]) -> [Figure; 2] {
    let most = megabytes.iter().copied().fold(0.0, f64::max);
    let [_, second, _, last] = parts(megabytes);
    tracing::info!("{service}: megabytes, the mean of each tenth of the time: {:.0?}", parts::<10>(megabytes));
    let name = format!("memory of {service} at {rate:.0} orders/s, most of {time}");
    let before = Yardstick { name: "its mean in the second quarter".to_owned(), value: second };
    [
        Figure::new(10, name, most, "MB", None, Bar::AtMost(150.0)),
        Figure::new(10, "  its mean in the last quarter", last, "MB", Some(before), Bar::AtMostTimes(1.1)),
    ]
}

/// The mean of each of so many equal parts.
fn parts<const N: usize>(samples: &[f64]) -> [f64; N] {
    std::array::from_fn(|number| {
        let part = &samples[samples.len() * number / N..samples.len() * (number + 1) / N];
        part.iter().sum::<f64>() / part.len().max(1) as f64
    })
}

/// Once a second after the warm-up, in megabytes.
async fn sample(pids: [u32; 2], measured: Duration) -> Result<[Vec<f64>; 2], BenchError> {
    let mut samples = [Vec::new(), Vec::new()];
    let mut second = Instant::now() + WARM_UP;
    let end = second + measured;
    while second <= end {
        sleep_until(second).await;
        for (pid, samples) in pids.into_iter().zip(&mut samples) {
            samples.push(resident_bytes(pid)? as f64 / 1e6);
        }
        second += Duration::from_secs(1);
    }
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_grows_misses_its_bar_and_memory_that_has_grown_does_not() {
        let [most, flat] = figures("Order Service", 1.0, "10 min", &[50.0, 90.0, 100.0, 100.0, 101.0, 99.0, 100.0, 102.0]);
        assert_eq!((most.value, most.met, flat.value, flat.met), (102.0, Some(true), 101.0, Some(true)));
        let [most, growing] = figures("Order Service", 1.0, "10 min", &[100.0, 120.0, 140.0, 160.0]);
        assert_eq!((most.met, growing.met), (Some(false), Some(false)));
    }
}

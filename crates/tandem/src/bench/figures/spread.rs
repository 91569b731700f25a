//! Figure 4: what figure 3 measures on one account, spread over many. A batch then changes as many accounts as it has tasks.

use super::hot;
use crate::bench::{
    Bench, BenchError,
    progress::Progress,
    report::{Bar, Figure, Yardstick},
};

/// Measures; figure 3 was measured before.
///
/// # Errors
/// [`BenchError`].
pub async fn measure(bench: &mut Bench) -> Result<Vec<Figure>, BenchError> {
    let progress = Progress::new("4 spread debits");
    let hot = bench.figure_3()?;
    let accounts = if bench.options.quick { 1_000 } else { 10_000 };
    let per_second = hot::debits_per_second(bench, "spread", accounts, &progress).await?;
    progress.done();
    let yardstick = Yardstick { name: "figure 3: the same on one account".to_owned(), value: hot };
    let name = format!("debits over {accounts} accounts, task to ledger");
    Ok(vec![Figure::new(4, name, per_second, "debits/s", Some(yardstick), Bar::AtLeastTimes(0.6))])
}

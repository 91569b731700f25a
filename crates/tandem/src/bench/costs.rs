//! Where the processor's time goes: what each part of the machine spends on one order.

use std::{fmt, fs};

use super::{
    BenchError,
    process::cpu_seconds,
    report::{Bar, Figure},
    stage::Stage,
};

/// Seconds of a core that each part has used so far.
#[derive(Debug, Clone, Copy)]
pub struct Costs([f64; 5]);

const PARTS: [&str; 5] = ["Order Service", "Payments Service", "PostgreSQL", "Kafka", "load generator"];

impl Costs {
    /// Until now. PostgreSQL's processes are those that serve a database of the benchmark, Kafka is every broker on the machine.
    ///
    /// # Errors
    /// When a replica is gone.
    pub fn now(stage: &Stage) -> Result<Self, BenchError> {
        let of_servers = |is_part: fn(&str) -> bool| {
            let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
            let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
            // A process that ends meanwhile is left out.
            ids.filter(|id| fs::read_to_string(format!("/proc/{id}/cmdline")).is_ok_and(|command| is_part(&command)))
                .filter_map(|id| cpu_seconds(id).ok())
                .sum()
        };
        let postgres = of_servers(|command| command.starts_with("postgres:") && command.contains(" bench_"));
        let kafka = of_servers(|command| command.contains("kafka.Kafka"));
        let (orders, payments) = (cpu_seconds(stage.orders.pid)?, cpu_seconds(stage.payments.pid)?);
        Ok(Self([orders, payments, postgres, kafka, cpu_seconds(std::process::id())?]))
    }

    /// What was used since, for each of so many orders.
    #[must_use]
    pub fn per_order(self, since: Self, orders: usize) -> PerOrder {
        let mut micros = [0.0; 5];
        for (part, micros) in micros.iter_mut().enumerate() {
            *micros = (self.0[part] - since.0[part]) * 1e6 / orders.max(1) as f64;
        }
        PerOrder(micros)
    }
}

/// Microseconds of a core per order.
#[derive(Debug, Clone, Copy)]
pub struct PerOrder([f64; 5]);

impl PerOrder {
    /// A line for everything and one for each part, of the figure with this number.
    pub fn figures(self, number: u8) -> impl Iterator<Item = Figure> {
        let all = ("everything", self.0.iter().sum());
        let line = move |(part, micros)| {
            Figure::new(number, format!("  processor time of an order, {part}"), micros, "µs", None, Bar::None)
        };
        std::iter::once(all).chain(PARTS.into_iter().zip(self.0)).map(line)
    }
}

impl fmt::Display for PerOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "µs of a core per order: {:.0}", self.0.iter().sum::<f64>())?;
        PARTS.iter().zip(self.0).try_for_each(|(part, micros)| write!(f, ", {part} {micros:.0}"))
    }
}

//! The dashboard shows metrics that there are: a panel that stays empty looks like a system that does nothing.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;

use runtime::metrics::Metrics;
use serde_json::{Value, json};
use support::{System, until};

const DASHBOARD: &str = include_str!("../../../observability/dashboard.json");

/// Of the dashboard's metrics those that a healthy system does not have: they appear with the first failure of their kind.
const OF_FAILURES: [&str; 10] = [
    "feed_subscribers_cut_off_total",
    "messaging_consumer_retries_total",
    "messaging_dead_letters_total",
    "messaging_publish_failed_total",
    "messaging_sweeper_published_total",
    "messaging_sweeper_stuck_rows_total",
    "orders_resent_often_total",
    "traces_spans_lost_total",
    // Set after the first batch that went through, and only on Kafka from the beginning on.
    "messaging_consumer_held_partitions",
    "messaging_consumer_lag",
];

/// Everything in the panels' expressions that is the name of a metric: what has an underscore and is no function.
fn names_in_dashboard() -> BTreeSet<String> {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let targets = dashboard["panels"].as_array().unwrap().iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let expressions: Vec<&str> = targets.filter_map(|target| target["expr"].as_str()).collect();
    assert!(expressions.len() > 20, "{expressions:?}");
    let words = expressions.iter().flat_map(|expression| expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'));
    let names = words.filter(|word| word.contains('_') && !word.starts_with("__") && *word != "histogram_quantile");
    names
        .map(|name| ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name).to_owned())
        .collect()
}

fn names_in_metrics(text: &str) -> BTreeSet<String> {
    text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_metric_of_the_dashboard_is_one_that_a_running_system_has() {
    let metrics = Metrics::install().unwrap();
    let Some(system) = System::start().await else { return };
    let ada = system.user_with("ada", "20", "EUR").await;
    let mut socket = ada.socket().await;
    socket.subscribe("s", "subscription { orderEvents { status } }", json!({})).await;
    let order = ada.order("1").await;
    ada.paid(&order).await;
    socket.event("s", "orderEvents").await.unwrap();
    drop(socket);

    let shown = names_in_dashboard();
    let missing = || {
        let there = names_in_metrics(&metrics.render());
        let expected = shown.iter().filter(|name| !OF_FAILURES.contains(&name.as_str()));
        expected.filter(|name| !there.contains(*name)).cloned().collect::<Vec<_>>()
    };
    until("nothing is missing", async || missing().is_empty()).await;
}

#[test]
fn every_metric_that_appears_with_a_failure_is_one_that_the_code_knows() {
    let shown = names_in_dashboard();
    let mut sources = String::new();
    for folder in ["crates", "order-service", "payment-service"] {
        read_sources(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(folder), &mut sources);
    }
    for name in OF_FAILURES {
        assert!(shown.contains(name), "{name} is not shown");
        assert!(sources.contains(&format!("!(\"{name}\"")), "{name} is not known");
    }
}

/// What is compiled into the programs.
fn read_sources(folder: &std::path::Path, into: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        match name {
            "tests" | "examples" | "node_modules" | "target" => {}
            _ if path.is_dir() => read_sources(&path, into),
            _ if name.ends_with(".rs") => into.push_str(&std::fs::read_to_string(&path).unwrap()),
            _ => {}
        }
    }
}

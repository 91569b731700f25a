//! The whole system as it runs in a cluster: real PostgreSQL, real Apache Kafka, replicas as processes that are killed, stopped and cut off.
//!
//! `TANDEM_TEST_POSTGRES_URL` and `TANDEM_TEST_KAFKA_BROKERS` name servers that the tests share (`scripts/test-postgres start` and
//! `scripts/test-kafka start` print them); each test has databases and a topic prefix of its own there. Tests that stop servers start
//! some of their own. Without servers the tests say so and pass, unless `TANDEM_TEST_REQUIRE_SERVERS=1`.
//!
//! The replicas are the programs `order-service` and `payment-service` beside this one (`cargo build -p order-service -p payment-service`), or
//! those in `TANDEM_TEST_BIN_DIR`. Their logs are in `target/tmp/cluster`.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a test tells what it measured, and that it was skipped")]

mod balancer;
mod cluster;
mod follower;
mod kafka;
mod load;
mod replica;
mod servers;
mod support;

mod idle;
mod kills;
mod outages;
mod poison;
mod rebalance;
mod rolling;
mod settings;
mod startup;
mod system;

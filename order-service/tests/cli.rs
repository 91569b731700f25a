//! The binary as an operator meets it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::{Command, Output};

use runtime::testing::{names_in_compose, names_in_help, names_in_tables};

fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_order-service"))
        .args(arguments)
        .env_clear()
        .envs(environment.iter().copied())
        .output()
        .unwrap()
}

#[test]
fn a_wrong_setting_is_named_with_what_was_read_and_what_is_allowed() {
    let good = [
        ("DATABASE_URL", "sqlite:///nowhere/x.db"),
        ("KAFKA_BROKERS", "localhost:9"),
        ("JWT_SECRET", "0123456789abcdef0123456789abcdef"),
    ];
    for (name, wrong, allowed) in [
        ("DATABASE_URL", "mysql://x", "postgres://"),
        ("KAFKA_BROKERS", "localhost", "host:port"),
        ("KAFKA_PARTITIONS", "0", "1 to 1000"),
        ("TOPIC_PREFIX", "a/b", "letters"),
        ("JWT_SECRET", "short", "32 bytes"),
        ("LISTEN", "8000", "host:port"),
        ("SUBGRAPH_LISTEN", "8002", "host:port"),
        ("GRAPHIQL", "yes", "true or false"),
        ("INTROSPECTION", "1", "true or false"),
        ("CORS_ORIGINS", "shop", "https://"),
        ("MIGRATE_ON_START", "no", "true or false"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "tempo:4318", "http://tempo:4318"),
        ("OTEL_TRACES_SAMPLER", "some", "parentbased_traceidratio"),
    ] {
        let environment: Vec<(&str, &str)> =
            good.iter().copied().filter(|(known, _)| *known != name).chain([(name, wrong)]).collect();
        let output = run(&["run"], &environment);
        let line = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && output.stdout.is_empty(), "{name}");
        assert!(line.starts_with("order-service: ") && line.lines().count() == 1, "{line}");
        assert!(line.contains(name) && line.contains(allowed), "{line}");
    }
}

#[test]
fn every_setting_is_documented_and_the_compose_file_uses_no_unknown_one() {
    let help = String::from_utf8(run(&["run", "--help"], &[]).stdout).unwrap();
    let known = names_in_help(&help);
    let documented = names_in_tables(include_str!("../../docs/CONFIGURATION.md"));
    assert!(known.contains("KAFKA_BROKERS"), "{known:?}");
    assert_eq!(known.difference(&documented).collect::<Vec<_>>(), [""; 0], "not in docs/CONFIGURATION.md");

    let used = names_in_compose(include_str!("../../docker-compose.yml"), "x-order-service");
    assert!(used.contains("KAFKA_BROKERS"), "{used:?}");
    assert_eq!(used.difference(&known).collect::<Vec<_>>(), [""; 0], "in docker-compose.yml, but not known");
}

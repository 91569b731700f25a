//! The binary as an operator meets it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::{Command, Output};

use runtime::testing::{names_in_compose, names_in_help, names_in_tables};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_payment-service"))
        .args(arguments)
        .env_clear()
        .envs(environment.iter().copied())
        .output()
        .unwrap()
}

fn refused(arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let output = run(arguments, environment);
    assert!(!output.status.success(), "{arguments:?} {environment:?}");
    assert!(output.stdout.is_empty());
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_token_is_the_only_thing_on_stdout() {
    let arguments = ["token", "--user", "ada", "--scope", "admin", "--ttl", "1h"];
    let output = run(&arguments, &[("JWT_SECRET", SECRET)]);
    assert!(output.status.success(), "{output:?}");
    let token = String::from_utf8(output.stdout).unwrap();
    assert_eq!(token.lines().count(), 1);
    assert_eq!(token.trim().split('.').count(), 3);

    assert!(refused(&arguments, &[]).contains("JWT_SECRET is not set"));
    let short = refused(&arguments, &[("JWT_SECRET", "hunter2")]);
    assert!(short.contains("JWT_SECRET") && short.contains("32 bytes") && !short.contains("hunter2"), "{short}");
    let ttl = refused(&["token", "--user", "ada", "--ttl", "soon"], &[("JWT_SECRET", SECRET)]);
    assert!(ttl.contains("--ttl") && ttl.contains("soon") && ttl.contains("12h"), "{ttl}");
}

#[test]
fn the_sdl_is_printed_as_the_library_writes_it() {
    let output = run(&["schema"], &[]);
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), payment_service::graphql::sdl());
}

#[test]
fn the_tables_can_be_brought_up_to_date_more_than_once() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}/payments.db", folder.path().display());
    for _ in 0..2 {
        let output = run(&["migrate"], &[("DATABASE_URL", &url)]);
        assert!(output.status.success(), "{output:?}");
    }
}

#[test]
fn an_operator_can_have_everything_added_up() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}/payments.db", folder.path().display());
    assert!(refused(&["audit"], &[("DATABASE_URL", &url)]).contains("accounts"), "there are no tables yet");
    assert!(run(&["migrate"], &[("DATABASE_URL", &url)]).status.success());
    let output = run(&["audit"], &[("DATABASE_URL", &url)]);
    assert!(output.status.success(), "{output:?}");
    let told = String::from_utf8(output.stdout).unwrap();
    assert_eq!(told, "0 accounts, 0 ledger entries, 0 paid and 0 rejected orders\neverything adds up\n");
}

#[test]
fn a_wrong_setting_is_named_with_what_was_read_and_what_is_allowed() {
    let valid = [("DATABASE_URL", "sqlite:///nowhere/x.db"), ("JWT_SECRET", SECRET)];
    let with = |name: &'static str, value: &'static str| {
        let mut environment: Vec<_> = valid.iter().copied().filter(|(known, _)| *known != name).collect();
        environment.push((name, value));
        refused(&["run"], &environment)
    };
    for (name, value, allowed) in [
        ("LISTEN", "8001", "host:port"),
        ("MIGRATE_ON_START", "perhaps", "true or false"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "tempo:4318", "http://tempo:4318"),
        ("OTEL_TRACES_SAMPLER", "some", "parentbased_traceidratio"),
        ("TOPIC_PREFIX", "a/b", "letters, digits"),
        ("KAFKA_BROKERS", "kafka", "host:port"),
        ("JWKS", "/no/such/file", "a readable file"),
    ] {
        let error = with(name, value);
        assert!(error.contains(name) && error.contains(value) && error.contains(allowed), "{error}");
    }
    let error = with("DATABASE_URL", "mysql://root:hunter2@db/x");
    assert!(error.contains("DATABASE_URL") && error.contains("postgres://") && !error.contains("hunter2"), "{error}");
    assert!(with("DATABASE_URL", "").contains("DATABASE_URL is not set"));
}

#[test]
fn a_replica_without_a_broker_says_what_to_start_instead() {
    let valid = [("DATABASE_URL", "sqlite:///nowhere/x.db"), ("JWT_SECRET", SECRET)];
    let without = refused(&["run"], &valid);
    assert!(without.contains("KAFKA_BROKERS is not set") && without.contains("`tandem`"), "{without}");
    assert_eq!(without.trim().lines().count(), 1, "one clear line: {without}");
}

#[test]
fn every_setting_is_documented_and_the_compose_file_uses_no_unknown_one() {
    let help = String::from_utf8(run(&["run", "--help"], &[]).stdout).unwrap();
    let known = names_in_help(&help);
    let documented = names_in_tables(include_str!("../../docs/CONFIGURATION.md"));
    assert!(known.contains("KAFKA_BROKERS"), "{known:?}");
    assert_eq!(known.difference(&documented).collect::<Vec<_>>(), [""; 0], "not in docs/CONFIGURATION.md");

    let used = names_in_compose(include_str!("../../docker-compose.yml"), "payment-service");
    assert!(used.contains("KAFKA_BROKERS"), "{used:?}");
    assert_eq!(used.difference(&known).collect::<Vec<_>>(), [""; 0], "in docker-compose.yml, but not known");
}

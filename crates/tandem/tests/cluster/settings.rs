//! Settings that cannot be meant: the process ends at once and says which one, what was read, and what is allowed.

use std::process::Output;

use tokio::{process::Command, time::timeout};

use crate::{
    replica::program,
    support::{PATIENCE, system::SECRET},
};

/// Everything that a replica needs. Nobody answers there, so that a setting that was not checked first is noticed.
const GOOD: [(&str, &str); 5] = [
    ("DATABASE_URL", "postgres://tandem:a-password@127.0.0.1:1/orders"),
    ("KAFKA_BROKERS", "127.0.0.1:1"),
    ("LISTEN", "127.0.0.1:0"),
    ("PAYMENTS_URL", "http://127.0.0.1:1/graphql"),
    ("JWT_SECRET", SECRET),
];

/// What is set, and words of the refusal.
type Case<'a> = (Vec<(&'a str, &'a str)>, Vec<&'a str>);

async fn run(service: &str, changes: &[(&str, &str)]) -> Output {
    let mut command = Command::new(program(service));
    command.arg("run").env_clear().envs(GOOD).envs(changes.iter().copied()).kill_on_drop(true);
    let output = timeout(PATIENCE, command.output()).await;
    output.unwrap_or_else(|_| panic!("{service} with {changes:?} does not end")).unwrap()
}

/// The program ends with one line, its log aside, that has these words and none of the secrets.
async fn assert_refused(service: &str, changes: &[(&str, &str)], words: &[&str]) {
    let output = run(service, changes).await;
    let (stdout, stderr) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(!output.status.success(), "{service} {changes:?}");
    let is_log = |line: &&str| line.starts_with('{');
    // Libraries' threads may log until the very end, also after it.
    let said: Vec<&str> = stderr.lines().filter(|line| !is_log(line)).collect();
    let [line] = said[..] else { panic!("{service} {changes:?}: {stderr}") };
    assert_eq!(stdout, "", "{service} {changes:?}");
    for word in words {
        assert!(line.contains(word), "{service} {changes:?}: no {word} in {line}");
    }
    assert!(!stderr.contains("hunter2"), "{service} {changes:?}: {stderr}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_setting_ends_the_process_with_its_name_what_was_read_and_what_is_allowed() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap().to_string();
    let port = taken.rsplit(':').next().unwrap();
    let sasl = [("KAFKA_SECURITY_PROTOCOL", "sasl_plaintext"), ("KAFKA_SASL_MECHANISM", "PLAIN"), ("KAFKA_SASL_USERNAME", "ada")];
    let both: Vec<Case<'_>> = vec![
        (vec![("DATABASE_URL", "")], vec!["DATABASE_URL is not set", "postgres://"]),
        (vec![("DATABASE_URL", "mysql://root:hunter2@db/x")], vec!["DATABASE_URL", "postgres://", "mysql"]),
        (vec![("DATABASE_URL", "postgres://root:hunter2@db")], vec!["DATABASE_URL", "names no database"]),
        (vec![("DATABASE_URL", "hunter2")], vec!["DATABASE_URL", "postgres://"]),
        (vec![("DATABASE_URL_FILE", "/nowhere")], vec!["DATABASE_URL", "DATABASE_URL_FILE"]),
        (vec![("DATABASE_URL", ""), ("DATABASE_URL_FILE", "/nowhere")], vec!["DATABASE_URL_FILE", "/nowhere"]),
        (vec![("MIGRATE_ON_START", "maybe")], vec!["MIGRATE_ON_START", "\"maybe\"", "true or false"]),
        (vec![("KAFKA_BROKERS", "")], vec!["KAFKA_BROKERS is not set", "host:port", "tandem"]),
        (vec![("KAFKA_BROKERS", "kafka")], vec!["KAFKA_BROKERS", "\"kafka\"", "host:port"]),
        (vec![("KAFKA_SECURITY_PROTOCOL", "tls")], vec!["KAFKA_SECURITY_PROTOCOL", "\"tls\"", "sasl_ssl"]),
        (sasl[..1].to_vec(), vec!["KAFKA_SASL_MECHANISM is not set", "SCRAM-SHA-512"]),
        (sasl.to_vec(), vec!["KAFKA_SASL_PASSWORD is not set"]),
        ([&sasl[..1], &[("KAFKA_SASL_MECHANISM", "MAGIC")]].concat(), vec!["KAFKA_SASL_MECHANISM", "\"MAGIC\"", "PLAIN"]),
        (
            [&sasl[..], &[("KAFKA_SASL_PASSWORD", "hunter2"), ("KAFKA_SASL_PASSWORD_FILE", "/nowhere")]].concat(),
            vec!["KAFKA_SASL_PASSWORD", "KAFKA_SASL_PASSWORD_FILE"],
        ),
        (vec![("KAFKA_PARTITIONS", "0")], vec!["KAFKA_PARTITIONS", "\"0\"", "1 to 1000"]),
        (vec![("KAFKA_REPLICATION", "many")], vec!["KAFKA_REPLICATION", "\"many\"", "1 to 100"]),
        (vec![("TOPIC_PREFIX", "staging/")], vec!["TOPIC_PREFIX", "\"staging/\"", "letters"]),
        (vec![("JWT_SECRET", "")], vec!["JWT_SECRET is not set", "32 bytes"]),
        (vec![("JWT_SECRET", "hunter2")], vec!["JWT_SECRET", "32 bytes"]),
        (vec![("JWT_SECRET_FILE", "/nowhere")], vec!["JWT_SECRET", "JWT_SECRET_FILE"]),
        (vec![("JWKS", "/nowhere")], vec!["JWKS", "\"/nowhere\"", "file or a URL"]),
        (vec![("LISTEN", "8000")], vec!["LISTEN", "\"8000\"", "host:port"]),
        (vec![("LISTEN", &taken)], vec!["LISTEN", port, "taken"]),
        (vec![("DRAIN_NOTICE", "soon")], vec!["DRAIN_NOTICE", "\"soon\"", "0s to 60s"]),
        (vec![("RUST_LOG", "tandem=loud")], vec!["RUST_LOG", "tandem=loud"]),
    ];
    for service in ["order-service", "payment-service"] {
        for (changes, words) in &both {
            assert_refused(service, changes, words).await;
        }
    }
    for (changes, words) in [
        (("PAYMENTS_URL", "payments"), vec!["PAYMENTS_URL", "\"payments\"", "http://"]),
        (("PAYMENTS_URL", "ftp://payments/graphql"), vec!["PAYMENTS_URL", "ftp://", "http://"]),
        (("SUBGRAPH_LISTEN", "8001"), vec!["SUBGRAPH_LISTEN", "\"8001\"", "host:port"]),
        (("GRAPHIQL", "on"), vec!["GRAPHIQL", "\"on\"", "true or false"]),
        (("INTROSPECTION", "1"), vec!["INTROSPECTION", "\"1\"", "true or false"]),
        (("CORS_ORIGINS", "shop.example"), vec!["CORS_ORIGINS", "shop.example", "https://"]),
    ] {
        assert_refused("order-service", &[changes], &words).await;
    }
}

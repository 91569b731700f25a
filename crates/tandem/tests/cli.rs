//! The program as a person meets it: what it prints, what it refuses, how it ends.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::{path::Path, time::Duration};

use serde_json::json;
use support::{
    Process, Socket, process,
    user::{CREATE_ACCOUNT, CREATE_ORDER, TOP_UP, money, text},
};
use tandem::client::Client;
use tokio::{net::TcpListener, process::Command, time::Instant};

/// What is promised to whoever starts it.
const START_TIME: Duration = Duration::from_secs(3);
/// Draining with an idle socket open has nothing to wait for.
const STOP_TIME: Duration = Duration::from_secs(5);

/// The one line on stderr of a start that was refused.
async fn refusal(command: Command) -> String {
    let output = process::output(command).await;
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success(), "{stderr}");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "", "stdout is for what was asked for");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.starts_with("tandem: "), "{stderr}");
    stderr.trim_end().to_owned()
}

fn run_on(folder: &Path) -> Command {
    let mut command = process::command(["--port", "0", "--data-dir"]);
    command.arg(folder);
    command
}

#[tokio::test]
async fn a_start_takes_less_than_three_seconds_and_its_curl_line_works() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start(folder.path()).await;
    assert!(process.started_in < START_TIME, "{:?}", process.started_in);
    assert!(process.banner.contains("GraphiQL") && process.banner.contains("Token of \"demo\""), "{}", process.banner);

    let curl = process.curl();
    let output = process::output({
        let mut command = Command::new("sh");
        command.arg("-c").arg(&curl);
        command
    })
    .await;
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let expected = json!({ "data": { "me": { "id": "user_ZGVtbw", "account": null, "orders": { "nodes": [] } } } });
    assert_eq!(answer, expected, "{curl}");

    for link in ["GraphiQL", "Start"] {
        let page = reqwest::get(process.link(link)).await.unwrap().error_for_status().unwrap().text().await.unwrap();
        assert!(page.contains(process.token()), "{link} is signed in");
    }
    process.signal("TERM").await;
    let (status, rest) = process.end().await;
    assert!(status.success());
    assert_eq!(rest.trim(), "", "stdout only has the banner");
}

#[tokio::test]
async fn the_banner_says_what_is_true_of_a_server_for_others_and_of_one_without_graphiql() {
    for (arguments, said, unsaid) in [
        (["--host", "0.0.0.0"], "without a token of its own", "signed in"),
        (["--graphiql", "false"], "switched off", "/graphiql"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let process = Process::start_with(run_on(folder.path()).args(arguments)).await;
        assert!(process.banner.contains(said) && !process.banner.contains(unsaid), "{}", process.banner);
        let page = reqwest::get(process.link("Start")).await.unwrap().text().await.unwrap();
        assert_eq!(page.contains(process.token()), arguments[0] != "--host", "only this machine's own page knows the token");
        process.signal("TERM").await;
        process.end().await;
    }
}

/// Creates an account with money and an order; answers the order's id.
async fn buy(client: &Client) -> String {
    client.run(CREATE_ACCOUNT, json!({ "input": { "currencyCode": "EUR" } })).await.unwrap();
    client.run(TOP_UP, json!({ "input": { "amount": money("100", "EUR") } })).await.unwrap();
    let input = json!({ "input": { "total": money("12.50", "EUR"), "description": "a book" } });
    let answer = client.run(CREATE_ORDER, input).await.unwrap();
    text(&answer.data["createOrder"]["order"]["id"])
}

/// `hangs_up`: whether the client of the open socket answers the close by hanging up, as it should.
async fn a_signal_loses_nothing(signal: &str, hangs_up: bool) {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start(folder.path()).await;
    let address = process.base().replace("http://localhost", "127.0.0.1").parse().unwrap();
    let mut socket = Socket::connect(address).await;
    socket.init(process.token()).await;
    socket.subscribe("live", "subscription { orderEvents { status } }", json!({})).await;
    let order = buy(&process.client()).await;
    // The order was accepted this moment; whether it is paid already is chance.
    let begin = Instant::now();
    process.signal(signal).await;
    assert_eq!(socket.close_code().await, 1012, "clients come back after this code");
    let socket = (!hangs_up).then_some(socket);
    let (status, _) = process.end().await;
    assert_eq!(status.code(), Some(0));
    assert!(begin.elapsed() < STOP_TIME, "{:?}", begin.elapsed());
    drop(socket);

    let process = Process::start(folder.path()).await;
    let client = process.client();
    let query = "query($id: ID!) { order(id: $id) { status } me { account { balance { amount } } } }";
    support::until("the order is paid", async || {
        let answer = client.run(query, json!({ "id": order })).await.unwrap();
        answer.data["order"]["status"] == "PAID" && answer.data["me"]["account"]["balance"]["amount"] == "87.50"
    })
    .await;
}

#[tokio::test]
async fn ctrl_c_ends_it_cleanly_and_the_next_start_has_everything() {
    a_signal_loses_nothing("INT", true).await;
}

#[tokio::test]
async fn sigterm_ends_it_cleanly_even_if_a_socket_does_not_hang_up() {
    a_signal_loses_nothing("TERM", false).await;
}

#[tokio::test]
async fn stopped_under_load_it_ends_in_time_and_keeps_whatever_it_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start(folder.path()).await;
    let client = process.client();
    let order = |caller: usize, call: usize| {
        let key = format!("{caller}-{call}");
        let total = money("1", "EUR");
        json!({ "input": { "total": total, "description": "a book", "idempotencyKey": key } })
    };
    // Each caller orders until it is refused or cut off; what it was told until then counts.
    let (enough, mut reached) = tokio::sync::watch::channel(0);
    let callers = (0..8).map(async |caller| {
        let mut accepted = Vec::new();
        while let Ok(answer) = client.run(CREATE_ORDER, order(caller, accepted.len())).await {
            let Some(id) = answer.data["createOrder"]["order"]["id"].as_str() else { break };
            accepted.push(id.to_owned());
            enough.send_modify(|count| *count += 1);
        }
        accepted
    });
    let stop = async {
        reached.wait_for(|count| *count >= 100).await.unwrap();
        process.signal("TERM").await;
        Instant::now()
    };
    let (accepted, signaled) = tokio::join!(futures_util::future::join_all(callers), stop);
    let (status, _) = process.end().await;
    assert_eq!(status.code(), Some(0));
    assert!(signaled.elapsed() < STOP_TIME, "{:?}", signaled.elapsed());

    let process = Process::start(folder.path()).await;
    let client = process.client();
    let query = "query($id: ID!) { order(id: $id) { status } }";
    for id in accepted.iter().flatten() {
        let decided = async || {
            let answer = client.run(query, json!({ "id": id })).await.unwrap();
            assert_ne!(answer.data["order"], json!(null), "{id} was accepted");
            answer.data["order"]["status"] == "REJECTED"
        };
        support::until("an accepted order is decided", decided).await;
    }
}

#[tokio::test]
async fn a_token_is_printed_alone_and_the_server_on_that_folder_accepts_it() {
    let folder = tempfile::tempdir().unwrap();
    let token = |user: &str, more: &[&str]| {
        let mut command = process::command(["token", "--user", user, "--data-dir"]);
        command.arg(folder.path()).args(more);
        process::output(command)
    };
    let output = token("ada", &[]).await;
    assert!(output.status.success());
    assert!(output.stderr.is_empty());
    let printed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(printed.lines().count(), 1, "{printed}");

    let process = Process::start(folder.path()).await;
    let me = process.client().signed_in(printed.trim()).run("{ me { id } }", json!({})).await.unwrap();
    assert_eq!(me.data["me"]["id"], "user_YWRh");
    let admin = String::from_utf8(token("root", &["--scope", "admin"]).await.stdout).unwrap();
    let someone = process.client().signed_in(admin.trim()).run("{ user(id: \"user_YWRh\") { id } }", json!({})).await.unwrap();
    assert_eq!(someone.data["user"]["id"], "user_YWRh");

    let output = token("ada", &["--ttl", "soon"]).await;
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && output.stdout.is_empty());
    assert!(stderr.starts_with("tandem: --ttl is \"soon\"") && stderr.lines().count() == 1, "{stderr}");
    let refused = process::output(process::command(["token"])).await;
    assert!(!refused.status.success() && refused.stdout.is_empty(), "--user is required");
}

#[tokio::test]
async fn help_names_every_command_and_flag_with_its_variable() {
    let output = process::output(process::command(["--help"])).await;
    assert!(output.status.success());
    let help = String::from_utf8(output.stdout).unwrap();
    for word in ["run", "token", "prove", "--port", "PORT", "8000", "--host", "--data-dir", "DATA_DIR", "./data", "JWT_SECRET"] {
        assert!(help.contains(word), "{word} is missing in {help}");
    }
    for command in ["run", "token", "prove"] {
        let output = process::output(process::command([command, "--help"])).await;
        assert!(output.status.success() && !output.stdout.is_empty(), "{command}");
    }
}

#[tokio::test]
async fn port_and_folder_can_be_chosen_and_the_run_command_is_the_same_as_none() {
    let folder = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let nested = folder.path().join("made/on/the/way");
    let mut command = process::command(["run", "--port", &port.to_string(), "--data-dir"]);
    let process = Process::start_with(command.arg(&nested)).await;
    assert_eq!(process.base(), format!("http://localhost:{port}"));
    for file in ["orders.db", "payments.db", "broker.db", "jwt.key"] {
        assert!(nested.join(file).is_file(), "{file}");
    }
}

#[tokio::test]
async fn flags_have_variables() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = process::command::<&str>([]);
    command.env("PORT", "0").env("DATA_DIR", folder.path()).env("GRAPHIQL", "false").env("INTROSPECTION", "false");
    let process = Process::start_with(&mut command).await;
    assert!(folder.path().join("orders.db").is_file());
    for path in ["graphiql", "schema.graphql"] {
        let status = reqwest::get(format!("{}/{path}", process.base())).await.unwrap().status();
        assert_eq!(status.as_u16(), 404, "{path}");
    }
    let answer = process.client().run("{ __schema { queryType { name } } }", json!({})).await.unwrap();
    assert!(answer.code().is_some(), "introspection is off: {answer:?}");
}

#[tokio::test]
async fn a_taken_port_is_one_line_that_names_it_and_a_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let mut command = process::command(["--port", &port, "--data-dir"]);
    command.arg(folder.path());
    let line = refusal(command).await;
    assert!(line.contains(&port) && line.contains("--port"), "{line}");
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_one_line_that_names_it() {
    let file = tempfile::NamedTempFile::new().unwrap();
    // Below a file nothing can be made, not even by root.
    let folder = file.path().join("data");
    let line = refusal(run_on(&folder)).await;
    assert!(line.contains(folder.to_str().unwrap()), "{line}");

    let mut command = process::command(["token", "--user", "ada", "--data-dir"]);
    command.arg(&folder);
    let line = refusal(command).await;
    assert!(line.contains(folder.to_str().unwrap()), "{line}");
}

#[tokio::test]
async fn a_folder_in_use_is_refused_and_its_owner_is_not_disturbed() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start(folder.path()).await;
    let line = refusal(run_on(folder.path())).await;
    assert!(line.contains("in use by another process") && line.contains(folder.path().to_str().unwrap()), "{line}");
    buy(&process.client()).await;
}

#[tokio::test]
async fn a_setting_that_cannot_be_used_is_named_with_what_was_read_and_what_is_allowed() {
    let folder = tempfile::tempdir().unwrap();
    for (name, value, allowed) in [
        ("RUST_LOG", "info,sqlx=loud", "info,sqlx=debug"),
        ("GRAPHIQL", "perhaps", "true"),
        ("INTROSPECTION", "2", "true"),
        ("CORS_ORIGINS", "shop.example", "https://shop.example"),
        ("PORT", "eighty", "a port from 0 to 65535"),
        ("PORT", "65536", "a port from 0 to 65535"),
    ] {
        let mut command = process::command(["--data-dir"]);
        command.arg(folder.path()).env("PORT", "0").env(name, value);
        let line = refusal(command).await;
        assert!(line.contains(name) && line.contains(value) && line.contains(allowed), "{line}");
    }
    let mut command = run_on(folder.path());
    command.env("JWT_SECRET", "too-short-for-comfort");
    let line = refusal(command).await;
    assert!(line.contains("JWT_SECRET") && line.contains("32"), "{line}");
    assert!(!line.contains("too-short-for-comfort"), "a secret is not repeated: {line}");
}

#[tokio::test]
async fn an_empty_variable_counts_as_not_set() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = process::command(["token", "--user", "ada"]);
    command.current_dir(folder.path()).env("DATA_DIR", "").env("JWT_SECRET", "");
    let output = process::output(command).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(folder.path().join("data/jwt.key").exists());
}

#[tokio::test]
async fn a_given_secret_signs_in_place_of_the_folder_s_key() {
    let folder = tempfile::tempdir().unwrap();
    let secret = "0123456789abcdef0123456789abcdef";
    let process = Process::start_with(run_on(folder.path()).env("JWT_SECRET", secret)).await;
    let token = async |secret: Option<&str>| {
        let mut command = process::command(["token", "--user", "ada", "--data-dir"]);
        command.arg(folder.path());
        if let Some(secret) = secret {
            command.env("JWT_SECRET", secret);
        }
        let token = String::from_utf8(process::output(command).await.stdout).unwrap();
        process.client().signed_in(token.trim()).run("{ me { id } }", json!({})).await.unwrap()
    };
    assert_eq!(token(Some(secret)).await.data["me"]["id"], "user_YWRh");
    assert_eq!(token(None).await.code(), Some("UNAUTHENTICATED"), "the folder's own key is another one");
}

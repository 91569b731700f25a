//! What frontends see, with the software that they use: npm `graphql-ws`, code generators, GraphiQL in a real browser, curl.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says when it is skipped"
)]

mod stage;

use std::{
    collections::{BTreeMap, HashSet},
    path::PathBuf,
};

use serde_json::{Value, json};
use stage::{
    PATIENCE,
    node::{Script, script, skip, succeeds},
    orders::Orders,
    server::{Process, Stop, in_process, in_process_at},
};
use tokio::{process::Command, time::Instant};

#[tokio::test]
async fn a_followed_order_is_pending_then_paid_and_then_the_subscription_completes() {
    let (tandem, _folder) = in_process().await;
    let orders = Orders::with_money(&tandem.url(), tandem.demo_token()).await;
    tandem.payments().pause_consumer().await;
    let order = orders.create("held").await;
    let Some(mut command) = script("follow.mjs") else { return };
    command.args([format!("{}/graphql", tandem.url()), tandem.demo_token().to_owned(), order.clone()]);
    let mut follower = Script::start(command);
    let event = |version: u32, status: &str| json!({ "event": { "version": version, "status": status, "order": { "id": order, "status": status } } });
    assert_eq!(follower.line().await, event(1, "PENDING"));
    tandem.payments().resume_consumer();
    assert_eq!(follower.line().await, event(2, "PAID"));
    assert_eq!(follower.line().await, json!({ "complete": true }));
    tandem.stop().await;
}

#[tokio::test]
async fn a_decided_order_sends_its_state_once_and_completes() {
    let (tandem, _folder) = in_process().await;
    let orders = Orders::with_money(&tandem.url(), tandem.demo_token()).await;
    let order = orders.create("decided").await;
    orders.until_decided(&order).await;
    let Some(mut command) = script("follow.mjs") else { return };
    command.args([format!("{}/graphql", tandem.url()), tandem.demo_token().to_owned(), order]);
    let mut follower = Script::start(command);
    let line = follower.line().await;
    assert_eq!((&line["event"]["version"], &line["event"]["status"]), (&json!(2), &json!("PAID")), "{line}");
    assert_eq!(follower.line().await, json!({ "complete": true }));
    tandem.stop().await;
}

#[tokio::test]
async fn an_unknown_order_is_not_found() {
    let (tandem, _folder) = in_process().await;
    let Some(mut command) = script("follow.mjs") else { return };
    command.args([
        format!("{}/graphql", tandem.url()),
        tandem.demo_token().to_owned(),
        "order_01h455vb4pex5vsknk084sn02q".to_owned(),
    ]);
    let line = Script::start(command).line().await;
    let errors = line.get("errors").or_else(|| line.get("error")).unwrap_or(&Value::Null);
    assert_eq!(errors[0]["extensions"]["code"], "NOT_FOUND", "{line}");
    tandem.stop().await;
}

/// Orders that are placed while everything breaks, at least.
const ORDERS: usize = 100;
/// So often a connection has to have been broken, or nothing was put to the test.
const BREAKS: usize = 25;
/// As many as there is money for: enough for every break.
const MAX_ORDERS: usize = 1000;
/// Placed before the follower has to have caught up: enough to be behind when the next break comes.
const ORDERS_AHEAD: usize = 5;

#[tokio::test]
async fn nothing_is_missed_or_repeated_while_the_server_restarts_and_connections_break() {
    let Some(mut command) = script("resume.ts") else { return };
    let mut server = Process::start().await;
    let token = server.token("ada");
    let orders = Orders::with_money(&server.url(), &token).await;
    command.args([server.url(), token]);
    let mut follower = Follower::start(command);
    follower.until(|seen| seen.snapshots == 1).await;
    assert!(follower.seen.broken >= 3, "connecting was not interrupted");

    let mut placed = Vec::new();
    while placed.len() < ORDERS || follower.seen.broken < BREAKS {
        assert!(placed.len() < MAX_ORDERS, "only {} breaks", follower.seen.broken);
        match placed.len() {
            10 | 70 => server.restart(Stop::Asked).await,
            40 => server.restart(Stop::Killed).await,
            _ => {}
        }
        let order = orders.create(&format!("order {}", placed.len())).await;
        placed.push(order.clone());
        if placed.len().is_multiple_of(ORDERS_AHEAD) {
            follower.until(|seen| seen.is_paid(&order)).await;
        }
    }
    follower.script.write("calm").await;
    let last = orders.create("the last").await;
    follower.until(|seen| seen.is_paid(&last)).await;
    placed.push(last);

    let seen = follower.seen;
    eprintln!("{} breaks, {} connections, {} events", seen.broken, seen.connections, seen.cursors.len());
    assert_eq!(seen.snapshots, 1, "it went on, and did not start anew");
    for order in &placed {
        assert_eq!(seen.versions[order], [1, 2], "{order}");
    }
    assert_eq!(seen.versions.len(), placed.len(), "orders that nobody placed");
    assert_eq!(seen.cursors.iter().collect::<HashSet<_>>().len(), seen.cursors.len(), "an event was repeated");
    server.stop(Stop::Asked).await;
}

#[tokio::test]
async fn a_client_whose_cursor_is_gone_starts_anew() {
    let (before, folder) = in_process().await;
    let address = before.orders().address();
    let token = before.demo_token().to_owned();
    let orders = Orders::with_money(&before.url(), &token).await;
    let Some(mut command) = script("resume.ts") else { return };
    command.args([before.url(), token.clone(), "direct".to_owned()]);
    let mut follower = Follower::start(command);
    follower.until(|seen| seen.snapshots == 1).await;
    let old = orders.create("before").await;
    follower.until(|seen| seen.is_paid(&old)).await;
    before.stop().await;

    // The same key and address, but nothing that the cursor could point to.
    let (after, _folder) = in_process_at(address.port(), Some(folder.path())).await;
    follower.until(|seen| seen.snapshots == 2).await;
    let new = orders.create("after").await;
    follower.until(|seen| seen.is_paid(&new)).await;
    assert_eq!((&follower.seen.versions[&old][..], &follower.seen.versions[&new][..]), (&[1, 2][..], &[1, 2][..]));
    after.stop().await;
}

/// The example's code, and what it has printed.
struct Follower {
    script: Script,
    seen: Seen,
}

#[derive(Default)]
struct Seen {
    snapshots: usize,
    broken: usize,
    connections: usize,
    versions: BTreeMap<String, Vec<u64>>,
    cursors: Vec<String>,
}

impl Follower {
    fn start(command: Command) -> Self {
        Self { script: Script::start(command), seen: Seen::default() }
    }

    async fn until(&mut self, is_enough: impl Fn(&Seen) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_enough(&self.seen) {
            assert!(Instant::now() < deadline, "it does not catch up");
            self.seen.add(&self.script.line().await);
        }
    }
}

impl Seen {
    fn is_paid(&self, order: &str) -> bool {
        self.versions.get(order).is_some_and(|versions| versions.contains(&2))
    }

    fn add(&mut self, line: &Value) {
        if let Some(event) = line.get("event") {
            let order = event["order"].as_str().unwrap().to_owned();
            self.versions.entry(order).or_default().push(event["version"].as_u64().unwrap());
            self.cursors.push(event["cursor"].as_str().unwrap().to_owned());
        } else if line.get("snapshot").is_some() {
            self.snapshots += 1;
        } else if line.get("broken").is_some() {
            self.broken += 1;
        } else if line.get("connected").is_some() {
            self.connections += 1;
        } else {
            panic!("the follower ended: {line}");
        }
    }
}

#[tokio::test]
async fn generated_types_compile_strictly() {
    let (tandem, folder) = in_process().await;
    let Some(mut command) = script("codegen.mjs") else { return };
    let sdl = reqwest::get(format!("{}/schema.graphql", tandem.url())).await.unwrap().text().await.unwrap();
    let schema = folder.path().join("schema.graphql");
    std::fs::write(&schema, sdl).unwrap();
    let work = folder.path().join("codegen");
    std::fs::create_dir(&work).unwrap();
    command.args([schema, work]);
    assert!(succeeds(command).await.contains("codegen: ok"));
    tandem.stop().await;
}

#[tokio::test]
async fn a_newcomer_sees_an_order_being_paid_in_graphiql() {
    in_browser("graphiql.mjs", "graphiql: ok").await;
}

#[tokio::test]
async fn the_start_page_leads_on_without_script_or_network() {
    in_browser("start-page.mjs", "start page: ok").await;
}

async fn in_browser(name: &str, expected: &str) {
    let Some(mut command) = script(name) else { return };
    let chromium = std::env::var("CHROMIUM").unwrap_or_else(|_| "/usr/bin/chromium".to_owned());
    if !PathBuf::from(&chromium).exists() {
        skip(&format!("{name} needs {chromium}, or CHROMIUM set to its path"));
        return;
    }
    let (tandem, _folder) = in_process().await;
    command.arg(tandem.url());
    if let Ok(folder) = std::env::var("TANDEM_TEST_SCREENSHOTS") {
        command.arg(folder);
    }
    let text = succeeds(command).await;
    assert!(text.contains(expected), "{text}");
    tandem.stop().await;
}

#[tokio::test]
async fn the_commands_on_the_start_page_work_as_they_are() {
    let (tandem, _folder) = in_process().await;
    let page = reqwest::get(tandem.url()).await.unwrap();
    assert_eq!(page.headers()["cache-control"], "no-store", "it carries a token");
    let page = page.text().await.unwrap();
    let commands = page.split_once("<pre id=\"curl\">").unwrap().1.split_once("</pre>").unwrap().0;
    let commands =
        commands.replace("&#39;", "'").replace("&quot;", "\"").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    if std::process::Command::new("curl").arg("--version").output().is_err() {
        skip("the commands need curl");
        return;
    }
    let output = Command::new("sh").args(["-c", &commands]).output().await.unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    assert_eq!(answer, json!({ "data": { "me": { "account": null, "orders": { "nodes": [] } } } }));
    tandem.stop().await;
}

//! The GraphiQL page in a real browser: it works, and it needs nothing but this server.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says when it is skipped"
)]

mod support;

use std::path::PathBuf;

use graphql_transport::{GraphiqlOptions, TransportOptions, graphiql_router};
use support::Server;
use support::node::{script, servers_are_required, succeeds};

#[tokio::test]
async fn the_page_works_without_any_network() {
    let Some(mut command) = script("graphiql.mjs") else { return };
    let chromium = std::env::var("CHROMIUM").unwrap_or_else(|_| "/usr/bin/chromium".to_owned());
    if !PathBuf::from(&chromium).exists() {
        assert!(!servers_are_required(), "chromium is needed: set CHROMIUM to its path");
        eprintln!("SKIPPED: graphiql.mjs needs {chromium}, or CHROMIUM set to its path");
        return;
    }
    let options = TransportOptions::default();
    let (app, probe) = support::app(options.clone());
    let page = GraphiqlOptions {
        title: "Test API".to_owned(),
        token: Some("ada".to_owned()),
        user: Some("ada".to_owned()),
        default_tabs: vec![
            ("Who am I", "query Hello {\n  hello\n  user\n}").into(),
            ("Live", "subscription Count {\n  count(to: 3)\n}").into(),
            ("Endless", "subscription Hanging {\n  hanging\n}").into(),
        ],
        ..GraphiqlOptions::default()
    };
    let app = app.merge(graphiql_router(page));
    let server = Server::serve("127.0.0.1:0".parse().unwrap(), options, app, probe).await;
    command.arg(format!("http://{}/graphiql", server.address));
    if let Ok(folder) = std::env::var("TANDEM_TEST_SCREENSHOTS") {
        command.arg(folder);
    }
    let text = succeeds(command).await;
    assert!(text.contains("graphiql: ok"), "{text}");
}

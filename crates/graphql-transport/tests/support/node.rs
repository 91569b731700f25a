//! Runs the scripts in `tests/js` with node.
#![allow(clippy::print_stderr, reason = "a skipped test must be seen")]

use std::path::PathBuf;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::PATIENCE;

/// Whether a missing tool is a failure: in `make check` and CI it is.
pub fn servers_are_required() -> bool {
    std::env::var("TANDEM_TEST_REQUIRE_SERVERS").is_ok_and(|value| value == "1")
}

/// A command that runs `script`, or `None`, said loudly, when there is no node on this machine.
pub fn script(script: &str) -> Option<Command> {
    let has_node = std::process::Command::new("node").arg("--version").stdout(Stdio::null()).status().is_ok();
    if !has_node {
        assert!(!servers_are_required(), "node is needed for {script}");
        eprintln!("SKIPPED: {script} needs node");
        return None;
    }
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/js");
    assert!(folder.join("node_modules").is_dir(), "run `npm ci` in {} first", folder.display());
    let mut command = Command::new("node");
    command.current_dir(folder).arg(script).kill_on_drop(true);
    Some(command)
}

/// Runs it to its end and fails with its output unless it succeeds.
pub async fn succeeds(mut command: Command) -> String {
    let output = tokio::time::timeout(PATIENCE * 6, command.output()).await.expect("in time").unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}");
    text
}

/// A running script and the JSON lines that it prints.
pub struct Script {
    lines: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Script {
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { lines, _child: child }
    }

    /// The next line; null at the end.
    pub async fn line(&mut self) -> serde_json::Value {
        let line = tokio::time::timeout(PATIENCE, self.lines.next_line()).await.expect("in time").unwrap();
        line.map_or(serde_json::Value::Null, |line| serde_json::from_str(&line).unwrap())
    }
}

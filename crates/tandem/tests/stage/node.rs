//! Runs the scripts in `tests/js` with node.

use std::{path::PathBuf, process::Stdio};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

use super::PATIENCE;

/// Says loudly that something could not be tested; fails where everything has to be.
pub fn skip(reason: &str) {
    assert!(std::env::var("TANDEM_TEST_REQUIRE_SERVERS").as_deref() != Ok("1"), "{reason}");
    eprintln!("SKIPPED: {reason}");
}

/// A command that runs `script`, or `None` when there is no node on this machine.
pub fn script(script: &str) -> Option<Command> {
    if std::process::Command::new("node").arg("--version").output().is_err() {
        skip(&format!("{script} needs node"));
        return None;
    }
    let workspace = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    for package in ["crates/tandem/tests/js", "examples"] {
        assert!(workspace.join(package).join("node_modules").is_dir(), "run first: make {package}/node_modules");
    }
    let mut command = Command::new("node");
    command.current_dir(workspace.join("crates/tandem/tests/js")).args(["--import", "tsx"]).arg(script).kill_on_drop(true);
    Some(command)
}

/// Runs it to its end and fails with its output unless it succeeds.
pub async fn succeeds(mut command: Command) -> String {
    let output = timeout(PATIENCE * 6, command.output()).await.expect("in time").unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}");
    text
}

/// A running script that prints JSON lines and reads lines.
pub struct Script {
    lines: Lines<BufReader<ChildStdout>>,
    stdin: ChildStdin,
    _child: Child,
}

impl Script {
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { lines, stdin: child.stdin.take().unwrap(), _child: child }
    }

    /// The next line; null at the end.
    pub async fn line(&mut self) -> Value {
        let line = timeout(PATIENCE, self.lines.next_line()).await.expect("in time").unwrap();
        line.map_or(Value::Null, |line| serde_json::from_str(&line).unwrap_or_else(|_| panic!("not JSON: {line}")))
    }

    pub async fn write(&mut self, line: &str) {
        self.stdin.write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }
}

//! The `tandem` program as a person starts it.

use std::{
    ffi::OsStr,
    path::Path,
    process::{ExitStatus, Output, Stdio},
    time::Duration,
};

use tandem::client::Client;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    process::{Child, ChildStdout, Command},
    time::{Instant, timeout},
};

use super::PATIENCE;

/// Settings that the surroundings of a test may have.
const VARIABLES: [&str; 8] = ["PORT", "HOST", "DATA_DIR", "GRAPHIQL", "INTROSPECTION", "CORS_ORIGINS", "JWT_SECRET", "RUST_LOG"];

/// The program with these arguments, without settings from the surroundings.
pub fn command<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tandem"));
    for variable in VARIABLES {
        command.env_remove(variable);
    }
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// Runs a command that ends by itself.
pub async fn output(mut command: Command) -> Output {
    timeout(PATIENCE, command.output()).await.expect("an end in time").unwrap()
}

/// A running server.
pub struct Process {
    child: Child,
    stdout: BufReader<ChildStdout>,
    /// Everything that it wrote on stdout until it was ready.
    pub banner: String,
    /// From the start of the process to the last line of the banner.
    pub started_in: Duration,
}

impl Process {
    /// Starts on a folder with a free port and waits for the whole banner.
    pub async fn start(data_dir: &Path) -> Self {
        Self::start_with(command(["--port", "0", "--data-dir"]).arg(data_dir)).await
    }

    pub async fn start_with(command: &mut Command) -> Self {
        let begin = Instant::now();
        // Nobody reads the log here, and a full pipe would stop its writer.
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut banner = String::new();
        while !banner.contains("Ctrl-C stops it") {
            let read = timeout(PATIENCE, stdout.read_line(&mut banner)).await.expect("the banner in time").unwrap();
            assert_ne!(read, 0, "it ended by itself: {banner}");
        }
        Self { child, stdout, banner, started_in: begin.elapsed() }
    }

    /// The first URL of the banner's line that starts with this word.
    pub fn link(&self, word: &str) -> &str {
        let line = self.banner.lines().find(|line| line.trim_start().starts_with(word)).unwrap();
        line.split_whitespace().find(|part| part.starts_with("http://")).unwrap()
    }

    /// The token of the banner: the one word of a line that looks like one.
    pub fn token(&self) -> &str {
        self.banner.lines().map(str::trim).find(|line| line.starts_with("eyJ") && !line.contains(' ')).unwrap()
    }

    /// The curl command of the banner with all its lines.
    pub fn curl(&self) -> String {
        let start = self.banner.find("curl").unwrap();
        let mut lines = Vec::new();
        for line in self.banner[start..].lines() {
            lines.push(line);
            if !line.ends_with('\\') {
                break;
            }
        }
        lines.join("\n")
    }

    /// `http://host:port`.
    pub fn base(&self) -> &str {
        self.link("GraphQL").trim_end_matches("/graphql")
    }

    pub fn client(&self) -> Client {
        Client::new(self.base(), Some(self.token().to_owned())).unwrap()
    }

    pub async fn signal(&self, signal: &str) {
        let id = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args([&format!("-{signal}"), &id]).status().await.unwrap().success());
    }

    /// Waits for the end; what it wrote on stdout since the banner.
    pub async fn end(mut self) -> (ExitStatus, String) {
        let mut rest = String::new();
        timeout(PATIENCE, self.stdout.read_to_string(&mut rest)).await.expect("an end in time").unwrap();
        (timeout(PATIENCE, self.child.wait()).await.expect("an end in time").unwrap(), rest)
    }
}

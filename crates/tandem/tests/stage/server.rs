//! Servers to test: in this process, or a process of its own that can be killed.

use std::{net::TcpListener, path::Path, process::Stdio, time::Duration};

use tandem::embedded::{EmbeddedSettings, Tandem, signer};
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

use super::PATIENCE;

/// Pause between two looks at whether it is ready.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Everything in this process, on a free port.
pub async fn in_process() -> (Tandem, TempDir) {
    in_process_at(0, None).await
}

/// The same at a port, with the key, but no other data, of the folder `key_of`.
pub async fn in_process_at(port: u16, key_of: Option<&Path>) -> (Tandem, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    if let Some(other) = key_of {
        std::fs::copy(other.join("jwt.key"), folder.path().join("jwt.key")).unwrap();
    }
    let settings = EmbeddedSettings {
        host: "127.0.0.1".to_owned(),
        port,
        data_dir: folder.path().to_owned(),
        graphiql: true,
        introspection: true,
        cors_origins: Vec::new(),
        jwt_secret: None,
    };
    (Tandem::start(settings).await.unwrap(), folder)
}

/// How a process ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// It drains: its sockets are closed with 1012.
    Asked,
    /// Without any warning.
    Killed,
}

/// `tandem run` on a folder and at a port that stay the same.
pub struct Process {
    folder: TempDir,
    port: u16,
    child: Child,
}

impl Process {
    pub async fn start() -> Self {
        runtime::install_tls_provider();
        let folder = tempfile::tempdir().unwrap();
        // Free at this moment, and bound again at once.
        let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let child = spawn(folder.path(), port);
        let mut process = Self { folder, port, child };
        process.until_ready().await;
        process
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn token(&self, user: &str) -> String {
        signer(self.folder.path(), None).unwrap().sign::<&str>(user, &[], Duration::from_secs(3600)).unwrap()
    }

    pub async fn restart(&mut self, how: Stop) {
        self.stop(how).await;
        self.child = spawn(self.folder.path(), self.port);
        self.until_ready().await;
    }

    pub async fn stop(&mut self, how: Stop) {
        let signal = if how == Stop::Asked { "-TERM" } else { "-KILL" };
        let id = self.child.id().expect("it is running").to_string();
        Command::new("kill").args([signal, &id]).status().await.unwrap();
        let status = timeout(PATIENCE, self.child.wait()).await.expect("it stops in time").unwrap();
        assert_eq!(status.success(), how == Stop::Asked, "{status}");
    }

    async fn until_ready(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        let url = format!("{}/health/ready", self.url());
        while !reqwest::get(&url).await.is_ok_and(|response| response.status().is_success()) {
            assert_eq!(self.child.try_wait().unwrap(), None, "it ended by itself");
            assert!(Instant::now() < deadline, "it is not ready in time");
            sleep(LOOK_AGAIN).await;
        }
    }
}

fn spawn(folder: &Path, port: u16) -> Child {
    Command::new(env!("CARGO_BIN_EXE_tandem"))
        .args(["run", "--port", &port.to_string(), "--data-dir"])
        .arg(folder)
        .env_remove("JWT_SECRET")
        .env("RUST_LOG", "error")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

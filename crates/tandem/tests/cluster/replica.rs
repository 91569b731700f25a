//! One replica of a service: a process that can be killed, paused, stopped and started again at the same address.

use std::{
    fs::File,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use serde_json::Value;
use tokio::{
    process::{Child, Command},
    time::timeout,
};

use crate::support::{PATIENCE, until_within};

/// Below the ports that the system gives to clients, so that a replica which is down finds its own free when it starts again.
const FIRST_PORT: u16 = 20_000;
/// Ports per test process; one for each replica of each test, with room to skip those that are taken.
const PORTS: u16 = 500;
/// A replica that is starting waits for nothing here that takes longer, also on a busy machine.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// For one question about health.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(5);

/// The programs that stand beside this one.
pub fn program(name: &str) -> PathBuf {
    let folder = match std::env::var_os("TANDEM_TEST_BIN_DIR") {
        Some(folder) => PathBuf::from(folder),
        // target/debug/deps/cluster-… → target/debug
        None => std::env::current_exe().unwrap().ancestors().nth(2).unwrap().to_owned(),
    };
    let program = folder.join(name);
    assert!(program.is_file(), "{} is missing: run `cargo build -p order-service -p payment-service`", program.display());
    program
}

/// A port of 127.0.0.1 that nobody else uses.
pub fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Two test processes at the same time start at different places.
    let start = u16::try_from(std::process::id() % 20).unwrap() * PORTS;
    (0..PORTS)
        .map(|_| SocketAddr::from((Ipv4Addr::LOCALHOST, FIRST_PORT + start + NEXT.fetch_add(1, Ordering::Relaxed) % PORTS)))
        .find(|address| TcpListener::bind(address).is_ok())
        .expect("a free port")
}

/// A process, or one that was.
pub struct Replica {
    program: PathBuf,
    settings: Vec<(&'static str, String)>,
    pub address: SocketAddr,
    log: PathBuf,
    child: Option<Child>,
}

impl Replica {
    /// Not started yet. `LISTEN` is its own.
    pub fn new(service: &str, log: &Path, mut settings: Vec<(&'static str, String)>) -> Self {
        let address = free_address();
        settings.push(("LISTEN", address.to_string()));
        std::fs::create_dir_all(log.parent().unwrap()).unwrap();
        File::create(log).unwrap();
        Self { program: program(service), settings, address, log: log.to_owned(), child: None }
    }

    /// `http://host:port`.
    pub fn base(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Starts the process and returns at once.
    pub fn start(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.log.display());
        let log = File::options().append(true).open(&self.log).unwrap();
        let mut command = Command::new(&self.program);
        command.arg("run").env_clear().envs(self.settings.iter().map(|(name, value)| (*name, value)));
        if let Ok(filter) = std::env::var("RUST_LOG") {
            command.env("RUST_LOG", filter);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).kill_on_drop(true);
        self.child = Some(command.spawn().unwrap());
    }

    /// Whether the process was started and has not been stopped since.
    pub fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// Waits until it says that it is ready; answers how long that took.
    pub async fn ready(&mut self) -> Duration {
        let (base, log) = (self.base(), self.log.clone());
        let child = self.child.as_mut().expect("it was started");
        until_within(READY_WITHIN, &format!("a replica is ready, see {}", log.display()), async || {
            assert_eq!(child.try_wait().unwrap(), None, "it ended by itself, see {}", log.display());
            health(&base).await.is_some_and(|(status, _)| status == 200)
        })
        .await
    }

    /// Sends a signal to the running process.
    pub async fn signal(&self, signal: &str) {
        let id = self.child.as_ref().and_then(Child::id).expect("it runs").to_string();
        assert!(Command::new("kill").args([&format!("-{signal}"), &id]).status().await.unwrap().success());
    }

    /// As a power cut does.
    pub async fn kill(&mut self) {
        self.signal("KILL").await;
        assert!(!self.ended().await.success());
    }

    /// As an orderly shutdown does.
    pub async fn stop(&mut self) {
        self.signal("TERM").await;
        let status = self.ended().await;
        assert!(status.success(), "{status}, see {}", self.log.display());
    }

    /// Waits for the end of the process.
    pub async fn ended(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("it runs");
        timeout(PATIENCE, child.wait()).await.unwrap_or_else(|_| panic!("it does not end, see {}", self.log.display())).unwrap()
    }
}

/// What `/health/ready` answers: the status and the body. `None` without an answer.
pub async fn health(base: &str) -> Option<(u16, Value)> {
    // A client of its own, so that no connection outlives the question.
    let client = reqwest::Client::builder().timeout(HEALTH_TIMEOUT).build().unwrap();
    let response = client.get(format!("{base}/health/ready")).send().await.ok()?;
    Some((response.status().as_u16(), response.json().await.ok()?))
}

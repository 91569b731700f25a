//! The process that is killed.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use tokio::{
    process::{Child, Command},
    sync::Mutex,
    time::{Instant, sleep, timeout},
};

/// A start takes about a second in a debug build; this is for machines under load.
const START_TIME: Duration = Duration::from_secs(60);
/// Draining is bounded by the server itself; this is for machines under load.
const STOP_TIME: Duration = Duration::from_secs(30);
/// Pause between two looks at whether it is ready.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// What can go wrong with a process.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// It could not be started, or could not be talked to.
    #[error("cannot run the server: {0}")]
    Io(#[from] std::io::Error),
    /// It ended by itself.
    #[error("the server ended by itself with {0}; its log is server.log in the data folder")]
    Ended(ExitStatus),
    /// It did not become ready.
    #[error("the server is not ready after {seconds} s; its log is server.log in the data folder", seconds = START_TIME.as_secs())]
    NotReady,
    /// It did not stop when asked.
    #[error("the server does not stop within {seconds} s", seconds = STOP_TIME.as_secs())]
    NotStopped,
}

/// A `tandem run` on a folder, which survives its process.
pub(crate) struct Server {
    program: PathBuf,
    data_dir: PathBuf,
    port: u16,
    child: Mutex<Child>,
    kills: AtomicUsize,
}

impl Server {
    /// Starts the process and waits until it is ready.
    pub(crate) async fn start(program: PathBuf, data_dir: PathBuf) -> Result<Self, ServerError> {
        // Free at this moment, and bound again at once. Every start has to use the same one, as clients expect of a server.
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let child = spawn(&program, &data_dir, port)?;
        let server = Self { program, data_dir, port, child: Mutex::new(child), kills: AtomicUsize::new(0) };
        server.wait_until_ready(&mut *server.child.lock().await).await?;
        Ok(server)
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Its base URL.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// The folder with the databases and the key.
    pub(crate) fn data_dir(&self) -> &std::path::Path {
        &self.data_dir
    }

    /// How often it was killed.
    pub(crate) fn kills(&self) -> usize {
        self.kills.load(Ordering::Relaxed)
    }

    /// SIGKILL, without any warning, and a new process on the same folder.
    pub(crate) async fn kill_and_restart(&self) -> Result<(), ServerError> {
        let mut child = self.child.lock().await;
        child.kill().await?;
        self.kills.fetch_add(1, Ordering::Relaxed);
        *child = spawn(&self.program, &self.data_dir, self.port)?;
        self.wait_until_ready(&mut child).await
    }

    /// Waits until a restart that is under way is over.
    pub(crate) async fn running(&self) {
        drop(self.child.lock().await);
    }

    /// Asks it to stop and waits for its end.
    pub(crate) async fn stop(self) -> Result<(), ServerError> {
        let mut child = self.child.into_inner();
        if let Some(id) = child.id() {
            Command::new("kill").args(["-TERM", &id.to_string()]).status().await?;
        }
        let status = timeout(STOP_TIME, child.wait()).await.map_err(|_| ServerError::NotStopped)??;
        if status.success() { Ok(()) } else { Err(ServerError::Ended(status)) }
    }

    async fn wait_until_ready(&self, child: &mut Child) -> Result<(), ServerError> {
        let deadline = Instant::now() + START_TIME;
        let url = format!("{}/health/ready", self.url());
        while Instant::now() < deadline {
            if let Some(status) = child.try_wait()? {
                return Err(ServerError::Ended(status));
            }
            if reqwest::get(&url).await.is_ok_and(|response| response.status().is_success()) {
                return Ok(());
            }
            sleep(LOOK_AGAIN).await;
        }
        Err(ServerError::NotReady)
    }
}

fn spawn(program: &PathBuf, data_dir: &PathBuf, port: u16) -> Result<Child, ServerError> {
    std::fs::create_dir_all(data_dir)?;
    let log = std::fs::OpenOptions::new().create(true).append(true).open(data_dir.join("server.log"))?;
    let child = Command::new(program)
        .args(["run", "--port", &port.to_string(), "--data-dir"])
        .arg(data_dir)
        .env_remove("JWT_SECRET")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()?;
    Ok(child)
}

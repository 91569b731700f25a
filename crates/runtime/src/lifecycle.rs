//! The end of a process, in order: it may be announced (connections are no longer kept, so that load
//! balancers and clients look elsewhere), the soft token is cancelled (stop accepting, finish what is
//! in hand), after a grace time the hard token is cancelled (let go of everything), and a little
//! later the process ends whatever still runs. A second signal skips the grace time.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long tasks get after the hard token: to see it and to return.
const AFTER_HARD: Duration = Duration::from_secs(2);

/// The lifecycle of one process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Shutdown {
    announced: CancellationToken,
    soft: CancellationToken,
    hard: CancellationToken,
    tasks: TaskTracker,
    grace: Duration,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Every task finished within the grace time.
    Drained,
    /// Some tasks were told to let go, and did.
    Forced,
    /// So many tasks did not even then return.
    Abandoned(usize),
}

impl Shutdown {
    /// With the given time between the soft and the hard token. Orchestrators kill after 10 s
    /// (Docker) or 30 s (Kubernetes): stay below.
    pub fn new(grace: Duration) -> Self {
        let soft = CancellationToken::new();
        // Not a child of the soft one: it is cancelled later.
        Self { announced: CancellationToken::new(), soft, hard: CancellationToken::new(), tasks: TaskTracker::new(), grace }
    }

    /// The same, begun by the first SIGINT or SIGTERM; a second one ends the grace time, which loses nothing that is durable.
    ///
    /// # Errors
    ///
    /// When the handlers cannot be installed.
    pub fn by_signals(grace: Duration) -> std::io::Result<Self> {
        let shutdown = Self::new(grace);
        shutdown.on_signals()?;
        Ok(shutdown)
    }

    /// Cancelled when the process should stop accepting work and finish what it has.
    pub fn soft(&self) -> &CancellationToken {
        &self.soft
    }

    /// Cancelled when the time for that is over.
    pub fn hard(&self) -> &CancellationToken {
        &self.hard
    }

    /// Tells that the shutdown is near: servers go on, but ask their clients not to keep their connections.
    /// Otherwise a client could send a request at the very moment in which its idle connection is closed.
    pub fn announce(&self) {
        self.announced.cancel();
    }

    /// Whether the shutdown was announced or has begun.
    pub fn is_announced(&self) -> bool {
        self.announced.is_cancelled() || self.soft.is_cancelled()
    }

    /// Begins the shutdown. Repeating it changes nothing.
    pub fn begin(&self, reason: &str) {
        if !self.soft.is_cancelled() {
            tracing::info!(reason, grace_ms = ms(self.grace), "shutting down");
            self.soft.cancel();
        }
    }

    /// Ends the grace time now.
    pub fn force(&self, reason: &str) {
        self.begin(reason);
        self.hard.cancel();
    }

    /// Runs a task that the shutdown waits for.
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tasks.spawn(task)
    }

    /// Listens for SIGINT and SIGTERM (elsewhere: Ctrl-C). The first begins the shutdown, the second
    /// ends its grace time.
    ///
    /// # Errors
    ///
    /// When the handlers cannot be installed.
    pub fn on_signals(&self) -> std::io::Result<()> {
        let mut signals = Signals::new()?;
        let shutdown = self.clone();
        tokio::spawn(async move {
            let first = signals.next().await;
            shutdown.begin(first);
            let second = signals.next().await;
            shutdown.force(second);
        });
        Ok(())
    }

    /// Waits for the shutdown to begin and for its end.
    pub async fn finished(&self) -> Ending {
        self.soft.cancelled().await;
        self.tasks.close();
        tokio::select! {
            () = self.tasks.wait() => return Ending::Drained,
            () = tokio::time::sleep(self.grace) => tracing::warn!(tasks = self.tasks.len(), "the grace time is over"),
            () = self.hard.cancelled() => {}
        }
        self.hard.cancel();
        if tokio::time::timeout(AFTER_HARD, self.tasks.wait()).await.is_ok() {
            return Ending::Forced;
        }
        let left = self.tasks.len();
        tracing::warn!(tasks = left, "ending with tasks that do not return");
        Ending::Abandoned(left)
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    #[expect(clippy::unnecessary_wraps, reason = "the same as on Unix")]
    fn new() -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> &'static str {
        if tokio::signal::ctrl_c().await.is_err() {
            // No handler could be installed: the system's own ends the process.
            std::future::pending::<()>().await;
        }
        "Ctrl-C"
    }
}

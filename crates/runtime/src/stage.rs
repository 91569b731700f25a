//! Tasks that a service lives by: stopped in the order of the flow, and never missed silently.
//!
//! A task that panics leaves a process that looks alive and does only a part of its work. Everything that is durable is picked up by the next start, so the
//! cure is to end: the [`Supervisor`] tells whoever runs the service ([`crate::program::until_over`]), and an orchestrator starts it again.

use std::sync::{Arc, OnceLock};

use tokio::task::JoinHandle;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Hears of the first task of a service that panics. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Supervisor {
    died: CancellationToken,
    first: Arc<OnceLock<&'static str>>,
}

/// A task has panicked; the log says where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the task \"{task}\" has panicked, and nothing goes on without it; the log says where. What is durable is picked up by the next start"
)]
pub struct TaskDied {
    /// Its name.
    pub task: &'static str,
}

impl Supervisor {
    /// A stage without tasks.
    pub fn stage(&self) -> Stage {
        Stage { stop: CancellationToken::new(), tasks: TaskTracker::new(), supervisor: self.clone() }
    }

    /// Answers when a task has panicked, and never if none does.
    pub async fn death(self) -> TaskDied {
        self.died.cancelled().await;
        // Set before.
        TaskDied { task: self.first.get().copied().unwrap_or_default() }
    }

    fn report(&self, task: &'static str) {
        tracing::error!(task, "a task of the service has panicked");
        // Whatever dies after the first one is most likely its consequence.
        let _ = self.first.set(task);
        self.died.cancel();
    }
}

/// Tasks that end at the same time. Dropping it tells them to, and does not wait.
#[derive(Debug)]
pub struct Stage {
    stop: CancellationToken,
    tasks: TaskTracker,
    supervisor: Supervisor,
}

impl Stage {
    /// Cancelled when its tasks are to end.
    pub fn token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// For what ends by itself soon, and is waited for at the end.
    pub fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// Runs a task that ends some time after [`Stage::token`], and that the service cannot do without.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.adopt(name, tokio::spawn(task));
    }

    /// The same for one that runs already.
    pub fn adopt(&self, name: &'static str, task: JoinHandle<()>) {
        let supervisor = self.supervisor.clone();
        self.tasks.spawn(async move {
            if task.await.is_err_and(|error| error.is_panic()) {
                supervisor.report(name);
            }
        });
    }

    /// Tells its tasks to end and returns when they have.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_is_told_by_name_and_the_others_still_stop() {
        let supervisor = Supervisor::default();
        let stage = supervisor.stage();
        let token = stage.token();
        stage.spawn("patient", async move { token.cancelled().await });
        assert_eq!(supervisor.clone().death().now_or_never(), None);
        stage.spawn("unlucky", async { panic!("seen in the log of this test") });
        assert_eq!(supervisor.death().await, TaskDied { task: "unlucky" });
        stage.stop().await;
    }

    #[tokio::test]
    async fn a_task_that_ends_or_is_aborted_is_no_death() {
        let supervisor = Supervisor::default();
        let stage = supervisor.stage();
        stage.spawn("short", async {});
        let aborted = tokio::spawn(std::future::pending());
        aborted.abort();
        stage.adopt("aborted", aborted);
        stage.stop().await;
        assert_eq!(supervisor.death().now_or_never(), None);
    }

    #[tokio::test]
    async fn a_stage_that_is_dropped_tells_its_tasks_to_end() {
        let stage = Supervisor::default().stage();
        let (token, tasks) = (stage.token(), stage.tasks().clone());
        stage.spawn("patient", async move { token.cancelled().await });
        drop(stage);
        tasks.close();
        tasks.wait().await;
    }
}

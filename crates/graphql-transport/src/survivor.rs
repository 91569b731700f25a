//! A future that is not stopped by losing whoever waits for it.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

/// Runs where it is awaited, without the cost of a task; dropped before its end, it goes on in a task of its own, which the tracker counts.
pub(crate) struct Survivor<T: Send + 'static> {
    future: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
    tasks: TaskTracker,
}

impl<T: Send + 'static> Survivor<T> {
    pub(crate) fn new(future: Pin<Box<dyn Future<Output = T> + Send>>, tasks: TaskTracker) -> Self {
        Self { future: Some(future), tasks }
    }
}

impl<T: Send + 'static> Future for Survivor<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        // Nobody polls a future that has ended.
        let Some(mut future) = self.future.take() else { return Poll::Pending };
        let polled = future.as_mut().poll(context);
        if polled.is_pending() {
            self.future = Some(future);
        }
        polled
    }
}

impl<T: Send + 'static> Drop for Survivor<T> {
    fn drop(&mut self) {
        // Without a runtime nothing can go on.
        if let (Some(future), Ok(runtime)) = (self.future.take(), Handle::try_current()) {
            self.tasks.spawn_on(future, &runtime);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn what_nobody_waits_for_any_more_goes_on_and_is_counted() {
        let tasks = TaskTracker::new();
        let (go, gone) = oneshot::channel::<()>();
        let (done, is_done) = oneshot::channel();
        let mut survivor = Survivor::new(
            Box::pin(async move {
                gone.await.unwrap();
                done.send(7).unwrap();
            }),
            tasks.clone(),
        );
        assert!(futures_util::poll!(&mut survivor).is_pending());
        assert_eq!(tasks.len(), 0, "no task while somebody waits");
        drop(survivor);
        assert_eq!(tasks.len(), 1);
        go.send(()).unwrap();
        assert_eq!(is_done.await, Ok(7));
        tasks.close();
        tasks.wait().await;
    }

    #[tokio::test]
    async fn what_has_ended_starts_nothing() {
        let tasks = TaskTracker::new();
        assert_eq!(Survivor::new(Box::pin(async { 1 }), tasks.clone()).await, 1);
        assert_eq!(tasks.len(), 0);
    }
}

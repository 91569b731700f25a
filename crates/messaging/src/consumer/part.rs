//! Applies one part of a batch and, while the database works on it, makes the next one ready.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;

use super::ConsumerLoop;
use super::handler::{Handler, HandlerError, Ready, panic_message};
use crate::message::Delivery;

/// A part that was made ready while the one before it was applied.
pub(super) struct Ahead<'a, H: Handler> {
    read: Arc<H::Read>,
    /// `None` if it needs a transaction.
    ready: Option<Ready<'a, H::Committed>>,
}

impl<H: Handler> ConsumerLoop<H> {
    /// Applies a part, which may be `ahead` already, in one statement if that is possible, else in a transaction; and tells the handler. In the former
    /// case `next` (none if it is empty) is made ready meanwhile, and answered.
    ///
    /// # Errors
    /// If nothing is applied, or nobody knows. What was made ready meanwhile is gone.
    pub(super) async fn apply_part<'a>(
        &'a self,
        part: &[Delivery],
        ahead: Option<Ahead<'a, H>>,
        next: &[Delivery],
    ) -> Result<Option<Ahead<'a, H>>, HandlerError> {
        let Ahead { read, ready } = ahead.map_or_else(|| self.look(part), Ok)?;
        let Some(ready) = ready else { return self.apply_in_transaction(read).await.map(|()| None) };
        let (applied, ahead) = tokio::join!(self.apply_at_once(read, ready), self.look_ahead(next));
        match applied? {
            // The handler learns from a transaction what to do with the next part.
            Some(read) => self.apply_in_transaction(read).await.map(|()| None),
            None => Ok(ahead),
        }
    }

    /// What was read, if that needs a transaction.
    async fn apply_at_once(
        &self,
        read: Arc<H::Read>,
        ready: Ready<'_, H::Committed>,
    ) -> Result<Option<Arc<H::Read>>, HandlerError> {
        let Some(committed) = caught(ready).await? else { return Ok(Some(read)) };
        drop(read);
        self.tell_committed(committed).await;
        Ok(None)
    }

    async fn apply_in_transaction(&self, read: Arc<H::Read>) -> Result<(), HandlerError> {
        // Kept until the commit, which comes after the work.
        let kept = Arc::clone(&read);
        let handler = Arc::clone(&self.handler);
        let committed = self
            .db
            .transaction("consume", move |tx| Box::pin(async move { caught(handler.apply_in_tx(tx, &read)).await }))
            .await?;
        drop(kept);
        self.tell_committed(committed).await;
        Ok(())
    }

    async fn tell_committed(&self, outcome: H::Committed) {
        let telling = AssertUnwindSafe(self.handler.committed(outcome));
        if let Err(panic) = telling.catch_unwind().await {
            tracing::error!(panic = panic_message(&*panic), "panic after the commit; the part stays committed");
        }
    }

    /// `None` also after an error: it is found again when the part's turn comes.
    async fn look_ahead(&self, next: &[Delivery]) -> Option<Ahead<'_, H>> {
        if next.is_empty() {
            return None;
        }
        // A task that was spawned to send the statement runs in this thread next, and nobody takes it away.
        tokio::task::yield_now().await;
        self.look(next).ok()
    }

    fn look(&self, part: &[Delivery]) -> Result<Ahead<'_, H>, HandlerError> {
        let looking = AssertUnwindSafe(|| {
            let read = self.handler.read(part)?;
            let ready = self.handler.make_ready(&self.db, &read)?;
            Ok(Ahead { read: Arc::new(read), ready })
        });
        std::panic::catch_unwind(looking).unwrap_or_else(|panic| Err(HandlerError::panicked(&*panic)))
    }
}

/// A panic as the handler's error.
async fn caught<T>(handling: impl Future<Output = Result<T, HandlerError>>) -> Result<T, HandlerError> {
    AssertUnwindSafe(handling).catch_unwind().await.unwrap_or_else(|panic| Err(HandlerError::panicked(&*panic)))
}

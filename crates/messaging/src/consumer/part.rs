//! Applies one part of a batch and, while the database works on it, makes the next one ready.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;

use super::ConsumerLoop;
use super::handler::{Handler, HandlerError, Ready, panic_message};
use crate::message::Delivery;

/// A part that was made ready on the outlook of the one before it. Good for nothing unless that one is committed as it was made ready.
pub(super) struct Ahead<'a, H: Handler> {
    read: Arc<H::Read>,
    /// `None` if it needs a transaction.
    ready: Option<Ready<'a, H>>,
}

impl<H: Handler> ConsumerLoop<H> {
    /// Applies a part, which may be `ahead` already: in one statement if that is possible, and else in a transaction. In one statement, `next` (none if it
    /// is empty) is made ready meanwhile.
    pub(super) async fn apply_part<'a>(
        &'a self,
        part: &[Delivery],
        ahead: Option<Ahead<'a, H>>,
        next: &[Delivery],
    ) -> Result<(H::Committed, Option<Ahead<'a, H>>), HandlerError> {
        let (read, ready) = match ahead {
            Some(Ahead { read, ready }) => (read, ready),
            None => {
                let read = self.read(part)?;
                let ready = self.make_ready(&read, None).await?;
                (read, ready)
            }
        };
        if let Some(Ready { apply, outlook }) = ready {
            let (applied, ahead) = tokio::join!(caught(apply), self.look_ahead(next, &outlook));
            if let Some(committed) = applied? {
                return Ok((committed, ahead));
            }
        }
        Ok((self.apply_in_transaction(read).await?, None))
    }

    /// `None` also after an error: it is found again when the part's turn comes.
    async fn look_ahead(&self, next: &[Delivery], outlook: &H::Outlook) -> Option<Ahead<'_, H>> {
        if next.is_empty() {
            return None;
        }
        // A task that was spawned to send the statement runs in this thread next, and nobody takes it away.
        tokio::task::yield_now().await;
        let read = self.read(next).ok()?;
        let ready = self.make_ready(&read, Some(outlook)).await.ok()?;
        Some(Ahead { read, ready })
    }

    fn read(&self, part: &[Delivery]) -> Result<Arc<H::Read>, HandlerError> {
        let reading = AssertUnwindSafe(|| self.handler.read(part));
        std::panic::catch_unwind(reading).unwrap_or_else(|panic| Err(HandlerError::panicked(&*panic))).map(Arc::new)
    }

    async fn make_ready(&self, read: &H::Read, outlook: Option<&H::Outlook>) -> Result<Option<Ready<'_, H>>, HandlerError> {
        caught(self.handler.make_ready(&self.db, read, outlook)).await
    }

    async fn apply_in_transaction(&self, read: Arc<H::Read>) -> Result<H::Committed, HandlerError> {
        let handler = Arc::clone(&self.handler);
        self.db.transaction("consume", move |tx| Box::pin(async move { caught(handler.apply_in_tx(tx, &read)).await })).await
    }

    pub(super) async fn tell_committed(&self, outcome: H::Committed) {
        let telling = AssertUnwindSafe(self.handler.committed(outcome));
        if let Err(panic) = telling.catch_unwind().await {
            tracing::error!(panic = panic_message(&*panic), "panic after the commit; the part stays committed");
        }
    }
}

/// A panic as the handler's error.
async fn caught<T>(handling: impl Future<Output = Result<T, HandlerError>>) -> Result<T, HandlerError> {
    AssertUnwindSafe(handling).catch_unwind().await.unwrap_or_else(|panic| Err(HandlerError::panicked(&*panic)))
}

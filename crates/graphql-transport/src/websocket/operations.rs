//! The operations that run on one socket, polled by the socket's task.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use async_graphql::Response;
use futures_util::stream::{self, BoxStream, SelectAll};
use futures_util::{FutureExt, Stream, StreamExt};

use crate::error::{ErrorCode, error_response};
use crate::operation::OperationKind;

/// One step of an operation.
pub(crate) enum Output {
    /// A result; `first` of its operation or a later one.
    Next { id: Arc<str>, kind: OperationKind, response: Box<Response>, first: bool },
    /// There will be no more.
    End { id: Arc<str> },
}

/// All operations of a socket, by id. Dropping it drops them.
#[derive(Default)]
pub(crate) struct Operations {
    running: SelectAll<Running>,
    handles: HashMap<Arc<str>, Handle>,
    /// One clone for each operation that has not ended.
    places: Arc<()>,
}

impl Operations {
    /// How many have not ended, mutations included that the client wants to hear nothing of any more.
    pub(crate) fn len(&self) -> usize {
        Arc::strong_count(&self.places) - 1
    }

    pub(crate) fn contains(&self, id: &str) -> bool {
        self.handles.contains_key(id)
    }

    /// Starts to poll `responses` under `id`, which must be free. A panic in it ends it with an error.
    pub(crate) fn start(&mut self, id: &str, kind: OperationKind, responses: BoxStream<'static, Response>) {
        let id: Arc<str> = id.into();
        let guarded = AssertUnwindSafe(responses).catch_unwind().map(|item| {
            item.unwrap_or_else(|_| {
                tracing::error!("a subscription panicked");
                error_response(ErrorCode::InternalServerError, "internal server error")
            })
        });
        let active = (kind == OperationKind::Subscription).then(ActiveSubscription::new);
        let responses = Responses { stream: guarded.boxed(), _active: active, _place: Arc::clone(&self.places) };
        let handle = Handle(Arc::new(Mutex::new(Slot { kind, responses: Some(responses), muted: false, waker: None })));
        self.handles.insert(Arc::clone(&id), handle.clone());
        self.running.push(Running { id, handle, first: true, ended: false });
    }

    /// Drops the operation at once, if it runs; its id is free again. A mutation goes on, and keeps its place until it ends: otherwise a
    /// client could start any number of them.
    pub(crate) fn stop(&mut self, id: &str) {
        if let Some(handle) = self.handles.remove(id) {
            handle.stop();
        }
    }

    /// The next output; waits for ever when nothing runs. Cancel safe.
    pub(crate) async fn next(&mut self) -> Output {
        std::future::poll_fn(|cx| match self.running.poll_next_unpin(cx) {
            Poll::Pending | Poll::Ready(None) => Poll::Pending,
            Poll::Ready(Some(output)) => {
                if let Output::End { id } = &output {
                    self.handles.remove(id);
                }
                Poll::Ready(output)
            }
        })
        .await
    }
}

/// Counts a subscription in the metrics for as long as it lives.
struct ActiveSubscription(());

impl ActiveSubscription {
    fn new() -> Self {
        metrics::gauge!("graphql_subscriptions_active").increment(1);
        Self(())
    }
}

impl Drop for ActiveSubscription {
    fn drop(&mut self) {
        metrics::gauge!("graphql_subscriptions_active").decrement(1);
    }
}

/// The responses of one operation, shared by whoever polls them and whoever stops them. Both are the socket's task, so the lock
/// is never contended; it is what lets the stream be dropped at the moment the client completes it.
#[derive(Clone)]
struct Handle(Arc<Mutex<Slot>>);

struct Slot {
    kind: OperationKind,
    responses: Option<Responses>,
    /// What still comes is not told.
    muted: bool,
    waker: Option<Waker>,
}

struct Responses {
    stream: BoxStream<'static, Response>,
    _active: Option<ActiveSubscription>,
    _place: Arc<()>,
}

impl Handle {
    fn stop(&self) {
        let (dropped, waker) = {
            let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if slot.kind == OperationKind::Mutation {
                slot.muted = true;
                return;
            }
            (slot.responses.take(), slot.waker.take())
        };
        drop(dropped);
        // The empty slot is polled once more, and then leaves the set.
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

struct Running {
    id: Arc<str>,
    handle: Handle,
    first: bool,
    ended: bool,
}

impl Stream for Running {
    type Item = Output;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Output>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let this = &mut *self;
        let mut slot = this.handle.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (kind, muted) = (slot.kind, slot.muted);
        loop {
            let Some(responses) = slot.responses.as_mut() else {
                this.ended = true;
                return Poll::Ready(None);
            };
            match responses.stream.poll_next_unpin(cx) {
                Poll::Pending => {
                    slot.waker = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                Poll::Ready(Some(_)) if muted => {}
                Poll::Ready(Some(response)) => {
                    let first = std::mem::take(&mut this.first);
                    let id = Arc::clone(&this.id);
                    return Poll::Ready(Some(Output::Next { id, kind, response: Box::new(response), first }));
                }
                Poll::Ready(None) => {
                    slot.responses = None;
                    this.ended = true;
                    return Poll::Ready((!muted).then(|| Output::End { id: Arc::clone(&this.id) }));
                }
            }
        }
    }
}

/// A query or a mutation as a stream of its one response.
pub(crate) fn once(response: impl Future<Output = Response> + Send + 'static) -> BoxStream<'static, Response> {
    stream::once(response.boxed()).boxed()
}

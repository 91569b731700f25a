//! When a [`DataLoader`](async_graphql::dataloader::DataLoader) loads: as soon as the execution has nothing else to do.
//!
//! A loader usually waits a millisecond for more keys. That is too long for a read that takes a fraction of it, and no promise: a list that
//! takes longer to resolve is split. Here the loads of an execution are a part of it. It is polled first, which resolves all that can be
//! resolved and gathers every key; when it waits, its loads are polled. So a list is one statement, and nobody waits for a clock.
//!
//! Loaders must live as long as one execution: their loads end with it.

use std::cell::RefCell;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use async_graphql::dataloader::{DataLoader, NoCache};
use async_graphql::{Data, Executor, Request, Response};
use futures_util::StreamExt as _;
use futures_util::future::{BoxFuture, poll_fn};
use futures_util::stream::{BoxStream, FuturesUnordered, poll_fn as stream_fn};
use futures_util::task::AtomicWaker;

type Load = BoxFuture<'static, ()>;

thread_local! {
    /// What the execution that is being polled on this thread has started to load; `None` outside of one.
    static STARTED: RefCell<Option<Vec<Load>>> = const { RefCell::new(None) };
}

/// A loader for one execution of a [`Loading`] executor; elsewhere it loads on a task of its own.
#[must_use]
pub fn loader<L>(loader: L, max_batch_size: usize) -> DataLoader<L, NoCache> {
    DataLoader::new(loader, start).delay(Duration::ZERO).max_batch_size(max_batch_size)
}

fn start(load: Load) {
    let outside = STARTED.with_borrow_mut(|started| match started {
        Some(started) => {
            started.push(load);
            None
        }
        None => Some(load),
    });
    if let Some(load) = outside {
        tokio::spawn(load);
    }
}

/// An executor whose executions drive their own loads.
#[derive(Debug, Clone)]
pub struct Loading<E>(pub E);

impl<E: Executor> Executor for Loading<E> {
    async fn execute(&self, request: Request) -> Response {
        let mut execution = pin!(self.0.execute(request));
        let mut loads = Loads::default();
        poll_fn(|context| loads.poll_with(context, |context| execution.as_mut().poll(context))).await
    }

    fn execute_stream(&self, request: Request, session_data: Option<Arc<Data>>) -> BoxStream<'static, Response> {
        let mut events = self.0.execute_stream(request, session_data);
        let mut loads = Loads::default();
        stream_fn(move |context| loads.poll_with(context, |context| events.poll_next_unpin(context))).boxed()
    }
}

/// How often an execution that wakes itself is polled again before its loads are. async-graphql resolves a list two items a turn, so a load
/// has the keys of twice as many items together: more than any list here has. The bound is for a task that has used up its share of the
/// thread, which wakes itself for ever.
const MAX_TURNS: usize = 1_000;

/// The loads of one execution that are under way.
#[derive(Default)]
struct Loads {
    running: FuturesUnordered<Load>,
    waker: Arc<NotingWaker>,
}

impl Loads {
    fn poll_with<T>(&mut self, context: &mut Context<'_>, mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        self.waker.task.register(context.waker());
        let waker = Waker::from(Arc::clone(&self.waker));
        // Each turn but the last ends a load, and an execution starts finitely many.
        loop {
            for _ in 0..MAX_TURNS {
                self.waker.woken.store(false, Ordering::Release);
                let outer = STARTED.replace(Some(Vec::new()));
                let polled = poll(&mut Context::from_waker(&waker));
                self.running.extend(STARTED.replace(outer).unwrap_or_default());
                if polled.is_ready() {
                    return polled;
                }
                if !self.waker.woken.load(Ordering::Acquire) {
                    break;
                }
            }
            match self.running.poll_next_unpin(context) {
                Poll::Ready(Some(())) => {}
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// Wakes the task, and notes it: an execution that woke itself while it was polled has more to resolve.
#[derive(Default)]
struct NotingWaker {
    woken: AtomicBool,
    task: AtomicWaker,
}

impl Wake for NotingWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.task.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::convert::Infallible;
    use std::sync::Mutex;

    use async_graphql::dataloader::Loader;
    use async_graphql::{EmptyMutation, Object, Schema, Subscription};
    use futures_util::Stream;

    use super::*;

    /// Answers each number with its square and remembers what was asked for together.
    #[derive(Clone, Default)]
    struct Squares(Arc<Mutex<Vec<usize>>>);

    impl Loader<i32> for Squares {
        type Value = i32;
        type Error = Infallible;

        async fn load(&self, keys: &[i32]) -> Result<HashMap<i32, i32>, Infallible> {
            tokio::task::yield_now().await;
            self.0.lock().unwrap().push(keys.len());
            Ok(keys.iter().map(|key| (*key, key * key)).collect())
        }
    }

    struct Number(i32);

    #[Object]
    impl Number {
        async fn square(&self, ctx: &async_graphql::Context<'_>) -> Option<i32> {
            ctx.data_unchecked::<DataLoader<Squares>>().load_one(self.0).await.unwrap_or_default()
        }

        async fn next(&self, ctx: &async_graphql::Context<'_>) -> Option<Number> {
            self.square(ctx).await.unwrap_or_default().map(|square| Number(square + 1))
        }
    }

    struct Query;

    #[Object]
    impl Query {
        async fn numbers(&self, to: i32) -> Vec<Number> {
            (1..=to).map(Number).collect()
        }
    }

    struct Numbers;

    #[Subscription]
    impl Numbers {
        async fn numbers(&self, to: i32) -> impl Stream<Item = Number> {
            futures_util::stream::iter((1..=to).map(Number))
        }
    }

    fn schema() -> (Loading<Schema<Query, EmptyMutation, Numbers>>, Squares) {
        (Loading(Schema::new(Query, EmptyMutation, Numbers)), Squares::default())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_list_is_one_load_per_level_however_long_it_takes() {
        let (schema, squares) = schema();
        let request = Request::new("{ numbers(to: 210) { square next { square } } }").data(loader(squares.clone(), 1_000));
        let response = schema.execute(request).await;
        assert!(response.errors.is_empty(), "{:?}", response.errors);
        assert_eq!(response.data.into_json().unwrap()["numbers"][2]["next"]["square"], 100);
        assert_eq!(*squares.0.lock().unwrap(), [210, 210]);
    }

    #[tokio::test]
    async fn more_keys_than_fit_are_loaded_in_several_statements() {
        let (schema, squares) = schema();
        let request = Request::new("{ numbers(to: 25) { square } }").data(loader(squares.clone(), 10));
        assert!(schema.execute(request).await.errors.is_empty());
        let mut loads = squares.0.lock().unwrap().clone();
        loads.sort_unstable();
        assert_eq!(loads, [5, 10, 10]);
    }

    #[tokio::test]
    async fn events_load_too() {
        let (schema, squares) = schema();
        let request = Request::new("subscription { numbers(to: 3) { square } }").data(loader(squares.clone(), 10));
        let responses: Vec<Response> = schema.execute_stream(request, None).collect().await;
        assert_eq!(responses.len(), 3);
        assert!(responses.iter().all(Response::is_ok), "{responses:?}");
        assert_eq!(*squares.0.lock().unwrap(), [1, 1, 1]);
    }

    #[tokio::test]
    async fn without_such_an_executor_it_loads_all_the_same() {
        let (Loading(schema), squares) = schema();
        let request = Request::new("{ numbers(to: 3) { square } }").data(loader(squares, 10));
        assert!(schema.execute(request).await.errors.is_empty());
    }
}

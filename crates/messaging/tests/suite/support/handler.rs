use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use database::{Database, OnConflict, Writes, array::Columns};
use messaging::inbox::{claim_batch, claim_from};
use messaging::{
    Broker, ConsumerHandle, ConsumerLoop, ConsumerOptions, Delivery, Gate, Handler, HandlerError, Headers, Ready, Record,
    TopicSpec,
};
use sea_orm::{ConnectionTrait as _, DatabaseTransaction, Statement};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::INBOX;

/// Claims each event and writes its payload down; some payloads mean trouble.
///
/// `poison…` is a permanent error, `panic…` panics, `stuck…` is a transient error while [`TestHandler::stuck`] is set. While [`TestHandler::at_once`]
/// is set, `locked…` needs a transaction, that `overtaken…` needs one is found out by trying, and nobody is told that `unanswered…` is applied.
pub(crate) struct TestHandler {
    pub(crate) stuck: AtomicBool,
    /// Works without transactions where it can.
    pub(crate) at_once: AtomicBool,
    /// How many deliveries were made ready then.
    pub(crate) made_ready: Mutex<Vec<usize>>,
    pub(crate) panic_after_commit: AtomicBool,
    /// More deliveries than this are a transient error.
    pub(crate) too_many: AtomicUsize,
    /// Transactions that ended in each way, by the number of deliveries.
    pub(crate) attempts: Mutex<Vec<usize>>,
    /// Deliveries whose commit was told.
    pub(crate) committed: AtomicUsize,
    /// A permit lets one transaction go on; plenty unless a test takes them away.
    pub(crate) permits: Semaphore,
    /// How many transactions were begun.
    pub(crate) begun: watch::Sender<usize>,
    /// While set, [`Handler::committed`] does not come back.
    pub(crate) hang_after_commit: AtomicBool,
}

impl TestHandler {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            stuck: AtomicBool::new(false),
            at_once: AtomicBool::new(false),
            made_ready: Mutex::default(),
            panic_after_commit: AtomicBool::new(false),
            too_many: AtomicUsize::new(usize::MAX),
            attempts: Mutex::default(),
            committed: AtomicUsize::new(0),
            permits: Semaphore::new(Semaphore::MAX_PERMITS),
            begun: watch::Sender::new(0),
            hang_after_commit: AtomicBool::new(false),
        })
    }
}

/// A delivery, as it is understood.
pub(crate) struct Received {
    id: Uuid,
    partition: i32,
    payload: String,
}

#[async_trait]
impl Handler for TestHandler {
    type Read = Vec<Received>;
    type Committed = usize;

    fn read(&self, deliveries: &[Delivery]) -> Result<Self::Read, HandlerError> {
        let received = |delivery: &Delivery| {
            let payload = String::from_utf8(delivery.payload.to_vec()).unwrap();
            Ok(Received { id: delivery.event_id()?, partition: delivery.partition, payload })
        };
        deliveries.iter().map(received).collect()
    }

    async fn apply_in_tx(&self, tx: &DatabaseTransaction, received: &Self::Read) -> Result<usize, HandlerError> {
        self.begun.send_modify(|begun| *begun += 1);
        self.permits.acquire().await.unwrap().forget();
        self.attempts.lock().unwrap().push(received.len());
        if received.len() > self.too_many.load(Ordering::SeqCst) {
            return Err(HandlerError::transient("took too long"));
        }
        let ids: Vec<_> = received.iter().map(|received| received.id).collect();
        let mut new = claim_batch(tx, INBOX, &ids).await?;
        for Received { id, partition, payload } in received {
            if payload.starts_with("poison") {
                return Err(HandlerError::permanent(format!("cannot apply {payload}")));
            }
            assert!(!payload.starts_with("panic"), "told to panic by {payload}");
            if payload.starts_with("stuck") && self.stuck.load(Ordering::SeqCst) {
                return Err(HandlerError::transient("the weather"));
            }
            if new.remove(id) {
                let sql = "INSERT INTO applied (source, payload) VALUES ($1, $2)";
                let values = [(*partition).into(), payload.into()];
                tx.execute_raw(Statement::from_sql_and_values(tx.get_database_backend(), sql, values)).await?;
            }
        }
        Ok(received.len())
    }

    fn make_ready<'a>(&'a self, database: &'a Database, received: &Self::Read) -> Result<Option<Ready<'a, usize>>, HandlerError> {
        let any = |word: &str| received.iter().any(|received| received.payload.starts_with(word));
        if !self.at_once.load(Ordering::SeqCst) {
            return Ok(None);
        }
        self.made_ready.lock().unwrap().push(received.len());
        if any("locked") {
            return Ok(None);
        }
        if any("poison") {
            return Err(HandlerError::permanent("cannot apply at once"));
        }
        assert!(!any("panic"), "told to panic at once");
        let (overtaken, stuck, unanswered) = (any("overtaken"), any("stuck"), any("unanswered"));

        let given = Columns::new(database.backend(), received)
            .uuid("message_id", |received| received.id)
            .int("source", |received| received.partition)
            .text("payload", |received| received.payload.as_str());
        let mut writes = Writes::over("given", given);
        writes.add_exactly(
            received.len(),
            Statement::from_string(database.backend(), claim_from(database.backend(), INBOX, "given", OnConflict::DoNothing)),
        );
        writes.add_sql(
            "INSERT INTO applied (source, payload) SELECT source, payload FROM given WHERE true ORDER BY ord".to_owned(),
        );
        let count = received.len();
        let apply = async move {
            if overtaken {
                return Ok(None);
            }
            if stuck && self.stuck.load(Ordering::SeqCst) {
                return Err(HandlerError::transient("the weather at once"));
            }
            match writes.run(database, "at once").await {
                Err(error) if error.is_overtaken() => Ok(None),
                Ok(_) if unanswered => Err(HandlerError::transient("the connection was lost before the answer")),
                written => Ok(Some(written.map(|_| count)?)),
            }
        };
        Ok(Some(Box::pin(apply)))
    }

    async fn committed(&self, deliveries: usize) {
        if self.hang_after_commit.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        self.committed.fetch_add(deliveries, Ordering::SeqCst);
        assert!(!self.panic_after_commit.load(Ordering::SeqCst), "told to panic");
    }
}

pub(crate) fn event(topic: &str, key: &str, payload: &str) -> Record {
    event_with_id(topic, key, payload, Uuid::now_v7())
}

pub(crate) fn event_with_id(topic: &str, key: &str, payload: &str, id: Uuid) -> Record {
    Record {
        topic: topic.to_owned(),
        key: key.to_owned(),
        headers: Headers::new().with("ce_id", id.to_string()).with("custom", vec![0, 255]),
        payload: payload.to_owned().into(),
    }
}

/// A consumer loop, of group `group` over topic `tasks` unless said otherwise, and how to stop it.
pub(crate) struct RunningLoop {
    pub(crate) handle: ConsumerHandle,
    pub(crate) task: JoinHandle<()>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) gate: Gate,
}

impl RunningLoop {
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        super::soon("the loop ends", self.task).await.unwrap();
    }
}

pub(crate) fn run_loop(db: &Database, broker: Arc<dyn Broker>, handler: &Arc<TestHandler>) -> RunningLoop {
    run_loop_of(db, broker, handler, "group", "tasks")
}

/// The same with smaller transactions.
pub(crate) fn run_loop_in_parts_of(
    deliveries: usize,
    db: &Database,
    broker: Arc<dyn Broker>,
    handler: &Arc<TestHandler>,
) -> RunningLoop {
    start(db, broker, handler, ConsumerOptions { transaction_deliveries: deliveries, ..options("group", "tasks") })
}

/// The same with longer and longer waits between tries, without an end to that.
pub(crate) fn run_loop_with_growing_waits(db: &Database, broker: Arc<dyn Broker>, handler: &Arc<TestHandler>) -> RunningLoop {
    start(db, broker, handler, ConsumerOptions { retry_max: Duration::from_secs(3_600), ..options("group", "tasks") })
}

/// The same with names that nobody else uses, for a server that tests share.
pub(crate) fn run_loop_of(
    db: &Database,
    broker: Arc<dyn Broker>,
    handler: &Arc<TestHandler>,
    group: &str,
    topic: &str,
) -> RunningLoop {
    start(db, broker, handler, options(group, topic))
}

fn options(group: &str, topic: &str) -> ConsumerOptions {
    ConsumerOptions {
        transaction_deliveries: 200,
        batch_transactions: 4,
        max_dead_letters_in_a_row: 5,
        retry_min: Duration::from_millis(5),
        retry_max: Duration::from_millis(50),
        ..ConsumerOptions::new(group, vec![TopicSpec::new(topic)])
    }
}

fn start(db: &Database, broker: Arc<dyn Broker>, handler: &Arc<TestHandler>, options: ConsumerOptions) -> RunningLoop {
    let (shutdown, gate) = (CancellationToken::new(), Gate::new());
    let consumer = ConsumerLoop::new(db.clone(), broker, Arc::clone(handler), options);
    let (handle, task) = consumer.start(shutdown.clone(), gate.clone());
    RunningLoop { handle, task, shutdown, gate }
}

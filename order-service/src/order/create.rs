//! Creating orders: one transaction for the orders of many callers.
//!
//! Everything is written in one round trip, and on PostgreSQL in one statement that is a transaction of its own: `orders`
//! (insert-or-nothing) → for those that are new `outbox_orders`, `pending_orders`, and `order_events` last, because it takes the event
//! counter's lock. What lost against an earlier use of its idempotency key is read when its caller asks for it ([`Repeats`]). At most
//! [`MAX_BATCH`] orders per call.

use std::collections::HashMap;

use database::{
    Database, DatabaseError, Reader, Writes, Written,
    array::{Columns, columns_of},
};
use messaging::{CloudEvent, OutboxRow, OutboxTable, message::header, outbox};
use schema::{EventId, EventSource as _, Money, OrderId, PaymentTask, UserId};
use sea_orm::{ConnectionTrait as _, DbBackend, DbErr, EntityTrait as _, QueryResult};
use sha2::{Digest as _, Sha256};

use super::{
    EventAndOrder, FIRST_VERSION, Order, OrderStatus, entity,
    event::{self, NewEvent},
    resend,
};

/// The outbox of Order Service.
pub const OUTBOX: OutboxTable = OutboxTable("outbox_orders");

/// Orders per transaction: at 200 the commit costs each of them less than its own rows do, and nobody waits long for the others.
pub const MAX_BATCH: usize = 200;

/// The transaction in logs, metrics and errors.
pub(super) const CREATE: &str = "create orders";

/// An order as its caller wants it; checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewOrder {
    /// Who orders and pays.
    pub user_id: UserId,
    /// What is to be paid.
    pub total: Money,
    /// Not blank, bounded.
    pub description: String,
    /// Makes repeating the call harmless.
    pub idempotency_key: Option<String>,
    /// The trace that it belongs to, if that is sampled: the header for its payment task.
    pub traceparent: Option<String>,
}

/// What became of a [`NewOrder`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CreateOutcome {
    /// Accepted now.
    Created(Order),
    /// Accepted before under the same key with the same arguments: the order as it is now.
    AlreadyCreated(Order),
    /// The key was used before with other arguments.
    KeyReused,
}

/// What was stored, to be handed to relay, feed and callers at once: it is committed.
#[derive(Debug)]
pub struct Created {
    /// One per [`NewOrder`]; `None` for those that [`Created::repeats`] has.
    pub outcomes: Vec<Option<CreateOutcome>>,
    /// The calls whose key was used before.
    pub repeats: Repeats,
    /// One per accepted order.
    pub outbox: Vec<OutboxRow>,
    /// The first event of each accepted order, to hand to the feed after the commit.
    pub events: Vec<EventAndOrder>,
}

/// Calls that have created nothing, because their key was used by an earlier call.
#[derive(Debug)]
pub struct Repeats {
    /// With their indices in the input.
    calls: Vec<(usize, Call)>,
    candidates: Vec<Candidate>,
}

impl Repeats {
    /// Whether there is nothing to look up.
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// Reads the orders behind the keys, and answers the outcome of each call with its index.
    ///
    /// # Errors
    /// What the database says; the same calls may be made again.
    pub async fn look_up(self, reader: &Reader) -> Result<Vec<(usize, CreateOutcome)>, DbErr> {
        let orders = find_by_key_batch(reader, &self.candidates).await?;
        let outcome = |(index, call): (usize, Call)| {
            let outcome = call.outcome(&orders);
            let missing = || DbErr::Custom("an order was neither created nor found under its key".to_owned());
            outcome.map(|outcome| (index, outcome)).ok_or_else(missing)
        };
        self.calls.into_iter().map(outcome).collect()
    }
}

/// Accepts orders in a transaction of their own; one alone is a batch of one. `tasks_topic` is where the payment tasks go.
///
/// # Errors
/// What the database says. Unless the outcome is unknown nothing was stored then, and a batch may be tried again one by one, so that a row
/// that the database refuses fails only its own caller.
pub async fn create_orders_batch(database: &Database, tasks_topic: &str, new: &[NewOrder]) -> Result<Created, DatabaseError> {
    Prepared::new(tasks_topic, new)?.store(database, tasks_topic).await
}

/// Orders that are ready to be stored.
struct Prepared {
    /// Sorted by user and key, so that two replicas that insert the same keys wait for each other instead of deadlocking.
    candidates: Vec<Candidate>,
    calls: Vec<Call>,
}

/// An order with its task.
#[derive(Debug)]
struct Candidate {
    order: Order,
    task: OutboxRow,
    traceparent: Option<String>,
}

/// One element of the input.
#[derive(Debug, Clone)]
struct Call {
    /// Its candidate: of several calls with one key that of the first.
    candidate: OrderId,
    is_first: bool,
    /// Of calls with a key.
    arguments_hash: Option<Vec<u8>>,
}

impl Prepared {
    /// Gives each order its id; its number is known when it is stored.
    fn new(tasks_topic: &str, new: &[NewOrder]) -> Result<Self, DbErr> {
        debug_assert!(new.len() <= MAX_BATCH, "the intake bounds its batches");
        let mut order: Vec<usize> = (0..new.len()).collect();
        // Stable: of equal keys the first call is first.
        order.sort_by(|a, b| key_of(&new[*a]).cmp(&key_of(&new[*b])));
        let mut candidates: Vec<Candidate> = Vec::with_capacity(new.len());
        let mut calls: Vec<Option<Call>> = vec![None; new.len()];
        let mut last: Option<&NewOrder> = None;
        for at in order {
            let call = &new[at];
            let is_first = call.idempotency_key.is_none() || last.is_none_or(|last| key_of(last) != key_of(call));
            let arguments_hash = call.idempotency_key.as_ref().map(|_| arguments_hash(call));
            if is_first {
                candidates.push(Candidate::new(tasks_topic, call, arguments_hash.clone())?);
            }
            last = Some(call);
            calls[at] = candidates.last().map(|new| Call { candidate: new.order.id, is_first, arguments_hash });
        }
        Ok(Self { candidates, calls: calls.into_iter().flatten().collect() })
    }

    async fn store(self, database: &Database, tasks_topic: &str) -> Result<Created, DatabaseError> {
        let written = self.insert_batch(database, tasks_topic).await?;
        // From here on they are stored, and no error may say otherwise.
        let unknown = |error: DbErr| DatabaseError::OutcomeUnknown { transaction: CREATE, reason: error.to_string() };
        let number = |row: &QueryResult| Ok((row.try_get("", "id")?, row.try_get("", "number")?));
        let numbers = written.rows.iter().map(number).collect::<Result<HashMap<OrderId, i64>, DbErr>>().map_err(unknown)?;
        let (created, lost): (Vec<_>, Vec<_>) = self.candidates.into_iter().partition(|new| numbers.contains_key(&new.order.id));
        let mut stored = HashMap::with_capacity(created.len());
        let (mut outbox, mut events) = (Vec::with_capacity(created.len()), Vec::with_capacity(created.len()));
        for Candidate { order, task, traceparent } in created {
            let order = Order { number: numbers.get(&order.id).copied().unwrap_or(order.number), ..order };
            events.push((first_event(&order, traceparent), Some(order.clone())));
            outbox.push(task);
            stored.insert(order.id, order);
        }
        let outcomes: Vec<_> = self.calls.iter().map(|call| call.outcome(&stored)).collect();
        let repeated = self.calls.into_iter().enumerate().zip(&outcomes).filter(|(_, outcome)| outcome.is_none());
        let repeats = Repeats { calls: repeated.map(|(call, _)| call).collect(), candidates: lost };
        Ok(Created { outcomes, repeats, outbox, events: event::appended(&written, events).map_err(unknown)? })
    }

    /// Inserts; an idempotency key that is taken makes its row nothing. Answers `id` and `number` of the orders that are new. Numbers of rows
    /// that are nothing are lost; nobody promised numbers without holes.
    async fn insert_batch(&self, database: &Database, tasks_topic: &str) -> Result<Written, DatabaseError> {
        let backend = database.backend();
        let rows = Columns::new(backend, &self.candidates)
            .uuid("id", |new| new.order.id.0)
            .text("user_id", |new| new.order.user_id.as_str())
            .bigint("total_minor", |new| new.order.total_minor)
            .text("currency", |new| new.order.currency.code())
            .text("description", |new| new.order.description.as_str())
            .opt_text("idempotency_key", |new| new.order.idempotency_key.as_deref())
            .opt_bytes("idempotency_hash", |new| new.order.idempotency_hash.clone())
            .bigint("created_at_ms", |new| new.order.updated_at_ms.0)
            .opt_text("traceparent", |new| new.traceparent.as_deref());
        let rows = outbox::columns(rows, |new| Some(&new.task));
        let mut writes = Writes::over("placed", rows);
        let (number, is_new) = if backend == DbBackend::Postgres {
            ("nextval('order_number')", "SELECT id FROM stored")
        } else {
            // No sequences but a counter row, and no part that others can select from: what has one of the new numbers is new.
            writes.add_sql("UPDATE order_number SET next = next + (SELECT COUNT(*) FROM placed)".to_owned());
            writes.table("numbers", "SELECT next - (SELECT COUNT(*) FROM placed) AS first FROM order_number");
            ("(SELECT first FROM numbers) + ord - 1", "SELECT id FROM orders WHERE number >= (SELECT first FROM numbers)")
        };
        writes.answer(
            "stored",
            format!(
                "INSERT INTO orders (id, number, user_id, total_minor, currency, description, status, version, updated_at_ms,
                                     task_event_id, idempotency_key, idempotency_hash)
                 SELECT id, {number}, user_id, total_minor, currency, description, 'PENDING', {FIRST_VERSION}, created_at_ms,
                        event_id, idempotency_key, idempotency_hash
                 FROM placed WHERE true ORDER BY ord
                 ON CONFLICT (user_id, idempotency_key) DO NOTHING
                 RETURNING id, number"
            ),
        );
        // IS TRUE keeps PostgreSQL from joining, which without an index compares each row with each other one.
        writes.table("accepted", &format!("SELECT * FROM placed WHERE (id IN ({is_new})) IS TRUE"));
        writes.add(outbox::insert_from(backend, OUTBOX, "accepted", tasks_topic));
        writes.add_sql(resend::insert_from(backend, "accepted"));
        writes.table(
            "events",
            &format!(
                "SELECT id AS order_id, user_id, {FIRST_VERSION} AS version, 'PENDING' AS status, NULL AS rejection_reason,
                        created_at_ms AS occurred_at_ms, CAST(NULL AS uuid) AS source_event_id, traceparent, ord
                 FROM accepted"
            ),
        );
        event::append_from(&mut writes, "events", None);
        writes.run(database, CREATE).await
    }
}

/// Beside the row that [`Prepared::insert_batch`] makes of it.
fn first_event(order: &Order, traceparent: Option<String>) -> NewEvent {
    NewEvent {
        order_id: order.id,
        user_id: order.user_id.clone(),
        version: order.version,
        status: order.status,
        rejection_reason: None,
        occurred_at_ms: order.updated_at_ms,
        source_event_id: None,
        traceparent,
    }
}

impl Call {
    /// `stored` has candidates that were created, or the orders that hold the keys of the others.
    fn outcome(&self, stored: &HashMap<OrderId, Order>) -> Option<CreateOutcome> {
        let order = stored.get(&self.candidate)?;
        Some(if self.is_first && order.id == self.candidate {
            CreateOutcome::Created(order.clone())
        } else if order.idempotency_hash == self.arguments_hash {
            CreateOutcome::AlreadyCreated(order.clone())
        } else {
            CreateOutcome::KeyReused
        })
    }
}

impl Candidate {
    fn new(tasks_topic: &str, new: &NewOrder, arguments_hash: Option<Vec<u8>>) -> Result<Self, DbErr> {
        let id = OrderId::generate();
        let order = Order {
            id,
            number: 0,
            user_id: new.user_id.clone(),
            total_minor: new.total.minor,
            currency: new.total.currency,
            description: new.description.clone(),
            status: OrderStatus::Pending,
            rejection_reason: None,
            version: FIRST_VERSION,
            updated_at_ms: id.created_at(),
            task_event_id: EventId::generate(),
            idempotency_hash: arguments_hash,
            idempotency_key: new.idempotency_key.clone(),
        };
        let task = payment_task(&order, tasks_topic)?;
        let task = match &new.traceparent {
            Some(traceparent) => task.with_header(header::TRACEPARENT, traceparent.clone()),
            None => task,
        };
        Ok(Self { order, task, traceparent: new.traceparent.clone() })
    }
}

/// The payment task of an order, to be published under the order's own event id: the first time and every time again.
///
/// # Errors
/// None in practice: the task is plain data.
pub fn payment_task(order: &Order, topic: &str) -> Result<OutboxRow, DbErr> {
    let task = PaymentTask {
        order_id: order.id,
        user_id: order.user_id.clone(),
        amount_minor: order.total_minor,
        currency: order.currency,
    };
    let event = CloudEvent {
        id: order.task_event_id.0,
        type_: PaymentTask::TYPE.into(),
        source: PaymentTask::SOURCE.into(),
        time_ms: order.id.created_at().0,
    };
    let payload = task.to_json().map_err(|error| DbErr::Custom(error.to_string()))?;
    Ok(OutboxRow::new(topic, order.user_id.as_str(), event, payload))
}

/// SHA-256 over everything that makes two calls the same call.
fn arguments_hash(order: &NewOrder) -> Vec<u8> {
    let mut hash = Sha256::new();
    hash.update(order.total.minor.to_be_bytes());
    hash.update(order.total.currency.code());
    hash.update(order.description.as_bytes());
    hash.finalize().to_vec()
}

/// Calls without a key are of no other call.
fn key_of(new: &NewOrder) -> (&str, Option<&str>) {
    (new.user_id.as_str(), new.idempotency_key.as_deref())
}

/// The orders that hold the keys of the `lost` ones, by the ids of these. The winners have committed: inserting has waited for them.
async fn find_by_key_batch(reader: &Reader, lost: &[Candidate]) -> Result<HashMap<OrderId, Order>, DbErr> {
    if lost.is_empty() {
        return Ok(HashMap::new());
    }
    let keys = Columns::new(reader.get_database_backend(), lost)
        .text("user_id", |new| new.order.user_id.as_str())
        .opt_text("idempotency_key", |new| new.order.idempotency_key.as_deref());
    let statement = keys.statement(|keys| {
        format!(
            "SELECT {} FROM {keys} AS k JOIN orders AS o ON o.user_id = k.user_id AND o.idempotency_key = k.idempotency_key",
            columns_of::<entity::Entity>("o")
        )
    });
    let found = entity::Entity::find().from_raw_sql(statement).all(reader).await?;
    let key = |order: &Order| (order.user_id.clone(), order.idempotency_key.clone());
    let found: HashMap<_, Order> = found.into_iter().map(|order| (key(&order), order)).collect();
    Ok(lost.iter().filter_map(|new| Some((new.order.id, found.get(&key(&new.order))?.clone()))).collect())
}

//! Creating orders: one transaction for the orders of many callers.
//!
//! Order of the statements: `orders` (insert-or-nothing) → what lost against an earlier use of its idempotency key is read → in one round
//! trip: `outbox_orders`, `pending_orders`, and `order_events` last, because it takes the event counter's lock. At most [`MAX_BATCH`] orders
//! per call.

use std::collections::HashMap;

use database::{Writes, array::Columns};
use messaging::{CloudEvent, OutboxRow, OutboxTable, message::header, outbox};
use schema::{EventId, EventSource as _, Money, OrderId, PaymentTask, UserId};
use sea_orm::{ConnectionTrait as _, DatabaseTransaction, DbBackend, DbErr, EntityTrait as _, Statement};
use sha2::{Digest as _, Sha256};

use super::{
    Order, OrderStatus, entity,
    event::{self, NewEvent},
    resend,
};

/// The outbox of Order Service.
pub const OUTBOX: OutboxTable = OutboxTable("outbox_orders");

/// Orders per transaction: at 200 the commit costs each of them less than its own rows do, and nobody waits long for the others.
pub const MAX_BATCH: usize = 200;

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

/// The outcomes in the order of the input, and the outbox rows to hand to the relay after the commit.
#[derive(Debug)]
pub struct Created {
    /// One per [`NewOrder`].
    pub outcomes: Vec<CreateOutcome>,
    /// One per accepted order.
    pub outbox: Vec<OutboxRow>,
}

/// Accepts orders; one alone is a batch of one. `tasks_topic` is where the payment tasks go.
///
/// # Errors
/// What the database says: the transaction is then to be rolled back, and a batch may be tried again one by one, so that a row that the
/// database refuses fails only its own caller.
pub async fn create_orders_batch(tx: &DatabaseTransaction, tasks_topic: &str, new: &[NewOrder]) -> Result<Created, DbErr> {
    let (mut candidates, traces) = candidates(tx, distinct(new), new).await?;
    let inserted = insert_batch(tx, &candidates).await?;
    for order in &mut candidates {
        order.number = inserted.get(&order.id).copied().unwrap_or(order.number);
    }
    let (created, lost): (Vec<Order>, Vec<Order>) = candidates.into_iter().partition(|order| inserted.contains_key(&order.id));
    let earlier = find_by_key_batch(tx, &lost).await?;

    let outbox = created.iter().map(|order| first_task(order, tasks_topic, &traces)).collect::<Result<Vec<_>, _>>()?;
    if !created.is_empty() {
        let mut writes = Writes::new(tx.get_database_backend());
        writes.add(outbox::insert(writes.backend(), OUTBOX, &outbox)?);
        writes.add(resend::insert(writes.backend(), &created));
        event::append(&mut writes, &created.iter().map(|order| first_event(order, &traces)).collect::<Vec<_>>());
        writes.run_in_tx(tx).await?;
    }

    let outcomes = outcomes(new, created, &earlier)?;
    Ok(Created { outcomes, outbox })
}

/// The `traceparent` of orders whose trace is sampled: of few or none.
type Traces = HashMap<OrderId, String>;

/// The payment task of a new order; goes on with the trace of the call.
fn first_task(order: &Order, topic: &str, traces: &Traces) -> Result<OutboxRow, DbErr> {
    let task = payment_task(order, topic)?;
    Ok(match traces.get(&order.id) {
        Some(traceparent) => task.with_header(header::TRACEPARENT, traceparent.clone()),
        None => task,
    })
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
        type_: PaymentTask::TYPE.to_owned(),
        source: PaymentTask::SOURCE.to_owned(),
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

fn key_of(user_id: &UserId, key: Option<&String>) -> Option<(String, String)> {
    key.map(|key| (user_id.0.clone(), key.clone()))
}

/// The orders to insert: of several calls with one key only the first, sorted by user and key, so that two replicas that insert the same
/// keys wait for each other instead of deadlocking.
fn distinct(new: &[NewOrder]) -> Vec<&NewOrder> {
    let mut first = HashMap::new();
    let mut distinct: Vec<&NewOrder> = new
        .iter()
        .enumerate()
        .filter(|(at, order)| match key_of(&order.user_id, order.idempotency_key.as_ref()) {
            Some(key) => *first.entry(key).or_insert(*at) == *at,
            None => true,
        })
        .map(|(_, order)| order)
        .collect();
    distinct.sort_by(|a, b| (&a.user_id, &a.idempotency_key).cmp(&(&b.user_id, &b.idempotency_key)));
    distinct
}

/// Gives each order its id. Its number is known when it is in: numbers of a transaction that fails, and of orders that lose against an
/// earlier use of their key, are lost; nobody promised numbers without holes.
async fn candidates(tx: &DatabaseTransaction, distinct: Vec<&NewOrder>, new: &[NewOrder]) -> Result<(Vec<Order>, Traces), DbErr> {
    debug_assert!(distinct.len() <= new.len() && new.len() <= MAX_BATCH, "the intake bounds its batches");
    let first = first_number(tx, distinct.len()).await?;
    let mut traces = Traces::new();
    let order = |(new, number): (&NewOrder, i64)| {
        let id = OrderId::generate();
        if let Some(traceparent) = &new.traceparent {
            traces.insert(id, traceparent.clone());
        }
        Order {
            id,
            number,
            user_id: new.user_id.clone(),
            total_minor: new.total.minor,
            currency: new.total.currency,
            description: new.description.clone(),
            status: OrderStatus::Pending,
            rejection_reason: None,
            version: 1,
            updated_at_ms: id.created_at(),
            task_event_id: EventId::generate(),
            idempotency_hash: new.idempotency_key.as_ref().map(|_| arguments_hash(new)),
            idempotency_key: new.idempotency_key.clone(),
        }
    };
    let orders = distinct.into_iter().zip(first..).map(order).collect();
    Ok((orders, traces))
}

/// SQLite has no sequences but a counter row. On PostgreSQL the sequence gives the numbers while the rows are inserted.
async fn first_number(tx: &DatabaseTransaction, count: usize) -> Result<i64, DbErr> {
    let backend = tx.get_database_backend();
    if backend == DbBackend::Postgres {
        return Ok(0);
    }
    let sql = "UPDATE order_number SET next = next + $1 RETURNING next - $1 AS number";
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    let row = tx.query_one_raw(Statement::from_sql_and_values(backend, sql, [count.into()])).await?;
    row.ok_or_else(|| DbErr::RecordNotFound("order_number".to_owned()))?.try_get("", "number")
}

/// Inserts; an idempotency key that is taken makes its row nothing. Answers the ids that are in, with their numbers.
async fn insert_batch(tx: &DatabaseTransaction, orders: &[Order]) -> Result<HashMap<OrderId, i64>, DbErr> {
    let backend = tx.get_database_backend();
    let number = if backend == DbBackend::Postgres { "nextval('order_number')" } else { "r.number" };
    let rows = Columns::new(backend, orders)
        .uuid("id", |order| order.id.0)
        .bigint("number", |order| order.number)
        .text("user_id", |order| order.user_id.0.clone())
        .bigint("total_minor", |order| order.total_minor)
        .text("currency", |order| order.currency.code())
        .text("description", |order| order.description.clone())
        .uuid("task_event_id", |order| order.task_event_id.0)
        .opt_text("idempotency_key", |order| order.idempotency_key.clone())
        .opt_bytes("idempotency_hash", |order| order.idempotency_hash.clone())
        .bigint("created_at_ms", |order| order.updated_at_ms.0);
    let statement = rows.statement(|rows| {
        format!(
            "INSERT INTO orders (id, number, user_id, total_minor, currency, description, status, version, updated_at_ms,
                                 task_event_id, idempotency_key, idempotency_hash)
             SELECT r.id, {number}, r.user_id, r.total_minor, r.currency, r.description, 'PENDING', 1, r.created_at_ms,
                    r.task_event_id, r.idempotency_key, r.idempotency_hash
             FROM {rows} AS r WHERE true ORDER BY r.ord
             ON CONFLICT (user_id, idempotency_key) DO NOTHING
             RETURNING id, number"
        )
    });
    let rows = tx.query_all_raw(statement).await?;
    rows.iter().map(|row| Ok((row.try_get("", "id")?, row.try_get("", "number")?))).collect()
}

/// The orders that hold the keys of `lost`. A second statement, because the first one's snapshot may be older than the winner's commit.
async fn find_by_key_batch(tx: &DatabaseTransaction, lost: &[Order]) -> Result<HashMap<(String, String), Order>, DbErr> {
    if lost.is_empty() {
        return Ok(HashMap::new());
    }
    let keys = Columns::new(tx.get_database_backend(), lost)
        .text("user_id", |order| order.user_id.0.clone())
        .opt_text("idempotency_key", |order| order.idempotency_key.clone());
    let statement = keys.statement(|keys| {
        format!("SELECT o.* FROM {keys} AS k JOIN orders AS o ON o.user_id = k.user_id AND o.idempotency_key = k.idempotency_key")
    });
    let orders = entity::Entity::find().from_raw_sql(statement).all(tx).await?;
    Ok(orders.into_iter().filter_map(|order| Some((key_of(&order.user_id, order.idempotency_key.as_ref())?, order))).collect())
}

fn first_event(order: &Order, traces: &Traces) -> NewEvent {
    NewEvent {
        order_id: order.id,
        user_id: order.user_id.clone(),
        version: order.version,
        status: order.status,
        rejection_reason: None,
        occurred_at_ms: order.updated_at_ms,
        source_event_id: None,
        traceparent: traces.get(&order.id).cloned(),
    }
}

/// Gives every caller its answer. An order without a key was created for exactly one caller; with a key, the first caller created it and
/// the others in the batch repeated it.
fn outcomes(
    new: &[NewOrder],
    created: Vec<Order>,
    earlier: &HashMap<(String, String), Order>,
) -> Result<Vec<CreateOutcome>, DbErr> {
    let mut keyed = HashMap::new();
    let mut keyless: HashMap<UserId, Vec<Order>> = HashMap::new();
    for order in created {
        match key_of(&order.user_id, order.idempotency_key.as_ref()) {
            Some(key) => drop(keyed.insert(key, (order, false))),
            None => keyless.entry(order.user_id.clone()).or_default().push(order),
        }
    }
    // Created in the order of the input, handed out from the front.
    keyless.values_mut().for_each(|orders| orders.reverse());

    let lost = || DbErr::Custom("an order was neither created nor found under its key".to_owned());
    new.iter()
        .map(|new| {
            let Some(key) = key_of(&new.user_id, new.idempotency_key.as_ref()) else {
                return keyless.get_mut(&new.user_id).and_then(Vec::pop).map(CreateOutcome::Created).ok_or_else(lost);
            };
            if let Some((order, told)) = keyed.get_mut(&key)
                && !*told
            {
                *told = true;
                return Ok(CreateOutcome::Created(order.clone()));
            }
            let order = keyed.get(&key).map(|(order, _)| order).or_else(|| earlier.get(&key)).ok_or_else(lost)?;
            let same = order.idempotency_hash.as_deref() == Some(&arguments_hash(new));
            Ok(if same { CreateOutcome::AlreadyCreated(order.clone()) } else { CreateOutcome::KeyReused })
        })
        .collect()
}

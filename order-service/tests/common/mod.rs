//! Orders for tests.
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]

use database::Database;
use order_service::order::{CreateOutcome, NewOrder, Order, create::create_orders_batch};
use schema::{CurrencyCode, Money, UserId};

/// Where tasks go.
pub const TOPIC: &str = "payment_tasks";

/// What a caller wants.
pub fn new_order(user: &str, minor: i64, key: Option<&str>) -> NewOrder {
    NewOrder {
        user_id: UserId(user.to_owned()),
        total: Money { minor, currency: CurrencyCode::EUR },
        description: "a book".to_owned(),
        idempotency_key: key.map(ToOwned::to_owned),
        traceparent: None,
    }
}

/// So many orders of ada, of 0.01, 0.02, …, accepted in one transaction.
pub async fn create_orders(db: &Database, count: i64) -> Vec<Order> {
    let new: Vec<NewOrder> = (1..=count).map(|minor| new_order("ada", minor, None)).collect();
    let created = create_orders_batch(db, TOPIC, &new).await.unwrap();
    let accepted = |outcome| match outcome {
        Some(CreateOutcome::Created(order)) => order,
        other => panic!("{other:?}"),
    };
    created.outcomes.into_iter().map(accepted).collect()
}

/// One order of ada.
pub async fn create_order(db: &Database) -> Order {
    create_orders(db, 1).await.remove(0)
}

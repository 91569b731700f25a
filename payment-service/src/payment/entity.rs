//! The table `payments` and how it is read and written.

use database::{
    OnConflict,
    array::{Columns, columns_of, is_one_of},
};
use schema::{
    CurrencyCode, EventId, LedgerEntryId, Money, OrderId, PaymentOutcome, PaymentResult, PaymentTask, RejectionReason, Timestamp,
    UserId,
};
use sea_orm::entity::prelude::*;

/// The decision of one order. Rows are permanent: the table refuses updates and deletes.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "payments")]
pub struct Model {
    /// The order; one decision each.
    #[sea_orm(primary_key, auto_increment = false)]
    pub order_id: OrderId,
    /// Whose order it is.
    pub user_id: UserId,
    /// What was asked for; positive.
    pub amount_minor: i64,
    /// The order's currency, which may differ from the account's.
    pub currency: CurrencyCode,
    /// Paid or rejected.
    pub outcome: PaymentOutcome,
    /// Present exactly when rejected.
    pub rejection_reason: Option<RejectionReason>,
    /// The debit; present exactly when paid.
    pub entry_id: Option<LedgerEntryId>,
    /// The id under which the decision is told, every time.
    pub result_event_id: EventId,
    /// When it was decided.
    pub decided_at_ms: Timestamp,
}

/// None: what belongs together is read by the queries that need it.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

impl Model {
    /// What was asked for.
    pub fn amount(&self) -> Money {
        Money { minor: self.amount_minor, currency: self.currency }
    }

    /// What Order Service is told.
    pub fn result(&self) -> PaymentResult {
        PaymentResult {
            order_id: self.order_id,
            user_id: self.user_id.clone(),
            outcome: self.outcome,
            rejection_reason: self.rejection_reason,
            decided_at_ms: self.decided_at_ms,
        }
    }

    /// Whether the task asks for what was decided. If not, the decision stands and the task is a mistake of its sender.
    pub fn answers(&self, task: &PaymentTask) -> bool {
        self.order_id == task.order_id && self.user_id == task.user_id && self.amount() == task.amount()
    }
}

/// The decisions of these orders, in no order; undecided orders are left out. The orders must be distinct.
pub async fn payments_batch(db: &impl ConnectionTrait, orders: &[OrderId]) -> Result<Vec<Model>, DbErr> {
    let backend = db.get_database_backend();
    let rows = Columns::new(backend, orders).uuid("order_id", |id| id.0);
    let statement = rows.statement(|rows| {
        let these = is_one_of(backend, "p.order_id", &format!("SELECT r.order_id FROM {rows} AS r"));
        format!("SELECT {} FROM payments AS p WHERE {these}", columns_of::<Entity>("p"))
    });
    Entity::find().from_raw_sql(statement).all(db).await
}

/// Adds the columns that [`insert_payments_from`] needs, but `order_id`, of rows that may come with a decision. Without one its `outcome` is
/// NULL.
pub(super) fn columns<'a, R>(rows: Columns<'a, R>, payment: impl Fn(&'a R) -> Option<&'a Model>) -> Columns<'a, R> {
    rows.opt_text("user_id", |row| payment(row).map(|payment| payment.user_id.as_str()))
        .bigint("amount_minor", |row| payment(row).map_or(0, |payment| payment.amount_minor))
        .opt_text("currency", |row| payment(row).map(|payment| payment.currency.code()))
        .opt_text("outcome", |row| payment(row).map(|payment| payment.outcome.as_str()))
        .opt_text("rejection_reason", |row| payment(row)?.rejection_reason.map(RejectionReason::as_str))
        .opt_uuid("entry_id", |row| payment(row)?.entry_id.map(|id| id.0))
        .opt_uuid("result_event_id", |row| payment(row).map(|payment| payment.result_event_id.0))
        .bigint("decided_at_ms", |row| payment(row).map_or(0, |payment| payment.decided_at_ms.0))
}

/// Inserts the decisions in the table `from` of orders that have none. In the order of the orders' ids: two
/// transactions that decide the same orders then wait for each other instead of being chosen as victims of a deadlock.
pub(super) fn insert_payments_from(from: &str) -> String {
    let on_conflict = OnConflict::DoNothing.clause("(order_id)");
    format!(
        "INSERT INTO payments (order_id, user_id, amount_minor, currency, outcome, rejection_reason, entry_id, result_event_id,
                               decided_at_ms)
         SELECT order_id, user_id, amount_minor, currency, outcome, rejection_reason, entry_id, result_event_id, decided_at_ms
         FROM {from} WHERE outcome IS NOT NULL ORDER BY order_id {on_conflict}"
    )
}

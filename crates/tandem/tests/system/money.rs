//! What becomes of orders and of the money.

use serde_json::{Value, json};

use crate::support::{System, user::money};

const ENTRIES: &str = "{ me { account { balance { amount currencyCode } entries {
    nodes { kind amount { amount } balanceAfter { amount } order { id } } } } } }";
const ORDER: &str = "query($id: ID!) { order(id: $id) {
    status rejectionReason history { version status rejectionReason } payment { outcome rejectionReason amount { amount } entry { id } } } }";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_three_orders_the_one_beyond_the_balance_is_rejected_and_the_entries_explain_the_rest() {
    let Some(system) = System::start().await else { return };
    let ada = system.user_with("ada", "100.00", "EUR").await;
    let (first, second, third) = (ada.order("60").await, ada.order("30.00").await, ada.order("10.01").await);
    ada.paid(&first).await;
    ada.paid(&second).await;
    assert_eq!(ada.decided(&third).await, ("REJECTED".to_owned(), Some("INSUFFICIENT_FUNDS".to_owned())));

    let account = ada.data(ENTRIES, json!({})).await["me"]["account"].take();
    let entry = |kind: &str, amount: &str, after: &str, order: Option<&str>| {
        let order = order.map_or(Value::Null, |id| json!({ "id": id }));
        json!({ "kind": kind, "amount": { "amount": amount }, "balanceAfter": { "amount": after }, "order": order })
    };
    assert_eq!(account["balance"], money("10.00", "EUR"));
    let expected = [
        entry("DEBIT", "-30.00", "10.00", Some(&second)),
        entry("DEBIT", "-60.00", "40.00", Some(&first)),
        entry("TOP_UP", "100.00", "100.00", None),
    ];
    assert_eq!(account["entries"]["nodes"], json!(expected), "newest first");

    let paid = ada.data(ORDER, json!({ "id": first })).await["order"].take();
    let step =
        |version: i32, status: &str, reason: Value| json!({ "version": version, "status": status, "rejectionReason": reason });
    assert_eq!(paid["history"], json!([step(1, "PENDING", Value::Null), step(2, "PAID", Value::Null)]));
    assert_eq!((&paid["payment"]["outcome"], &paid["payment"]["amount"]["amount"]), (&json!("PAID"), &json!("60.00")));
    assert!(paid["payment"]["entry"]["id"].is_string());
    let rejected = ada.data(ORDER, json!({ "id": third })).await["order"].take();
    assert_eq!(rejected["history"][1], step(2, "REJECTED", json!("INSUFFICIENT_FUNDS")));
    let payment =
        json!({ "outcome": "REJECTED", "rejectionReason": "INSUFFICIENT_FUNDS", "amount": { "amount": "10.01" }, "entry": null });
    assert_eq!(rejected["payment"], payment);
    let report = system.clean_audit().await;
    assert_eq!((report.accounts, report.entries, report.paid, report.rejected), (1, 3, 2, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_cent_can_be_spent_and_not_one_more() {
    let Some(system) = System::start().await else { return };
    let ada = system.user_with("ada", "5.00", "EUR").await;
    let orders = futures_util::future::join_all((0..12).map(|_| ada.order("0.50"))).await;
    let mut paid = 0;
    for order in &orders {
        paid += usize::from(ada.decided(order).await.0 == "PAID");
    }
    assert_eq!((paid, ada.balance().await.as_str()), (10, "0.00"));
    system.clean_audit().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_rejected_for_want_of_an_account_stays_rejected_when_its_task_comes_again() {
    let Some(system) = System::start().await else { return };
    let bob = system.user("bob");
    let order = bob.order("5.00").await;
    let rejected = ("REJECTED".to_owned(), Some("ACCOUNT_NOT_FOUND".to_owned()));
    assert_eq!(bob.decided(&order).await, rejected);
    bob.create_account("EUR").await;
    bob.top_up("100", "EUR").await;

    // The same task by the broker again, published again, and sent by mistake under a new event id.
    system.deliver_tasks_again().await;
    let task = system.records("payment_tasks", 1).await.remove(0);
    let mistaken = messaging::Record { headers: task.headers.clone().with("ce_id", uuid_text()), ..task.clone() };
    system.publish(&[task, mistaken]).await;
    // Behind them in the same partition.
    let last = bob.order("1.00").await;
    bob.paid(&last).await;
    // And behind all results.
    let last = bob.order("1.00").await;
    bob.paid(&last).await;

    assert_eq!(bob.status(&order).await, rejected);
    assert_eq!(bob.balance().await, "98.00");
    assert_eq!(system.clean_audit().await.entries, 3);
}

fn uuid_text() -> String {
    schema::EventId::generate().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn money_of_another_currency_pays_nothing() {
    let Some(system) = System::start().await else { return };
    let ada = system.user_with("ada", "100", "JPY").await;
    let foreign = ada.order_in("1.00", "EUR").await;
    let own = ada.order_in("40", "JPY").await;
    assert_eq!(ada.decided(&foreign).await, ("REJECTED".to_owned(), Some("CURRENCY_MISMATCH".to_owned())));
    ada.paid(&own).await;
    assert_eq!(ada.balance().await, "60", "yen have no decimals");
    let kuwaiti = system.user_with("kim", "1.5", "KWD").await;
    kuwaiti.paid(&kuwaiti.order_in("0.125", "KWD").await).await;
    assert_eq!(kuwaiti.balance().await, "1.375", "dinars have three");
    system.clean_audit().await;
}

//! What outlives an orderly restart; `prove` covers the disorderly ones.

use serde_json::json;

use crate::support::{System, user::text};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_that_wait_for_payment_or_for_its_result_are_settled_after_a_restart() {
    let Some(system) = System::start().await else { return };
    let ada = system.user_with("ada", "100", "EUR").await;
    system.pause_results().await;
    let told_late = ada.order("1").await;
    crate::support::until("it is paid for", async || ada.balance().await == "99.00").await;
    system.pause_payments().await;
    let decided_late = ada.order("2").await;
    let cursor = text(&ada.data("{ orderEventsCursor }", json!({})).await["orderEventsCursor"]);
    for order in [&told_late, &decided_late] {
        assert_eq!(ada.status(order).await.0, "PENDING");
    }

    let system = system.restart().await;
    let ada = system.user("ada");
    for order in [&told_late, &decided_late] {
        ada.paid(order).await;
    }
    assert_eq!(ada.balance().await, "97.00");
    system.clean_audit().await;

    // A cursor from before leads on from there: exactly the two payments.
    let mut socket = ada.socket().await;
    let query = "subscription($after: String) { orderEvents(after: $after) { version status } }";
    socket.subscribe("s", query, json!({ "after": cursor })).await;
    for _ in 0..2 {
        assert_eq!(socket.event("s", "orderEvents").await, Some(json!({ "version": 2, "status": "PAID" })));
    }
    ada.order("3").await;
    assert_eq!(socket.event("s", "orderEvents").await, Some(json!({ "version": 1, "status": "PENDING" })), "nothing between");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idempotency_keys_outlive_a_restart() {
    let Some(system) = System::start().await else { return };
    let input = json!({ "total": { "amount": "1", "currencyCode": "EUR" }, "description": "a book", "idempotencyKey": "k" });
    let first = crate::support::user::accepted(&system.user("ada").create_order(input.clone()).await);
    let system = system.restart().await;
    assert_eq!(crate::support::user::accepted(&system.user("ada").create_order(input).await), first);
    assert_eq!(system.count(system.orders_db(), "orders").await, 1);
}

//! Concurrent calls share a transaction, and nobody pays for anybody else's mistake.

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use crate::support::{
    System, User,
    user::{CREATE_ACCOUNT, CREATE_ORDER, TOP_UP, accepted, money, text},
};

fn order(amount: &str, key: &str) -> Value {
    json!({ "total": money(amount, "EUR"), "description": "a book", "idempotencyKey": key })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_key_used_by_many_at_once_makes_one_order() {
    let Some(system) = System::start().await else { return };
    let ada = system.user_with("ada", "100", "EUR").await;
    let payloads = join_all((0..30).map(|_| ada.create_order(order("1", "k")))).await;
    let ids: Vec<String> = payloads.iter().map(accepted).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    ada.paid(&ids[0]).await;
    // Later, written differently, by another of the user's devices: the same call, and the order as it is now.
    let again = ada.create_order(order("1.00", "k")).await;
    assert_eq!((accepted(&again), &again["order"]["status"]), (ids[0].clone(), &json!("PAID")));
    // The key is ada's.
    let other = accepted(&system.user("bob").create_order(order("1", "k")).await);
    assert_ne!(other, ids[0]);
    assert_eq!(system.count(system.orders_db(), "orders").await, 2);
    assert_eq!(ada.balance().await, "99.00");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accounts_and_top_ups_are_made_once_per_key_too() {
    let Some(system) = System::start().await else { return };
    let ada = system.user("ada");
    let input = json!({ "input": { "currencyCode": "EUR", "idempotencyKey": "k" } });
    let accounts = join_all((0..8).map(|_| ada.data(CREATE_ACCOUNT, input.clone()))).await;
    let first = text(&accounts[0]["createAccount"]["account"]["id"]);
    assert!(accounts.iter().all(|answer| answer["createAccount"]["account"]["id"] == first.as_str()), "{accounts:?}");
    let refused = ada.data(CREATE_ACCOUNT, json!({ "input": { "currencyCode": "EUR" } })).await;
    assert_eq!(refused["createAccount"]["userErrors"][0]["code"], "ACCOUNT_ALREADY_EXISTS");

    let input = json!({ "input": { "amount": money("5", "EUR"), "idempotencyKey": "k" } });
    let entries = join_all((0..8).map(|_| ada.data(TOP_UP, input.clone()))).await;
    let first = text(&entries[0]["topUpAccount"]["entry"]["id"]);
    assert!(entries.iter().all(|answer| answer["topUpAccount"]["entry"]["id"] == first.as_str()), "{entries:?}");
    assert_eq!(ada.balance().await, "5.00");
    let other = json!({ "input": { "amount": money("6", "EUR"), "idempotencyKey": "k" } });
    let refused = ada.data(TOP_UP, other).await;
    assert_eq!(refused["topUpAccount"]["userErrors"][0]["code"], "IDEMPOTENCY_KEY_REUSED");
    assert_eq!(system.clean_audit().await.entries, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_order_fails_its_own_caller_only() {
    let Some(system) = System::start().await else { return };
    let ada = system.user_with("ada", "100", "EUR").await;
    accepted(&ada.create_order(order("1", "taken")).await);
    let calls = (0..60).map(|n| match n % 3 {
        0 => order("2", "taken"),
        1 => json!({ "total": money("1", "EUR"), "description": " ", "idempotencyKey": format!("blank-{n}") }),
        _ => order("1", &format!("good-{n}")),
    });
    let payloads = join_all(calls.map(|input| ada.create_order(input))).await;
    for (n, payload) in payloads.iter().enumerate() {
        match n % 3 {
            0 => assert_eq!(payload["userErrors"][0]["code"], "IDEMPOTENCY_KEY_REUSED", "{n}: {payload}"),
            1 => assert_eq!(payload["userErrors"][0]["code"], "DESCRIPTION_BLANK", "{n}: {payload}"),
            _ => drop(accepted(payload)),
        }
    }
    assert_eq!(system.count(system.orders_db(), "orders").await, 21);
    // Refusals claim no key.
    accepted(&ada.create_order(order("1", "blank-1")).await);
}

/// Sends a call and hangs up without waiting for the answer.
async fn hang_up(system: &System, user: &User, input: &Value) {
    let body = json!({ "query": CREATE_ORDER, "variables": { "input": input } }).to_string();
    let request = format!(
        "POST /graphql HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        user.token,
        body.len()
    );
    let mut stream = TcpStream::connect(system.address()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_hangs_up_fails_nobody_and_its_key_can_be_repeated() {
    const CALLS: usize = 40;
    let Some(system) = System::start().await else { return };
    let ada = system.user_with("ada", "100", "EUR").await;
    let abandoned = |n: usize| order("1", &format!("abandoned-{n}"));
    let calls = join_all((0..CALLS).map(async |n| {
        hang_up(&system, &ada, &abandoned(n)).await;
        accepted(&ada.create_order(order("1", &format!("kept-{n}"))).await)
    }))
    .await;
    assert_eq!(calls.len(), CALLS);
    // Whether they were carried out nobody can know; repeating them makes sure.
    let repeated = join_all((0..CALLS).map(|n| ada.create_order(abandoned(n)))).await;
    for order in calls.into_iter().chain(repeated.iter().map(accepted)) {
        ada.paid(&order).await;
    }
    assert_eq!(system.count(system.orders_db(), "orders").await, 2 * i64::try_from(CALLS).unwrap());
    assert_eq!(ada.balance().await, "20.00");
    system.clean_audit().await;
}

//! Orders seen happening: every change once, in order, whatever happens to the socket.

use std::{collections::HashMap, time::Duration};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::{PATIENCE, Socket, System, User, user::text};

const OF_ORDER: &str =
    "subscription($id: ID!) { orderStatusChanged(orderId: $id) { version status rejectionReason order { id status } } }";
const OF_USER: &str = "subscription($after: String) { orderEvents(after: $after) { cursor version status order { id } } }";
const CURSOR: &str = "{ orderEventsCursor }";

async fn cursor(user: &User) -> String {
    text(&user.data(CURSOR, json!({})).await["orderEventsCursor"])
}

/// Order, version and status of an event.
fn step(event: &Value) -> (String, i64, String) {
    (text(&event["order"]["id"]), event["version"].as_i64().unwrap(), text(&event["status"]))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_sees_an_order_pending_and_then_paid_and_then_the_end() {
    let Some(system) = System::start().await else { return };
    let ada = system.user_with("ada", "20", "EUR").await;
    system.pause_payments().await;
    let order = ada.order("1").await;
    let mut socket = ada.socket().await;
    socket.subscribe("s", OF_ORDER, json!({ "id": order })).await;
    let event = |version: i32, status: &str| json!({ "version": version, "status": status, "rejectionReason": null, "order": { "id": order, "status": status } });
    assert_eq!(socket.event("s", "orderStatusChanged").await, Some(event(1, "PENDING")));
    let payment = ada.data("query($id: ID!) { order(id: $id) { payment { id } } }", json!({ "id": order })).await;
    assert_eq!(payment["order"]["payment"], Value::Null, "nothing is decided yet");
    system.resume_payments();
    assert_eq!(socket.event("s", "orderStatusChanged").await, Some(event(2, "PAID")));
    assert_eq!(socket.event("s", "orderStatusChanged").await, None, "nothing can follow");

    // Decided already: one event, and the end.
    socket.subscribe("again", OF_ORDER, json!({ "id": order })).await;
    assert_eq!(socket.event("again", "orderStatusChanged").await, Some(event(2, "PAID")));
    assert_eq!(socket.event("again", "orderStatusChanged").await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_is_unknown_malformed_or_somebody_else_s_is_not_found() {
    let Some(system) = System::start().await else { return };
    let order = system.user("ada").order("1").await;
    let mut socket = system.user("bob").socket().await;
    for id in [order.as_str(), "order_01h2xcejqtf2nbrexx3vqjhp41", "nonsense", ""] {
        socket.subscribe("s", OF_ORDER, json!({ "id": id })).await;
        assert_eq!(socket.refusal("s").await, "NOT_FOUND", "{id}");
    }
    for after in ["nonsense", ""] {
        socket.subscribe("s", OF_USER, json!({ "after": after })).await;
        assert_eq!(socket.refusal("s").await, "BAD_USER_INPUT", "{after}");
    }
    let mut operator = system.admin().socket().await;
    operator.subscribe("s", OF_ORDER, json!({ "id": order })).await;
    assert!(operator.event("s", "orderStatusChanged").await.is_some(), "operators see everything");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_sees_events_of_somebody_else() {
    let Some(system) = System::start().await else { return };
    let (ada, bob) = (system.user("ada"), system.user("bob"));
    let start = cursor(&bob).await;
    let mut socket = bob.socket().await;
    socket.subscribe("s", OF_USER, json!({ "after": start })).await;
    ada.decided(&ada.order("1").await).await;
    let own = bob.order("1").await;
    let first = socket.event("s", "orderEvents").await.unwrap();
    assert_eq!(step(&first), (own, 1, "PENDING".to_owned()), "the first event is bob's, not ada's");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_that_drops_at_any_moment_resumes_with_nothing_missing_or_repeated() {
    let Some(system) = System::start().await else { return };
    let ada = system.user_with("ada", "100", "EUR").await;
    // Cursor, list, subscription: what falls between them, or before the first event of a dropped socket, must not be lost.
    let mut after = cursor(&ada).await;
    assert_eq!(ada.data("{ orders { nodes { id } } }", json!({})).await["orders"]["nodes"], json!([]));
    let mut orders = vec![ada.order("1").await];
    let mut socket = ada.socket().await;
    socket.subscribe("s", OF_USER, json!({ "after": after })).await;
    drop(socket);

    let mut seen = Vec::new();
    for taken in 1..=5 {
        orders.push(ada.order("1").await);
        let mut socket = ada.socket().await;
        socket.subscribe("s", OF_USER, json!({ "after": after })).await;
        for _ in 0..taken.min(2) {
            let event = socket.event("s", "orderEvents").await.unwrap();
            after = text(&event["cursor"]);
            seen.push(step(&event));
        }
    }
    let mut socket = ada.socket().await;
    socket.subscribe("s", OF_USER, json!({ "after": after })).await;
    while seen.len() < 2 * orders.len() {
        seen.push(step(&socket.event("s", "orderEvents").await.unwrap()));
    }
    let mut replay = ada.socket().await;
    let start = text(
        &ada.data("{ orders(last: 1) { nodes { history { cursor } } } }", json!({})).await["orders"]["nodes"][0]["history"][0]["cursor"],
    );
    replay.subscribe("s", OF_USER, json!({ "after": start })).await;
    for expected in &seen[1..] {
        assert_eq!(&step(&replay.event("s", "orderEvents").await.unwrap()), expected);
    }
    assert_complete(&orders, &seen);
}

/// Each order's versions are 1, PENDING, and 2, PAID, each once and in this order.
fn assert_complete(orders: &[String], seen: &[(String, i64, String)]) {
    let mut steps: HashMap<&str, Vec<(i64, &str)>> = HashMap::new();
    for (order, version, status) in seen {
        steps.entry(order).or_default().push((*version, status));
    }
    assert_eq!(steps.len(), orders.len());
    for order in orders {
        assert_eq!(steps[order.as_str()], [(1, "PENDING"), (2, "PAID")], "{order}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_subscribers_see_each_of_two_hundred_orders_once_and_in_the_same_order() {
    const SUBSCRIBERS: usize = 20;
    const ORDERS: usize = 200;
    let Some(system) = System::start().await else { return };
    let ada = system.user_with("ada", "1000", "EUR").await;
    let start = cursor(&ada).await;
    let follow = async |after: &Value| {
        let mut socket = ada.socket().await;
        socket.subscribe("s", OF_USER, json!({ "after": after })).await;
        let mut seen = Vec::with_capacity(2 * ORDERS);
        while seen.len() < 2 * ORDERS {
            seen.push(step(&socket.event("s", "orderEvents").await.unwrap()));
        }
        seen
    };
    // All have the cursor, so it does not matter who is attached when the first order comes.
    let after = json!(start);
    let followers = join_all((0..SUBSCRIBERS).map(|_| follow(&after)));
    let orders = async {
        let mut orders = Vec::with_capacity(ORDERS);
        for _ in 0..ORDERS / 20 {
            orders.extend(join_all((0..20).map(|_| ada.order("1"))).await);
        }
        orders
    };
    let (seen, orders) = tokio::join!(followers, orders);
    assert_complete(&orders, &seen[0]);
    for other in &seen[1..] {
        assert_eq!(other, &seen[0]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_pauses_misses_nothing_and_holds_nobody_up() {
    const ORDERS: usize = 150;
    let Some(system) = System::start().await else { return };
    let ada = system.user_with("ada", "1000", "EUR").await;
    // Each event carries its order's long description many times, so that buffers of the system fill up.
    let aliases: String = (0..40).map(|n| format!("d{n}: description ")).collect();
    let query = format!("subscription {{ orderEvents {{ version status order {{ id {aliases} }} }} }}");
    let mut slow = Socket::try_connect(system.address(), None, Some(4096)).await.unwrap();
    slow.init(&ada.token).await;
    slow.subscribe("s", &query, json!({})).await;
    let first = loop {
        // `orderEvents` without a cursor starts when it is attached; an order that is seen tells that it is.
        let order = ada.order("1").await;
        ada.paid(&order).await;
        if let Ok(event) = tokio::time::timeout(Duration::from_millis(500), slow.event("s", "orderEvents")).await {
            break step(&event.unwrap());
        }
    };

    let mut fast = ada.socket().await;
    let after = json!({ "after": cursor(&ada).await });
    fast.subscribe("s", OF_USER, after).await;
    let description = "\u{1F4DA}".repeat(500);
    let input = json!({ "total": { "amount": "1", "currencyCode": "EUR" }, "description": description });
    let orders: Vec<String> =
        join_all((0..ORDERS).map(|_| ada.create_order(input.clone()))).await.iter().map(crate::support::user::accepted).collect();
    let mut by_fast = Vec::new();
    while by_fast.len() < 2 * ORDERS {
        by_fast.push(step(&fast.event("s", "orderEvents").await.unwrap()));
    }
    assert_complete(&orders, &by_fast);

    let mut by_slow = Vec::new();
    while by_slow.len() < 2 * ORDERS {
        let event = step(&slow.event("s", "orderEvents").await.unwrap());
        if event.0 != first.0 && orders.contains(&event.0) {
            by_slow.push(event);
        }
    }
    assert_eq!(by_slow, by_fast, "the same, in the same order");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_ends_with_its_token_and_does_not_begin_without_one() {
    let Some(system) = System::start().await else { return };
    let brief = system.with_token(system.token("ada", &[], Duration::from_secs(2)));
    let mut socket = brief.socket().await;
    socket.subscribe("s", OF_USER, json!({})).await;
    assert_eq!(socket.close_code().await, 4403, "clients fetch a new token after this code");

    for payload in [json!({}), json!({ "authorization": "Bearer nonsense" }), json!({ "authorization": 42 }), Value::Null] {
        let mut socket = Socket::connect(system.address()).await;
        socket.send(json!({ "type": "connection_init", "payload": payload })).await;
        let code = tokio::time::timeout(PATIENCE, socket.close_code()).await.unwrap();
        assert_eq!(code, 4403, "{payload}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queries_and_mutations_work_over_a_socket_too() {
    let Some(system) = System::start().await else { return };
    let mut socket = system.user("ada").socket().await;
    let input = json!({ "input": { "total": { "amount": "1", "currencyCode": "EUR" }, "description": "a book" } });
    socket.subscribe("m", crate::support::user::CREATE_ORDER, input).await;
    let payload = socket.event("m", "createOrder").await.unwrap();
    assert_eq!(payload["order"]["status"], "PENDING");
    assert_eq!(socket.event("m", "createOrder").await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_carry_fields_of_both_services_and_go_on_while_payments_is_away() {
    let Some(system) = System::start().await else { return };
    let ada = system.user_with("ada", "20", "EUR").await;
    let query = "subscription($id: ID!) { orderStatusChanged(orderId: $id) { status order { payment { outcome entry { balanceAfter { amount } } } } } }";
    let paid = ada.order("1").await;
    ada.paid(&paid).await;
    let mut socket = ada.socket().await;
    socket.subscribe("s", query, json!({ "id": paid })).await;
    let payment = json!({ "outcome": "PAID", "entry": { "balanceAfter": { "amount": "19.00" } } });
    let expected = json!({ "status": "PAID", "order": { "payment": payment } });
    assert_eq!(socket.event("s", "orderStatusChanged").await, Some(expected));
    assert_eq!(socket.event("s", "orderStatusChanged").await, None);

    system.take_payments_away().await;
    socket.subscribe("s", query, json!({ "id": paid })).await;
    let payload = socket.payload("s").await.unwrap();
    assert_eq!(payload["data"]["orderStatusChanged"], json!({ "status": "PAID", "order": { "payment": null } }));
    let errors = payload["errors"].as_array().unwrap();
    assert_eq!((errors.len(), &errors[0]["extensions"]["code"]), (1, &json!("SERVICE_UNAVAILABLE")));
    assert_eq!(errors[0]["path"], json!(["orderStatusChanged", "order", "payment"]));
    assert_eq!(socket.payload("s").await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_of_what_is_no_longer_kept_is_expired() {
    let Some(system) = System::start().await else { return };
    let ada = system.user("ada");
    let first = cursor(&ada).await;
    ada.decided(&ada.order("1").await).await;
    let last = cursor(&ada).await;
    system.prune_events().await;
    let mut socket = ada.socket().await;
    socket.subscribe("s", OF_USER, json!({ "after": first })).await;
    assert_eq!(socket.refusal("s").await, "CURSOR_EXPIRED");
    socket.subscribe("s", OF_USER, json!({ "after": last })).await;
    let order = ada.order("1").await;
    assert_eq!(step(&socket.event("s", "orderEvents").await.unwrap()), (order, 1, "PENDING".to_owned()), "nothing was missed");
}

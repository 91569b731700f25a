//! One API over two services: what it joins, and what it does while one of them is away.

use serde_json::{Value, json};

use crate::support::{
    System, User,
    user::{money, text},
};

const BOTH_WAYS: &str = "{ me {
    account { balance { amount currencyCode } entries(first: 5) { nodes { amount { amount } order { id status } } } }
    orders(first: 5) { nodes { id status payment { id outcome } user { account { id } } } } } }";

/// The ids of one thing of each type that a user has.
const IDS: &str = "query($order: ID!) {
    me { id account { id entries(first: 1) { nodes { id } } } }
    order(id: $order) { id payment { id } } }";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_request_joins_both_services_both_ways() {
    let Some(system) = System::start().await else { return };
    let ada = system.user("ada");
    let account = ada.create_account("EUR").await;
    ada.top_up("20", "EUR").await;
    let (paid, rejected) = (ada.order("12.50").await, ada.order("50").await);
    ada.paid(&paid).await;
    ada.decided(&rejected).await;

    let payment = |order: &str| order.replace("order_", "payment_");
    let order = |id: &str, outcome: &str| json!({ "id": id, "status": outcome, "payment": { "id": payment(id), "outcome": outcome }, "user": { "account": { "id": account } } });
    let expected = json!({ "me": {
        "account": {
            "balance": money("7.50", "EUR"),
            "entries": { "nodes": [
                { "amount": { "amount": "-12.50" }, "order": { "id": paid, "status": "PAID" } },
                { "amount": { "amount": "20.00" }, "order": null },
            ] },
        },
        "orders": { "nodes": [order(&rejected, "REJECTED"), order(&paid, "PAID")] },
    } });
    assert_eq!(ada.data(BOTH_WAYS, json!({})).await, expected);
}

/// A user with one of everything, and the ids: order, user, account, entry, payment.
async fn one_of_each(system: &System, name: &str) -> (User, [String; 5]) {
    let user = system.user_with(name, "20", "EUR").await;
    let order = user.order("1").await;
    user.paid(&order).await;
    let data = user.data(IDS, json!({ "order": order })).await;
    let (me, account) = (&data["me"], &data["me"]["account"]);
    let ids =
        [&data["order"]["id"], &me["id"], &account["id"], &account["entries"]["nodes"][0]["id"], &data["order"]["payment"]["id"]];
    (user, ids.map(text))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_id_leads_to_its_node_and_says_its_type() {
    let Some(system) = System::start().await else { return };
    let (ada, ids) = one_of_each(&system, "ada").await;
    let query = "query($id: ID!) { node(id: $id) { __typename id
        ... on Order { status } ... on User { account { id } } ... on Account { balance { amount } }
        ... on LedgerEntry { kind order { number } } ... on Payment { outcome entry { id } } } }";
    let number =
        ada.data("query($id: ID!) { order(id: $id) { number } }", json!({ "id": ids[0] })).await["order"]["number"].take();
    let expected = [
        json!({ "__typename": "Order", "id": ids[0], "status": "PAID" }),
        json!({ "__typename": "User", "id": ids[1], "account": { "id": ids[2] } }),
        json!({ "__typename": "Account", "id": ids[2], "balance": { "amount": "19.00" } }),
        json!({ "__typename": "LedgerEntry", "id": ids[3], "kind": "DEBIT", "order": { "number": number } }),
        json!({ "__typename": "Payment", "id": ids[4], "outcome": "PAID", "entry": { "id": ids[3] } }),
    ];
    for (id, expected) in ids.iter().zip(&expected) {
        assert_eq!(&ada.data(query, json!({ "id": id })).await["node"], expected);
        assert_eq!(&system.admin().data(query, json!({ "id": id })).await["node"], expected, "operators see everything");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_or_user_that_is_unknown_malformed_or_somebody_else_s_is_null() {
    let Some(system) = System::start().await else { return };
    let (_, ids) = one_of_each(&system, "ada").await;
    let bob = system.user("bob");
    let [order, user, ..] = &ids;
    let unknown =
        ["order_01h2xcejqtf2nbrexx3vqjhp41", "order_", "", "nonsense", "user_*", "ORDER_01h2xcejqtf2nbrexx3vqjhp41", "42"];
    for id in [order.as_str(), user].into_iter().chain(unknown) {
        let query = "query($id: ID!) { id: node(id: $id) { id } name: node(id: $id) { __typename } order(id: $id) { id } }";
        assert_eq!(bob.data(query, json!({ "id": id })).await, json!({ "id": null, "name": null, "order": null }), "{id}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_payments_does_not_know_or_show_is_null_without_an_error() {
    let Some(system) = System::start().await else { return };
    let (_, ids) = one_of_each(&system, "ada").await;
    let bob = system.user("bob");
    let [_, _, account, entry, payment] = &ids;
    let unknown =
        ["account_01h2xcejqtf2nbrexx3vqjhp41", "entry_01h2xcejqtf2nbrexx3vqjhp41", "payment_01h2xcejqtf2nbrexx3vqjhp41"];
    for id in [account.as_str(), entry, payment].into_iter().chain(unknown) {
        let query = "query($id: ID!) { node(id: $id) { id
            ... on Account { balance { amount } } ... on LedgerEntry { amount { amount } } ... on Payment { outcome } } }";
        assert_eq!(bob.data(query, json!({ "id": id })).await, json!({ "node": null }), "{id}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn typename_and_introspection_are_answered_beside_fields_of_both_services() {
    let Some(system) = System::start().await else { return };
    let ada = system.user_with("ada", "1", "EUR").await;
    let query = "{ __typename me { __typename account { __typename balance { __typename } } }
        __type(name: \"Order\") { fields { name } } __schema { subscriptionType { name } } }";
    let mut data = ada.data(query, json!({})).await;
    let fields: Vec<String> =
        data["__type"]["fields"].take().as_array().unwrap().iter().map(|field| text(&field["name"])).collect();
    for field in ["id", "number", "payment", "history"] {
        assert!(fields.contains(&field.to_owned()), "{fields:?}");
    }
    let me = json!({ "__typename": "User", "account": { "__typename": "Account", "balance": { "__typename": "Money" } } });
    assert_eq!((&data["__typename"], &data["me"]), (&json!("Query"), &me));
    assert_eq!(data["__schema"]["subscriptionType"]["name"], "Subscription");

    let sdl = reqwest::get(system.url().replace("/graphql", "/schema.graphql")).await.unwrap().text().await.unwrap();
    assert!(sdl.contains("type Subscription") && sdl.contains("createAccount"), "{sdl}");
    assert!(!sdl.contains("@join__") && !sdl.contains("_entities"), "the public schema knows no federation");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_payments_is_away_orders_answer_and_what_it_owns_is_null_with_one_error() {
    let Some(system) = System::start().await else { return };
    let ada = system.user_with("ada", "20", "EUR").await;
    let order = ada.order("1").await;
    ada.paid(&order).await;
    system.take_payments_away().await;

    let plain = ada.data("{ orders { nodes { id status } } me { id orders { nodes { id } } } }", json!({})).await;
    assert_eq!(plain["orders"]["nodes"], json!([{ "id": order, "status": "PAID" }]), "not even an error");

    let answer = ada.run("{ me { id account { balance { amount } } orders { nodes { id status } } } }", json!({})).await;
    assert_eq!(answer.data["me"]["account"], Value::Null);
    assert_eq!(answer.data["me"]["orders"]["nodes"], json!([{ "id": order, "status": "PAID" }]));
    assert_eq!(answer.errors.len(), 1, "{answer:?}");
    assert_eq!((answer.code(), &answer.errors[0]["path"]), (Some("SERVICE_UNAVAILABLE"), &json!(["me", "account"])));

    // One list, one error per order at most, and the list itself stands.
    let answer = ada.run("{ orders { nodes { id payment { outcome } } } }", json!({})).await;
    assert_eq!(answer.data["orders"]["nodes"], json!([{ "id": order, "payment": null }]));
    assert_eq!((answer.code(), answer.errors.len()), (Some("SERVICE_UNAVAILABLE"), 1));

    // An order that was accepted beside a top-up that failed is reported all the same, and it is paid.
    let mutation = "mutation($order: CreateOrderInput!, $topUp: TopUpAccountInput!) {
        createOrder(input: $order) { order { id } userErrors { code } }
        topUpAccount(input: $topUp) { entry { id } userErrors { code } } }";
    let input =
        json!({ "order": { "total": money("2", "EUR"), "description": "a pen" }, "topUp": { "amount": money("5", "EUR") } });
    let answer = ada.run(mutation, input.clone()).await;
    let second = text(&answer.data["createOrder"]["order"]["id"]);
    assert_eq!(answer.data["topUpAccount"], Value::Null);
    assert_eq!((answer.code(), answer.errors.len()), (Some("SERVICE_UNAVAILABLE"), 1), "{answer:?}");
    assert_eq!(answer.errors[0]["path"], json!(["topUpAccount"]));
    ada.paid(&second).await;

    system.bring_payments_back().await;
    assert_eq!(ada.balance().await, "17.00", "the failed top-up did nothing");
    let answer = ada.data(mutation, input).await;
    assert!(answer["topUpAccount"]["entry"]["id"].is_string(), "{answer}");
    ada.paid(&text(&answer["createOrder"]["order"]["id"])).await;
    assert_eq!(ada.balance().await, "20.00");
    system.clean_audit().await;
}

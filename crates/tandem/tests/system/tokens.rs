//! Nobody gets in on a token that is not good.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use crate::support::{
    System,
    system::SECRET,
    user::{CREATE_ORDER, money},
};

/// Seconds since the epoch, this much from now.
fn at(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    i64::try_from(now).unwrap() + seconds
}

fn signed(algorithm: Algorithm, secret: &str, claims: &Value) -> String {
    jsonwebtoken::encode(&Header::new(algorithm), claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
}

fn unsigned(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.", part(header), part(claims))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_token_is_401_and_its_order_does_not_exist() {
    let Some(system) = System::start().await else { return };
    let good = json!({ "sub": "ada", "exp": at(60) });
    let hs256 = |claims: Value| signed(Algorithm::HS256, SECRET, &claims);
    let bad = [
        ("malformed", "nonsense".to_owned()),
        ("three parts of nonsense", "a.b.c".to_owned()),
        ("expired", hs256(json!({ "sub": "ada", "exp": at(-60) }))),
        ("without an end", hs256(json!({ "sub": "ada" }))),
        ("not valid yet", hs256(json!({ "sub": "ada", "exp": at(120), "nbf": at(60) }))),
        ("nobody's", hs256(json!({ "exp": at(60) }))),
        ("of a user without a name", hs256(json!({ "sub": "", "exp": at(60) }))),
        ("of a name too long", hs256(json!({ "sub": "x".repeat(256), "exp": at(60) }))),
        ("alg none", unsigned(&json!({ "alg": "none", "typ": "JWT" }), &good)),
        ("alg None", unsigned(&json!({ "alg": "None" }), &good)),
        ("without a signature", unsigned(&json!({ "alg": "HS256", "typ": "JWT" }), &good)),
        ("another secret", signed(Algorithm::HS256, "another secret of 32 bytes or more", &good)),
        ("another algorithm", signed(Algorithm::HS512, SECRET, &good)),
        ("tampered with", {
            let token = hs256(good.clone());
            let parts: Vec<&str> = token.split('.').collect();
            let claims = URL_SAFE_NO_PAD.encode(json!({ "sub": "root", "scope": "admin", "exp": at(60) }).to_string());
            format!("{}.{claims}.{}", parts[0], parts[2])
        }),
    ];
    let http = reqwest::Client::new();
    let input = json!({ "total": money("1", "EUR"), "description": "a book" });
    let body = json!({ "query": CREATE_ORDER, "variables": { "input": input } });
    let call = async |authorization: &str| {
        http.post(system.url()).header("authorization", authorization).json(&body).send().await.unwrap()
    };
    for (what, token) in &bad {
        let response = call(&format!("Bearer {token}")).await;
        assert_eq!(response.status().as_u16(), 401, "{what}");
        let challenge = response.headers()["www-authenticate"].to_str().unwrap().to_owned();
        assert!(challenge.starts_with("Bearer error=\"invalid_token\""), "{what}: {challenge}");
        let answer: Value = response.json().await.unwrap();
        assert_eq!(answer["errors"][0]["extensions"]["code"], "UNAUTHENTICATED", "{what}: {answer}");
        assert_eq!(answer.get("data"), None, "{what}");
    }
    for authorization in ["Basic YWRhOmFkYQ==", "Bearer", "Bearer ", "nonsense"] {
        assert_eq!(call(authorization).await.status().as_u16(), 401, "{authorization}");
    }
    assert_eq!(system.count(system.orders_db(), "orders").await, 0);
    assert_eq!(
        call(&format!("Bearer {}", hs256(good))).await.status().as_u16(),
        200,
        "the tokens above are bad for one reason each"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_token_only_what_needs_no_user_is_answered() {
    let Some(system) = System::start().await else { return };
    let anonymous = system.anonymous();
    let input = json!({ "total": money("1", "EUR"), "description": "a book" });
    for (query, path) in [
        ("{ me { id } }", "me"),
        ("{ orders { nodes { id } } }", "orders"),
        ("{ node(id: \"user_YWRh\") { id } }", "node"),
        ("{ node(id: \"account_01h2xcejqtf2nbrexx3vqjhp41\") { id } }", "node"),
        ("{ order(id: \"order_01h2xcejqtf2nbrexx3vqjhp41\") { id } }", "order"),
        ("{ user(id: \"user_YWRh\") { id } }", "user"),
        ("{ orderEventsCursor }", "orderEventsCursor"),
        (CREATE_ORDER, "createOrder"),
        ("mutation { createAccount(input: { currencyCode: EUR }) { account { id } } }", "createAccount"),
        ("mutation { topUpAccount(input: { amount: { amount: \"1\", currencyCode: EUR } }) { account { id } } }", "topUpAccount"),
    ] {
        let variables = if query == CREATE_ORDER { json!({ "input": input }) } else { json!({}) };
        let answer = anonymous.run(query, variables).await.unwrap();
        assert_eq!((answer.code(), answer.errors.len()), (Some("UNAUTHENTICATED"), 1), "{query}: {answer:?}");
        assert_eq!(answer.errors[0]["path"], json!([path]));
    }
    let open = anonymous.run("{ __typename __schema { queryType { name } } }", json!({})).await.unwrap();
    assert!(open.errors.is_empty(), "{open:?}");
    assert_eq!(system.count(system.orders_db(), "orders").await, 0);
    assert_eq!(system.count(system.payments_db(), "accounts").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_connection_serves_many_users_without_mixing_them_up() {
    let Some(system) = System::start().await else { return };
    let users: Vec<_> = (0..8).map(|n| system.user(&format!("user-{n}"))).collect();
    for round in 1..=5_usize {
        let answers = futures_util::future::join_all(users.iter().map(|user| user.order("1"))).await;
        assert_eq!(answers.len(), users.len());
        for user in &users {
            let data = user.data("{ me { id } orders { nodes { id user { id } } } }", json!({})).await;
            let orders = data["orders"]["nodes"].as_array().unwrap();
            assert_eq!(orders.len(), round);
            assert!(orders.iter().all(|order| order["user"]["id"] == data["me"]["id"]), "{data}");
        }
    }
    assert!(!system.token("ada", &[], Duration::from_secs(1)).is_empty());
}

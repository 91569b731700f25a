//! Input that cannot be meant: each gets its own answer, and nothing of it is stored.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{
    System, User,
    user::{CREATE_ACCOUNT, CREATE_ORDER, TOP_UP, accepted, money},
};

/// Orders refused for what a caller could foresee: code and field.
async fn assert_refused(user: &User, input: Value, code: &str, field: Value) {
    let payload = user.create_order(input.clone()).await;
    assert_eq!(payload["order"], Value::Null, "{input}");
    assert_eq!(payload["userErrors"], json!([{ "code": code, "field": field }]), "{input}");
}

/// Operations that are answered with exactly one error of this code.
async fn assert_error(user: &User, document: &str, variables: Value, code: &str) {
    let answer = user.run(document, variables.clone()).await;
    assert_eq!((answer.code(), answer.errors.len()), (Some(code), 1), "{document} {variables}: {answer:?}");
}

/// Nothing but ada's account and its top-up is stored, and she can still order.
async fn assert_untouched(system: &System, ada: &User) {
    for table in ["orders", "order_events", "outbox_orders"] {
        assert_eq!(system.count(system.orders_db(), table).await, 0, "{table}");
    }
    for (table, rows) in [("accounts", 1), ("ledger_entries", 1), ("payments", 0)] {
        assert_eq!(system.count(system.payments_db(), table).await, rows, "{table}");
    }
    ada.paid(&ada.order("1").await).await;
    assert_eq!(ada.balance().await, "99.00");
    system.clean_audit().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn amounts_that_are_none_are_refused_with_their_reason() {
    let Some(system) = System::start().await else { return };
    let ada = system.user_with("ada", "100", "EUR").await;
    let order =
        |amount: Value, currency: Value| json!({ "total": { "amount": amount, "currencyCode": currency }, "description": "x" });
    let field = json!(["total", "amount"]);
    for (amount, currency, code) in [
        ("0", "EUR", "AMOUNT_NOT_POSITIVE"),
        ("0.00", "EUR", "AMOUNT_NOT_POSITIVE"),
        ("-1", "EUR", "AMOUNT_NOT_POSITIVE"),
        ("-0.01", "EUR", "AMOUNT_NOT_POSITIVE"),
        ("1.234", "EUR", "AMOUNT_TOO_PRECISE"),
        ("0.001", "EUR", "AMOUNT_TOO_PRECISE"),
        ("1.5", "JPY", "AMOUNT_TOO_PRECISE"),
        ("1.2345", "KWD", "AMOUNT_TOO_PRECISE"),
        ("1234567890123456789012345", "EUR", "AMOUNT_TOO_LARGE"),
        ("99999999999999999999999999999999999999999999999999", "EUR", "AMOUNT_TOO_LARGE"),
        ("10000000000000.01", "EUR", "AMOUNT_TOO_LARGE"),
    ] {
        assert_refused(&ada, order(json!(amount), json!(currency)), code, field.clone()).await;
        let payload = ada.data(TOP_UP, json!({ "input": { "amount": money(amount, currency) } })).await["topUpAccount"].take();
        assert_eq!(payload["userErrors"], json!([{ "code": code, "field": ["amount", "amount"] }]), "{amount}");
    }
    let long = "9".repeat(10_000);
    assert_refused(&ada, order(json!(long), json!("EUR")), "AMOUNT_TOO_LARGE", field).await;

    for amount in [json!(12.5), json!(12), json!(true), json!(null), json!([]), json!({})] {
        assert_error(&ada, CREATE_ORDER, json!({ "input": order(amount, json!("EUR")) }), "BAD_USER_INPUT").await;
    }
    for amount in ["", " 1", "1 ", "1e5", "+1", "1,5", ".5", "1.", "abc", "0x10", "NaN", "Infinity", "١٢", "--1", "1.2.3"] {
        assert_error(&ada, CREATE_ORDER, json!({ "input": order(json!(amount), json!("EUR")) }), "BAD_USER_INPUT").await;
        assert_error(&ada, TOP_UP, json!({ "input": { "amount": money(amount, "EUR") } }), "BAD_USER_INPUT").await;
    }
    for currency in [json!("ABC"), json!("eur"), json!("XAU"), json!(""), json!(978), json!(null)] {
        assert_error(&ada, CREATE_ORDER, json!({ "input": order(json!("1"), currency) }), "BAD_USER_INPUT").await;
    }
    assert_error(&ada, CREATE_ACCOUNT, json!({ "input": { "currencyCode": "ABC" } }), "BAD_USER_INPUT").await;
    let literal =
        |total: &str| format!("mutation {{ createOrder(input: {{ total: {total}, description: \"x\" }}) {{ order {{ id }} }} }}");
    assert_error(&ada, &literal("{ amount: 12.5, currencyCode: EUR }"), json!({}), "BAD_USER_INPUT").await;
    assert_error(&ada, &literal("{ amount: \"1\", currencyCode: ABC }"), json!({}), "GRAPHQL_VALIDATION_FAILED").await;
    assert_error(&ada, &literal("{ amount: \"1\" }"), json!({}), "GRAPHQL_VALIDATION_FAILED").await;
    assert_untouched(&system, &ada).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn descriptions_and_keys_that_are_none_are_refused_with_their_reason() {
    let Some(system) = System::start().await else { return };
    let ada = system.user_with("ada", "100", "EUR").await;
    let order = |description: &str| json!({ "total": money("1", "EUR"), "description": description });
    for blank in ["", " ", "\t\n ", "\u{a0}\u{2003}"] {
        assert_refused(&ada, order(blank), "DESCRIPTION_BLANK", json!(["description"])).await;
    }
    assert_refused(&ada, order(&"é".repeat(501)), "DESCRIPTION_TOO_LONG", json!(["description"])).await;
    assert_error(&ada, CREATE_ORDER, json!({ "input": order("a\0b") }), "BAD_USER_INPUT").await;
    for (name, value) in
        [("description", json!(5)), ("description", json!(null)), ("idempotencyKey", json!(5)), ("unknown", json!("x"))]
    {
        let mut input = order("x");
        input[name] = value;
        assert_error(&ada, CREATE_ORDER, json!({ "input": input }), "BAD_USER_INPUT").await;
    }
    for key in ["", " ", "a b", "\t", "k\0", &"x".repeat(256), "\u{7f}"] {
        let mut input = order("x");
        input["idempotencyKey"] = json!(key);
        assert_refused(&ada, input, "IDEMPOTENCY_KEY_INVALID", json!(["idempotencyKey"])).await;
        let top_up = json!({ "input": { "amount": money("1", "EUR"), "idempotencyKey": key } });
        let payload = ada.data(TOP_UP, top_up).await["topUpAccount"].take();
        assert_eq!(payload["userErrors"][0]["code"], "IDEMPOTENCY_KEY_INVALID", "{key:?}");
    }
    // Everything at once is told at once, so that a form can show it.
    let all = json!({ "total": money("0", "EUR"), "description": "", "idempotencyKey": "" });
    let errors = ada.create_order(all).await["userErrors"].take();
    assert_eq!(errors.as_array().unwrap().len(), 3, "{errors}");
    assert_untouched(&system, &ada).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_longest_and_strangest_of_what_is_allowed_is_kept_as_it_was() {
    let Some(system) = System::start().await else { return };
    let ada = system.user("ada");
    let key = "é".repeat(255);
    for description in
        ["\u{1F4DA}".repeat(500), "'; DROP TABLE orders; --".to_owned(), "line\nline \"quoted\" \\ \u{202e}".to_owned()]
    {
        let input = json!({ "total": money("10000000000000.00", "EUR"), "description": description });
        let payload = ada.create_order(input).await;
        accepted(&payload);
        assert_eq!(payload["order"]["description"], description.as_str());
        assert_eq!(payload["order"]["total"], money("10000000000000.00", "EUR"));
    }
    let input = json!({ "total": money("007.5", "EUR"), "description": "x", "idempotencyKey": key });
    let first = ada.create_order(input.clone()).await;
    assert_eq!(first["order"]["total"]["amount"], "7.50");
    assert_eq!(accepted(&ada.create_order(input).await), accepted(&first));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_that_are_none_are_refused() {
    let Some(system) = System::start().await else { return };
    let ada = system.user_with("ada", "100", "EUR").await;
    let entry_cursor = ada.data("{ me { account { entries { pageInfo { endCursor } } } } }", json!({})).await
        ["me"]["account"]["entries"]["pageInfo"]["endCursor"]
        .take();
    let events_cursor = ada.data("{ orderEventsCursor }", json!({})).await["orderEventsCursor"].take();
    let lists = [
        "query($first: Int, $after: String, $last: Int, $before: String) { orders(first: $first, after: $after, last: $last, before: $before) { nodes { id } } }",
        "query($first: Int, $after: String, $last: Int, $before: String) { me { orders(first: $first, after: $after, last: $last, before: $before) { nodes { id } } } }",
        "query($first: Int, $after: String, $last: Int, $before: String) { me { account { entries(first: $first, after: $after, last: $last, before: $before) { nodes { id } } } } }",
    ];
    for list in lists {
        for page in [
            json!({ "first": 1, "last": 1 }),
            json!({ "first": 101 }),
            json!({ "last": 101 }),
            json!({ "first": -1 }),
            json!({ "last": -1 }),
            json!({ "first": 2_147_483_648_i64 }),
            json!({ "first": 1.5 }),
            json!({ "first": "1" }),
            json!({ "after": "nonsense" }),
            json!({ "after": "" }),
            json!({ "before": "é" }),
            json!({ "after": events_cursor }),
        ] {
            assert_error(&ada, list, page, "BAD_USER_INPUT").await;
        }
    }
    for list in &lists[..2] {
        assert_error(&ada, list, json!({ "after": entry_cursor }), "BAD_USER_INPUT").await;
    }
    let filtered = "query($filter: OrderFilter) { orders(filter: $filter) { nodes { id } } }";
    for filter in [
        json!({ "status": ["SHIPPED"] }),
        json!({ "status": [null] }),
        json!({ "createdAfter": "yesterday" }),
        json!({ "createdBefore": "2026-02-30T00:00:00Z" }),
        json!({ "createdBefore": 1_700_000_000 }),
        json!({ "unknown": 1 }),
    ] {
        assert_error(&ada, filtered, json!({ "filter": filter }), "BAD_USER_INPUT").await;
    }
    assert_untouched(&system, &ada).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_argument_that_cannot_be_read_is_an_error_of_its_own_field() {
    let Some(system) = System::start().await else { return };
    let ada = system.user_with("ada", "100", "EUR").await;
    let bad = "orders(filter: { createdAfter: \"yesterday\" }) { nodes { id } }";
    for (document, path) in [
        (format!("{{ me {{ id {bad} }} }}"), json!(["me", "orders"])),
        (format!("{{ gone: order(id: \"order_unknown\") {{ id }} me {{ id mine: {bad} }} }}"), json!(["me", "mine"])),
        (format!("{{ me {{ id }} {bad} }}"), json!(["orders"])),
    ] {
        let answer = ada.run(&document, json!({})).await;
        let told: Vec<_> = answer.errors.iter().map(|error| (&error["extensions"]["code"], &error["path"])).collect();
        assert_eq!(told, [(&json!("BAD_USER_INPUT"), &path)], "{document}: {answer:?}");
    }
    let top_ups = "mutation($amount: Decimal!) {
        a: topUpAccount(input: { amount: { amount: $amount, currencyCode: EUR } }) { account { id } }
        b: topUpAccount(input: { amount: { amount: \"1\", currencyCode: EUR } }) { account { id } }
        c: topUpAccount(input: { amount: { amount: $amount, currencyCode: EUR } }) { account { id } } }";
    let answer = ada.run(top_ups, json!({ "amount": "much" })).await;
    let paths: Vec<_> = answer.errors.iter().map(|error| &error["path"]).collect();
    assert_eq!(paths, [&json!(["a"]), &json!(["c"])], "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_in_lists_in_lists_are_refused_before_they_are_read() {
    let Some(system) = System::start().await else { return };
    let ada = system.user_with("ada", "100", "EUR").await;
    for _ in 0..10 {
        ada.order("1").await;
    }
    let page = "orders(first: 100) { nodes { user { orders(first: 100) { nodes { id } } } } }";
    let answer = ada.run(&format!("{{ {page} }}"), json!({})).await;
    assert!(answer.errors.is_empty(), "a page of pages is what people ask for: {answer:?}");
    let deeper =
        "orders(first: 100) { nodes { user { orders(first: 100) { nodes { user { orders(first: 100) { nodes { id } } } } } } } }";
    let answer = ada.run(&format!("{{ {deeper} }}"), json!({})).await;
    assert_eq!(answer.code(), Some("LIMIT_EXCEEDED"), "{answer:?}");
    // Each status counts once, however often it is named.
    let filtered = "query($status: [OrderStatus!]) { orders(filter: { status: $status }) { nodes { id } } }";
    let answer = ada.run(filtered, json!({ "status": vec!["PAID"; 70_000] })).await;
    assert!(answer.errors.is_empty(), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_that_are_none_or_too_much_are_refused() {
    let Some(system) = System::start().await else { return };
    let ada = system.user_with("ada", "100", "EUR").await;
    let deep = "orders { nodes { user { ".repeat(20) + "id" + &" } } }".repeat(20);
    let doubling: String = (0..30).map(|n| format!("fragment f{n} on User {{ ...f{m} ...f{m} }} ", m = n + 1)).collect();
    for (document, code) in [
        ("{ nothing }".to_owned(), "GRAPHQL_VALIDATION_FAILED"),
        ("{ me { nothing } }".to_owned(), "GRAPHQL_VALIDATION_FAILED"),
        ("{ me }".to_owned(), "GRAPHQL_VALIDATION_FAILED"),
        ("query($id: ID) { order(id: $id) { id } }".to_owned(), "GRAPHQL_VALIDATION_FAILED"),
        ("{ _entities(representations: []) { __typename } }".to_owned(), "GRAPHQL_VALIDATION_FAILED"),
        ("{ _service { sdl } }".to_owned(), "GRAPHQL_VALIDATION_FAILED"),
        (format!("{{ me {{ {deep} }} }}"), "LIMIT_EXCEEDED"),
        (format!("{{ {} }}", (0..200).map(|n| format!("a{n}: me {{ id }} ")).collect::<String>()), "LIMIT_EXCEEDED"),
        (format!("{{ me {{ {} }} }}", (0..200).map(|n| format!("a{n}: id ")).collect::<String>()), "LIMIT_EXCEEDED"),
        (format!("{{ me {{ ...f0 }} }} {doubling} fragment f30 on User {{ id }}"), "LIMIT_EXCEEDED"),
        ("{a".repeat(20_000), "LIMIT_EXCEEDED"),
        (format!("{{ me {{ id }} }} # {}", "x".repeat(70_000)), "LIMIT_EXCEEDED"),
        ("{ me {".to_owned(), "GRAPHQL_PARSE_FAILED"),
        (String::new(), "GRAPHQL_PARSE_FAILED"),
    ] {
        let answer = ada.run(&document, json!({})).await;
        assert_eq!((answer.code(), &answer.data), (Some(code), &Value::Null), "{document}");
        // A document may have several mistakes.
        assert!(answer.errors.iter().all(|error| error["extensions"]["code"] == code), "{answer:?}");
    }
    // An alias bomb of mutations changes nothing either.
    let bomb: String = (0..50)
        .map(|n| format!("a{n}: createOrder(input: {{ total: {{ amount: \"1\", currencyCode: EUR }}, description: \"x\" }}) {{ order {{ id }} }} "))
        .collect();
    assert_error(&ada, &format!("mutation {{ {bomb} }}"), json!({}), "LIMIT_EXCEEDED").await;
    assert_untouched(&system, &ada).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_that_is_no_graphql_is_refused_with_its_status() {
    let Some(system) = System::start().await else { return };
    let ada = system.user_with("ada", "100", "EUR").await;
    let http = reqwest::Client::new();
    let send = async |method: Method, query: &[(&str, &str)], content_type: &str, body: String| {
        let url = reqwest::Url::parse_with_params(&system.url(), query).unwrap();
        let request = http.request(method, url).bearer_auth(&ada.token).header("content-type", content_type).body(body);
        let response = request.send().await.unwrap();
        let (status, text) = (response.status(), response.text().await.unwrap());
        let answer: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
        (status, answer["errors"][0]["extensions"]["code"].as_str().map(str::to_owned))
    };
    let code = |code: &str| Some(code.to_owned());
    let json_type = "application/json";
    for body in [
        "",
        "{",
        "{\"query\":",
        "no JSON",
        "[]",
        "{}",
        "42",
        "null",
        "{\"query\": 5}",
        "{\"query\": \"{ me { id } }\", \"variables\": 5}",
    ] {
        let refused = send(Method::POST, &[], json_type, body.to_owned()).await;
        assert_eq!(refused, (StatusCode::BAD_REQUEST, code("BAD_USER_INPUT")), "{body}");
    }
    let huge = json!({ "query": "{ me { id } }", "variables": { "x": "x".repeat(2 * 1024 * 1024) } }).to_string();
    let refused = send(Method::POST, &[], json_type, huge).await;
    assert_eq!(refused, (StatusCode::PAYLOAD_TOO_LARGE, code("LIMIT_EXCEEDED")));
    // What a form of another site could send does not get through.
    let mutation =
        "mutation { createOrder(input: { total: { amount: \"1\", currencyCode: EUR }, description: \"x\" }) { order { id } } }";
    for content_type in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
        let (status, _) = send(Method::POST, &[], content_type, json!({ "query": mutation }).to_string()).await;
        assert_eq!(status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{content_type}");
    }
    let (status, _) = send(Method::GET, &[("query", mutation)], json_type, String::new()).await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED, "GET changes nothing");
    let (status, _) = send(Method::GET, &[("query", "{ me { id } }")], json_type, String::new()).await;
    assert_eq!(status, StatusCode::OK);
    for method in [Method::PUT, Method::DELETE, Method::PATCH] {
        let (status, _) = send(method.clone(), &[], json_type, json!({ "query": mutation }).to_string()).await;
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED, "{method}");
    }
    assert_untouched(&system, &ada).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_that_cannot_be_is_refused() {
    let Some(system) = System::start().await else { return };
    let ada = system.user_with("ada", "100", "EUR").await;
    let account = async |user: &User| {
        user.data(CREATE_ACCOUNT, json!({ "input": { "currencyCode": "EUR" } })).await["createAccount"].take()
    };
    assert_eq!(account(&ada).await["userErrors"], json!([{ "code": "ACCOUNT_ALREADY_EXISTS", "field": null }]));
    let top_up = async |user: &User, amount: Value| {
        user.data(TOP_UP, json!({ "input": { "amount": amount } })).await["topUpAccount"].take()
    };
    let foreign = top_up(&ada, money("1", "USD")).await;
    assert_eq!(foreign["userErrors"], json!([{ "code": "CURRENCY_MISMATCH", "field": ["amount", "currencyCode"] }]));
    let none = top_up(&system.user("bob"), money("1", "EUR")).await;
    assert_eq!(none["userErrors"], json!([{ "code": "ACCOUNT_NOT_FOUND", "field": null }]));
    assert_untouched(&system, &ada).await;
}

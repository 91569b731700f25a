//! The subgraph: what it shows to whom, and how it refuses.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use async_graphql::{Request, Response, Variables};
use common::{account, account_with, settle, task, user};
use database::{Database, testing::on_both};
use migrations::PaymentsMigrator;
use payment_service::graphql::schema;
use serde_json::{Value, json};

/// How a request comes in: without a token, as somebody, or as an operator.
#[derive(Clone, Copy)]
enum Caller {
    Nobody,
    User(&'static str),
    Admin,
}
use Caller::{Admin, Nobody, User};

async fn ask(db: &Database, caller: Caller, query: &str, variables: Value) -> Response {
    let request = Request::new(query).variables(Variables::from_json(variables));
    let request = match caller {
        Nobody => request,
        User(name) => request.data(common::identity(name, &[])),
        Admin => request.data(common::identity("root", &["admin"])),
    };
    schema(db.clone()).execute(request).await
}

async fn data(db: &Database, caller: Caller, query: &str, variables: Value) -> Value {
    let response = ask(db, caller, query, variables).await;
    assert!(response.errors.is_empty(), "{:?}", response.errors);
    response.data.into_json().unwrap()
}

fn codes(response: &Response) -> Vec<String> {
    let code = |error: &async_graphql::ServerError| {
        let extensions = error.extensions.clone().unwrap();
        extensions.get("code").cloned().unwrap().into_json().unwrap().as_str().unwrap().to_owned()
    };
    response.errors.iter().map(code).collect()
}

const ENTITIES: &str = "query ($of: [_Any!]!) { _entities(representations: $of) {
    __typename
    ... on User { id account { id balance { amount currencyCode } } }
    ... on Order { id payment { id outcome amount { amount } rejectionReason entry { id amount { amount } } } }
    ... on Account { id owner { id } }
    ... on LedgerEntry { id kind amount { amount } balanceAfter { amount } order { id } }
    ... on Payment { id order { id } outcome }
} }";

fn representation(type_name: &str, id: &str) -> Value {
    json!({ "__typename": type_name, "id": id })
}

on_both!(PaymentsMigrator;
    async fn entities_are_shown_to_their_owner_and_to_operators_only(db: &TestDatabase) {
        let ada = account_with(db, "ada", 1_250).await;
        let paid = task("ada", 200);
        let refused = task("ada", 5_000);
        settle(db, &[paid.clone(), refused.clone()]).await.unwrap();
        let debit = common::entries(db).await.pop().unwrap();
        let payment = schema::PaymentId::from(paid.payment.order_id);
        let of = json!({ "of": [
            representation("User", &user("ada").to_public()),
            representation("Order", &paid.payment.order_id.to_string()),
            representation("Order", &refused.payment.order_id.to_string()),
            representation("Account", &ada.id.to_string()),
            representation("LedgerEntry", &debit.id.to_string()),
            representation("Payment", &payment.to_string()),
        ] });
        let expected = json!({ "_entities": [
            { "__typename": "User", "id": user("ada").to_public(), "account": {
                "id": ada.id.to_string(), "balance": { "amount": "10.50", "currencyCode": "EUR" } } },
            { "__typename": "Order", "id": paid.payment.order_id.to_string(), "payment": {
                "id": payment.to_string(), "outcome": "PAID", "amount": { "amount": "2.00" }, "rejectionReason": null,
                "entry": { "id": debit.id.to_string(), "amount": { "amount": "-2.00" } } } },
            { "__typename": "Order", "id": refused.payment.order_id.to_string(), "payment": {
                "id": schema::PaymentId::from(refused.payment.order_id).to_string(), "outcome": "REJECTED",
                "amount": { "amount": "50.00" }, "rejectionReason": "INSUFFICIENT_FUNDS", "entry": null } },
            { "__typename": "Account", "id": ada.id.to_string(), "owner": { "id": user("ada").to_public() } },
            { "__typename": "LedgerEntry", "id": debit.id.to_string(), "kind": "DEBIT", "amount": { "amount": "-2.00" },
                "balanceAfter": { "amount": "10.50" }, "order": { "id": paid.payment.order_id.to_string() } },
            { "__typename": "Payment", "id": payment.to_string(), "order": { "id": paid.payment.order_id.to_string() },
                "outcome": "PAID" },
        ] });
        assert_eq!(data(db, User("ada"), ENTITIES, of.clone()).await, expected);
        assert_eq!(data(db, Admin, ENTITIES, of.clone()).await, expected);

        let foreign = data(db, User("bob"), ENTITIES, of).await;
        assert_eq!(foreign, json!({ "_entities": [
            { "__typename": "User", "id": user("ada").to_public(), "account": null },
            { "__typename": "Order", "id": paid.payment.order_id.to_string(), "payment": null },
            { "__typename": "Order", "id": refused.payment.order_id.to_string(), "payment": null },
            null, null, null,
        ] }), "somebody else's looks like what does not exist");
    }

    async fn one_unknown_or_malformed_key_does_not_hide_the_other_entities(db: &TestDatabase) {
        let ada = account_with(db, "ada", 100).await;
        let of = json!({ "of": [
            representation("Account", "account_00000000000000000000000000"),
            representation("Account", "nonsense"),
            representation("Payment", &ada.id.to_string()),
            representation("User", "user_*"),
            representation("Order", ""),
            representation("Account", &ada.id.to_string()),
        ] });
        let found = data(db, User("ada"), ENTITIES, of).await;
        let list = found["_entities"].as_array().unwrap();
        assert_eq!(list.len(), 6);
        assert!(list[..5].iter().all(Value::is_null), "{found}");
        assert_eq!(list[5]["id"], json!(ada.id.to_string()));
    }

    async fn a_request_without_a_token_is_told_so_and_shown_nothing(db: &TestDatabase) {
        let ada = account_with(db, "ada", 100).await;
        let of = json!({ "of": [
            representation("User", &user("ada").to_public()),
            representation("Account", &ada.id.to_string()),
        ] });
        let response = ask(db, Nobody, ENTITIES, of).await;
        assert_eq!(codes(&response), ["UNAUTHENTICATED", "UNAUTHENTICATED"]);
        let shown = response.data.into_json().unwrap();
        assert_eq!(shown["_entities"][0]["account"], Value::Null);
        assert_eq!(shown["_entities"][1], Value::Null);

        let mutations = "mutation { a: createAccount(input: { currencyCode: EUR }) { userErrors { code } }
            b: topUpAccount(input: { amount: { amount: \"1\", currencyCode: EUR } }) { userErrors { code } } }";
        let response = ask(db, Nobody, mutations, json!({})).await;
        assert_eq!(codes(&response), ["UNAUTHENTICATED", "UNAUTHENTICATED"]);
        assert_eq!(response.data.into_json().unwrap(), json!({ "a": null, "b": null }));
    }

    async fn pages_meet_without_gap_or_repeat_in_both_directions(db: &TestDatabase) {
        account_with(db, "ada", 10_000).await;
        settle(db, &(0..6).map(|_| task("ada", 1)).collect::<Vec<_>>()).await.unwrap();
        let query = "query ($of: [_Any!]!, $first: Int, $after: String, $last: Int, $before: String) {
            _entities(representations: $of) { ... on User { account {
                entries(first: $first, after: $after, last: $last, before: $before) {
                    nodes { balanceAfter { amount } } edges { cursor node { id } }
                    pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } } } } }";
        let page = async |arguments: Value| {
            let mut variables = json!({ "of": [representation("User", &user("ada").to_public())] });
            variables.as_object_mut().unwrap().extend(arguments.as_object().unwrap().clone());
            data(db, User("ada"), query, variables).await["_entities"][0]["account"]["entries"].take()
        };
        let balances = |page: &Value| -> Vec<String> {
            let nodes = page["nodes"].as_array().unwrap();
            nodes.iter().map(|node| node["balanceAfter"]["amount"].as_str().unwrap().to_owned()).collect()
        };
        let all = ["99.94", "99.95", "99.96", "99.97", "99.98", "99.99", "100.00"];

        // Explicit nulls are the same as nothing.
        let everything = page(json!({ "first": null, "after": null, "last": null, "before": null })).await;
        assert_eq!(balances(&everything), all);
        assert_eq!(everything["pageInfo"]["hasNextPage"], json!(false));
        assert_eq!(everything["pageInfo"]["startCursor"], everything["edges"][0]["cursor"]);

        let mut forward = Vec::new();
        let mut after = Value::Null;
        loop {
            let page = page(json!({ "first": 3, "after": after })).await;
            forward.extend(balances(&page));
            after = page["pageInfo"]["endCursor"].clone();
            if page["pageInfo"]["hasNextPage"] == json!(false) {
                break;
            }
        }
        assert_eq!(forward, all);

        let mut backward: Vec<String> = Vec::new();
        let mut before = Value::Null;
        loop {
            let page = page(json!({ "last": 3, "before": before })).await;
            backward.splice(0..0, balances(&page));
            before = page["pageInfo"]["startCursor"].clone();
            if page["pageInfo"]["hasPreviousPage"] == json!(false) {
                break;
            }
        }
        assert_eq!(backward, all);
        assert_eq!(balances(&page(json!({ "first": 0 })).await), Vec::<String>::new());
    }

    async fn a_page_that_cannot_be_meant_is_bad_user_input(db: &TestDatabase) {
        account_with(db, "ada", 100).await;
        for arguments in ["first: 101", "first: -1", "first: 1, last: 1", "after: \"nonsense\"", "before: \"b3JkZXJzOjE\""] {
            let query = format!(
                "query ($of: [_Any!]!) {{ _entities(representations: $of) {{ ... on User {{
                     account {{ entries({arguments}) {{ nodes {{ id }} }} }} }} }} }}"
            );
            let of = json!({ "of": [representation("User", &user("ada").to_public())] });
            let response = ask(db, User("ada"), &query, of).await;
            assert_eq!(codes(&response), ["BAD_USER_INPUT"], "{arguments}");
            assert_eq!(response.data.into_json().unwrap(), json!({ "_entities": [{ "account": null }] }), "{arguments}");
        }
    }

    async fn refusals_are_typed_values_that_name_the_field(db: &TestDatabase) {
        let refused = async |caller: Caller, mutation: &str, input: &str| {
            let query = format!("mutation {{ x: {mutation}(input: {input}) {{ account {{ id }} userErrors {{ code field }} }} }}");
            let payload = data(db, caller, &query, json!({})).await["x"].take();
            assert_eq!(payload["account"], Value::Null, "{input}");
            payload["userErrors"].clone()
        };
        let error = |code: &str, field: Value| json!([{ "code": code, "field": field }]);
        let long = format!("{{ currencyCode: EUR, idempotencyKey: \"{}\" }}", "k".repeat(256));
        for input in [r#"{ currencyCode: EUR, idempotencyKey: "" }"#, r#"{ currencyCode: EUR, idempotencyKey: "a b" }"#, &long] {
            let expected = error("IDEMPOTENCY_KEY_INVALID", json!(["idempotencyKey"]));
            assert_eq!(refused(User("ada"), "createAccount", input).await, expected);
        }
        let top_up = |amount: &str, currency: &str| {
            format!("{{ amount: {{ amount: \"{amount}\", currencyCode: {currency} }} }}")
        };
        let amount = json!(["amount", "amount"]);
        assert_eq!(
            refused(User("ada"), "topUpAccount", &top_up("1", "EUR")).await,
            error("ACCOUNT_NOT_FOUND", Value::Null)
        );
        account_with(db, "ada", 100).await;
        assert_eq!(
            refused(User("ada"), "createAccount", "{ currencyCode: USD }").await,
            error("ACCOUNT_ALREADY_EXISTS", Value::Null)
        );
        for (text, code) in [
            ("0", "AMOUNT_NOT_POSITIVE"),
            ("-5", "AMOUNT_NOT_POSITIVE"),
            ("0.001", "AMOUNT_TOO_PRECISE"),
            ("12345678901234567890123456789012345678901234567890", "AMOUNT_TOO_LARGE"),
        ] {
            assert_eq!(refused(User("ada"), "topUpAccount", &top_up(text, "EUR")).await, error(code, amount.clone()));
        }
        assert_eq!(
            refused(User("ada"), "topUpAccount", &top_up("1", "USD")).await,
            error("CURRENCY_MISMATCH", json!(["amount", "currencyCode"]))
        );
        assert_eq!(
            refused(User("ada"), "topUpAccount", r#"{ amount: { amount: "0", currencyCode: EUR }, idempotencyKey: "" }"#).await,
            json!([
                { "code": "AMOUNT_NOT_POSITIVE", "field": amount },
                { "code": "IDEMPOTENCY_KEY_INVALID", "field": ["idempotencyKey"] },
            ])
        );
        assert_eq!(account(db, "ada").await.balance_minor, 100);
    }

    async fn what_is_no_decimal_never_reaches_the_account(db: &TestDatabase) {
        account_with(db, "ada", 100).await;
        for amount in ["12.5", "\"1e3\"", "\"\"", "\"1,5\"", "null"] {
            let query = format!(
                "mutation {{ topUpAccount(input: {{ amount: {{ amount: {amount}, currencyCode: EUR }} }}) {{ account {{ id }} }} }}"
            );
            assert!(!ask(db, User("ada"), &query, json!({})).await.errors.is_empty(), "{amount}");
        }
        assert_eq!(account(db, "ada").await.balance_minor, 100);
    }

    async fn a_repeated_mutation_shows_the_same_entry_and_the_account_as_it_is_now(db: &TestDatabase) {
        let create = "mutation { createAccount(input: { currencyCode: EUR, idempotencyKey: \"k\" }) {
            account { id balance { amount } } userErrors { code } } }";
        let first = data(db, User("ada"), create, json!({})).await;
        let top_up = |amount: &str| {
            format!(
                "mutation {{ topUpAccount(input: {{ amount: {{ amount: \"{amount}\", currencyCode: EUR }}, idempotencyKey: \"k\" }}) {{
                     account {{ balance {{ amount }} }} entry {{ id kind amount {{ amount }} }} userErrors {{ code }} }} }}"
            )
        };
        let added = data(db, User("ada"), &top_up("12.5"), json!({})).await;
        assert_eq!(added["topUpAccount"]["account"]["balance"]["amount"], json!("12.50"));
        assert_eq!(added["topUpAccount"]["entry"]["kind"], json!("TOP_UP"));
        // The same amount written otherwise is the same request.
        assert_eq!(data(db, User("ada"), &top_up("12.50"), json!({})).await, added);
        let reused = data(db, User("ada"), &top_up("12.51"), json!({})).await;
        assert_eq!(reused["topUpAccount"]["userErrors"], json!([{ "code": "IDEMPOTENCY_KEY_REUSED" }]));
        assert_eq!(reused["topUpAccount"]["entry"], Value::Null);

        let again = data(db, User("ada"), create, json!({})).await;
        assert_eq!(again["createAccount"]["account"]["id"], first["createAccount"]["account"]["id"]);
        assert_eq!(again["createAccount"]["account"]["balance"]["amount"], json!("12.50"));
        // Keys are per user.
        let other = data(db, User("bob"), create, json!({})).await;
        assert_ne!(other["createAccount"]["account"]["id"], first["createAccount"]["account"]["id"]);
    }

    async fn a_database_that_is_away_is_reported_as_retriable_and_without_details(db: &TestDatabase) {
        let ada = account_with(db, "ada", 100).await;
        Database::clone(db).close().await;
        let of = json!({ "of": [
            representation("User", &user("ada").to_public()),
            representation("Account", &ada.id.to_string()),
        ] });
        let response = ask(db, User("ada"), ENTITIES, of).await;
        assert_eq!(codes(&response), ["SERVICE_UNAVAILABLE", "SERVICE_UNAVAILABLE"]);
        assert!(response.errors.iter().all(|error| error.message == "temporarily unavailable, please try again"));
        let shown = response.data.into_json().unwrap();
        assert_eq!(shown["_entities"][0]["account"], Value::Null, "the rest of the list is still there");
        let create = "mutation { createAccount(input: { currencyCode: EUR }) { account { id } } }";
        let response = ask(db, User("ada"), create, json!({})).await;
        assert_eq!(codes(&response), ["SERVICE_UNAVAILABLE"]);
    }
);

#[test]
fn the_subgraph_has_no_query_field_of_its_own_and_describes_everything() {
    let sdl = payment_service::graphql::sdl();
    assert!(!sdl.contains("type Query"));
    for found in
        ["type User implements Node @key(fields: \"id\")", "type Order implements Node @key(fields: \"id\")", "@specifiedBy("]
    {
        assert!(sdl.contains(found), "{found}");
    }
    assert_eq!(sdl, payment_service::graphql::sdl(), "the same text every time");
}

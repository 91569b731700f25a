//! Lists: whole, in order, from both ends, and only one's own.

use serde_json::{Value, json};

use crate::support::{System, User, user::text};

const ORDERS: &str = "query($first: Int, $after: String, $last: Int, $before: String, $filter: OrderFilter) {
    list: orders(first: $first, after: $after, last: $last, before: $before, filter: $filter) {
        edges { cursor node { id } } nodes { id } pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } }";
const ENTRIES: &str = "query($first: Int, $after: String, $last: Int, $before: String) {
    me { account { list: entries(first: $first, after: $after, last: $last, before: $before) {
        edges { cursor node { id } } nodes { id } pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } } } }";

/// One page of a list, checked for what holds of every page.
struct Page {
    ids: Vec<String>,
    start: Option<String>,
    end: Option<String>,
    next: bool,
    previous: bool,
}

async fn page(user: &User, query: &str, variables: Value) -> Page {
    let data = user.data(query, variables).await;
    let list = if data.get("list").is_some() { &data["list"] } else { &data["me"]["account"]["list"] };
    let ids: Vec<String> = list["nodes"].as_array().unwrap().iter().map(|node| text(&node["id"])).collect();
    let edges = list["edges"].as_array().unwrap();
    assert_eq!(edges.iter().map(|edge| text(&edge["node"]["id"])).collect::<Vec<_>>(), ids);
    let info = &list["pageInfo"];
    let cursor = |name: &str| info[name].as_str().map(str::to_owned);
    assert_eq!(cursor("startCursor").as_deref(), edges.first().map(|edge| edge["cursor"].as_str().unwrap()));
    assert_eq!(cursor("endCursor").as_deref(), edges.last().map(|edge| edge["cursor"].as_str().unwrap()));
    let flag = |name: &str| info[name].as_bool().unwrap();
    Page {
        ids,
        start: cursor("startCursor"),
        end: cursor("endCursor"),
        next: flag("hasNextPage"),
        previous: flag("hasPreviousPage"),
    }
}

/// Walks a list of these ids from both ends, by pages of 10.
async fn assert_walks(user: &User, query: &str, newest_first: &[String]) {
    let (mut forward, mut after) = (Vec::new(), None::<String>);
    loop {
        let page = page(user, query, json!({ "first": 10, "after": after })).await;
        assert_eq!(page.previous, after.is_some());
        forward.extend(page.ids);
        after = page.end;
        if !page.next {
            break;
        }
    }
    assert_eq!(forward, newest_first);
    let (mut backward, mut before) = (Vec::new(), None::<String>);
    loop {
        let page = page(user, query, json!({ "last": 10, "before": before })).await;
        assert_eq!(page.next, before.is_some());
        backward = [page.ids, backward].concat();
        before = page.start;
        if !page.previous {
            break;
        }
    }
    assert_eq!(backward, newest_first, "a page is in list order from whichever end it is read");
}

/// Users with 25 orders of ada's among five of bob's, and some paid, some rejected.
async fn orders(system: &System) -> (User, User, Vec<String>, Vec<String>) {
    let ada = system.user_with("ada", "15", "EUR").await;
    let bob = system.user("bob");
    let (mut adas, mut bobs) = (Vec::new(), Vec::new());
    for n in 0..25 {
        adas.insert(0, ada.order("1").await);
        if n % 5 == 0 {
            bobs.insert(0, bob.order("1").await);
        }
    }
    for order in &adas {
        ada.decided(order).await;
    }
    (ada, bob, adas, bobs)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_order_is_met_once_from_both_ends_and_new_ones_do_not_shift_the_pages() {
    let Some(system) = System::start().await else { return };
    let (ada, bob, adas, bobs) = orders(&system).await;
    assert_walks(&ada, ORDERS, &adas).await;
    assert_walks(&bob, ORDERS, &bobs).await;
    assert_eq!(page(&ada, ORDERS, json!({})).await.ids, adas[..20], "20 unless said otherwise");
    let first = page(&ada, ORDERS, json!({ "first": 10 })).await;
    let newest = ada.order("1").await;
    assert_eq!(page(&ada, ORDERS, json!({ "first": 10, "after": first.end })).await.ids, adas[10..20]);
    assert_eq!(page(&ada, ORDERS, json!({ "last": 10, "before": first.start })).await.ids, [newest], "what came since");
    let nothing = page(&ada, ORDERS, json!({ "first": 0 })).await;
    assert!(nothing.ids.is_empty() && nothing.next && nothing.start.is_none());
    assert_eq!(page(&ada, ORDERS, json!({ "first": 100 })).await.ids.len(), 26);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_entry_is_met_once_from_both_ends() {
    let Some(system) = System::start().await else { return };
    let ada = system.user("ada");
    ada.create_account("EUR").await;
    assert!(page(&ada, ENTRIES, json!({})).await.ids.is_empty());
    let mut entries = Vec::new();
    for _ in 0..25 {
        entries.insert(0, ada.top_up("1", "EUR").await);
    }
    assert_walks(&ada, ENTRIES, &entries).await;
    assert_eq!(page(&ada, ENTRIES, json!({ "last": 3 })).await.ids, entries[22..]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filters_are_exact_to_the_millisecond_and_an_empty_status_list_matches_nothing() {
    let Some(system) = System::start().await else { return };
    let (ada, _, adas, _) = orders(&system).await;
    let filtered = async |filter: Value| page(&ada, ORDERS, json!({ "first": 100, "filter": filter })).await.ids;
    let paid = filtered(json!({ "status": ["PAID"] })).await;
    let rejected = filtered(json!({ "status": ["REJECTED"] })).await;
    assert_eq!((paid.as_slice(), rejected.as_slice()), (&adas[10..], &adas[..10]), "money for 15");
    assert_eq!(filtered(json!({ "status": ["PAID", "REJECTED"] })).await, adas);
    assert!(filtered(json!({ "status": ["PENDING"] })).await.is_empty());
    assert!(filtered(json!({ "status": [] })).await.is_empty());
    assert_eq!(filtered(json!({ "status": null })).await, adas);

    let data = ada.data("{ orders(first: 100) { nodes { id createdAt } } }", json!({})).await;
    let times: Vec<String> = data["orders"]["nodes"].as_array().unwrap().iter().map(|node| text(&node["createdAt"])).collect();
    // Times sort as text, and several orders may share one.
    let expected = |keep: &dyn Fn(&str) -> bool| -> Vec<String> {
        adas.iter().zip(&times).filter(|(_, at)| keep(at)).map(|(id, _)| id.clone()).collect()
    };
    let (late, early) = (&times[5], &times[20]);
    assert_eq!(filtered(json!({ "createdAfter": early })).await, expected(&|at| at >= early.as_str()));
    assert_eq!(filtered(json!({ "createdBefore": late })).await, expected(&|at| at <= late.as_str()));
    let between = json!({ "createdAfter": early, "createdBefore": late, "status": ["PAID"] });
    let paid_between: Vec<String> =
        expected(&|at| (early.as_str()..=late).contains(&at)).into_iter().filter(|id| paid.contains(id)).collect();
    assert_eq!(filtered(between).await, paid_between);
    assert!(filtered(json!({ "createdAfter": late, "createdBefore": early })).await.is_empty());
    assert_eq!(filtered(json!({ "createdAfter": early.replace('Z', "+00:00") })).await, expected(&|at| at >= early.as_str()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_see_everyone_and_everyone_else_themselves() {
    let Some(system) = System::start().await else { return };
    let (ada, bob, adas, bobs) = orders(&system).await;
    let admin = system.admin();
    let all = page(&admin, ORDERS, json!({ "first": 100 })).await.ids;
    assert_eq!(all.len(), adas.len() + bobs.len());
    assert!(all.iter().all(|id| adas.contains(id) || bobs.contains(id)));
    let one = admin
        .data("query($id: ID!) { order(id: $id) { user { id account { balance { amount } } } } }", json!({ "id": adas[0] }))
        .await;
    assert_eq!(one["order"]["user"], json!({ "id": "user_YWRh", "account": { "balance": { "amount": "0.00" } } }));

    let user = "query($id: ID!) { user(id: $id) { id account { balance { amount } } orders(first: 100) { nodes { id } } } }";
    let of_ada = ada.data(user, json!({ "id": "user_YWRh" })).await;
    assert_eq!(of_ada["user"]["orders"]["nodes"].as_array().unwrap().len(), 25);
    assert_eq!(admin.data(user, json!({ "id": "user_YWRh" })).await, of_ada);
    for id in ["user_YWRh", "user_bm9ib2R5", "nonsense", ""] {
        let answer = bob.run(user, json!({ "id": id })).await;
        assert_eq!((answer.code(), &answer.data["user"]), (Some("FORBIDDEN"), &Value::Null), "{id}");
    }
    let nobody = admin.data(user, json!({ "id": "user_bm9ib2R5" })).await;
    assert_eq!(nobody["user"], json!({ "id": "user_bm9ib2R5", "account": null, "orders": { "nodes": [] } }));
    assert_eq!(admin.data(user, json!({ "id": "nonsense" })).await["user"], Value::Null);
    // Whoever has another scope, or one that looks like it, is no operator.
    for scope in ["administrator", "ADMIN", "user"] {
        let token = system.token("eve", &[scope], std::time::Duration::from_secs(60));
        assert!(page(&system.with_token(token), ORDERS, json!({})).await.ids.is_empty(), "{scope}");
    }
}

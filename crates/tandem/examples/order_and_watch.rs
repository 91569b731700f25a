//! Orders something and watches it being paid, through any running Tandem: what a client does, and a smoke test of a deployment.
//!
//! ```sh
//! cargo run -p tandem --example order_and_watch -- TOKEN http://localhost:8000 [http://localhost:8001]
//! ```
//!
//! With two addresses it orders at the first one and watches at the second. Exits with an error when the order is not paid within 30 s.

use std::{error::Error, time::Duration};

use serde_json::{Value, json};
use tandem::{client::Client, subscriber::Subscriber};
use uuid::Uuid;

const ACCOUNT: &str = "mutation {
    createAccount(input: { currencyCode: EUR, idempotencyKey: \"smoke\" }) { account { id } userErrors { code } }
}";
const TOP_UP: &str = "mutation($key: String!) {
    topUpAccount(input: { amount: { amount: \"20.00\", currencyCode: EUR }, idempotencyKey: $key }) {
        account { balance { amount } } userErrors { code message }
    }
}";
const ORDER: &str = "mutation($key: String!) {
    createOrder(input: { total: { amount: \"12.50\", currencyCode: EUR }, description: \"A book\", idempotencyKey: $key }) {
        order { id number } userErrors { code message }
    }
}";
const WATCH: &str = "subscription($id: ID!) { orderStatusChanged(orderId: $id) { status order { number payment { outcome } } } }";

/// Longer than a rebalance of the consumers after a replica was killed.
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::main]
#[expect(clippy::print_stdout, reason = "this is for people")]
async fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [token, order_at, rest @ ..] = args.as_slice() else {
        return Err("usage: order_and_watch TOKEN URL [URL]".into());
    };
    let watch_at = rest.first().unwrap_or(order_at);
    let client = Client::new(order_at, Some(token.clone()))?;
    let run = async |query: &str| -> Result<Value, Box<dyn Error>> {
        let answer = client.run(query, json!({ "key": Uuid::now_v7().to_string() })).await?;
        if answer.errors.is_empty() { Ok(answer.data) } else { Err(format!("{:?}", answer.errors).into()) }
    };
    client.run(ACCOUNT, json!({})).await?;
    let topped_up = run(TOP_UP).await?;
    if topped_up["topUpAccount"]["account"].is_null() {
        return Err(topped_up.to_string().into());
    }
    let order = run(ORDER).await?["createOrder"]["order"].take();
    println!("order {} is accepted", order["number"]);

    let watching = async {
        let mut events = Subscriber::start(watch_at, token, WATCH, json!({ "id": order["id"] })).await?;
        let mut last = Value::Null;
        while let Some(event) = events.next().await? {
            last = event["orderStatusChanged"].clone();
            println!("order {} is {}", last["order"]["number"], last["status"]);
        }
        Ok::<_, Box<dyn Error>>(last)
    };
    let last = tokio::time::timeout(PATIENCE, watching).await.map_err(|_| "not decided in time")??;
    let paid = last["status"] == "PAID" && last["order"]["payment"]["outcome"] == "PAID";
    if paid { Ok(()) } else { Err(format!("not paid: {last}").into()) }
}

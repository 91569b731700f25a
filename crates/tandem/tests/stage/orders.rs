//! A user who places orders, and tries again until each is accepted, whatever happens to the server meanwhile.

use std::time::Duration;

use serde_json::{Value, json};
use tandem::client::Client;
use tokio::time::{Instant, sleep};

use super::PATIENCE;

/// Pause before trying again while the server is away.
const AGAIN: Duration = Duration::from_millis(50);

pub struct Orders {
    client: Client,
}

impl Orders {
    /// Opens the user's account with enough money for every order of a test.
    pub async fn with_money(base: &str, token: &str) -> Self {
        let orders = Self { client: Client::new(base, Some(token.to_owned())).unwrap() };
        let document = "mutation { createAccount(input: { currencyCode: EUR, idempotencyKey: \"a\" }) { account { id } }
            topUpAccount(input: { amount: { amount: \"1000.00\", currencyCode: EUR }, idempotencyKey: \"a\" }) { entry { id } } }";
        orders.until(document, json!({}), |data| data["topUpAccount"]["entry"]["id"].is_string()).await;
        orders
    }

    /// Places an order of that description and answers its id. The description is the idempotency key, too.
    pub async fn create(&self, description: &str) -> String {
        let document = "mutation($description: String!, $key: String!) { createOrder(input: { description: $description,
            idempotencyKey: $key, total: { amount: \"1.00\", currencyCode: EUR } }) { order { id } userErrors { message } } }";
        let key = description.replace(' ', "-");
        let variables = json!({ "description": description, "key": key });
        let data = self.until(document, variables, |data| data["createOrder"]["order"]["id"].is_string()).await;
        data["createOrder"]["order"]["id"].as_str().unwrap().to_owned()
    }

    pub async fn until_decided(&self, order: &str) {
        let document = "query($id: ID!) { order(id: $id) { status } }";
        self.until(document, json!({ "id": order }), |data| data["order"]["status"] != "PENDING").await;
    }

    async fn until(&self, document: &str, variables: Value, is_done: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.client.run(document, variables.clone()).await;
            match answer {
                Ok(answer) if answer.errors.is_empty() && is_done(&answer.data) => return answer.data,
                answer => assert!(Instant::now() < deadline, "{document}: {answer:?}"),
            }
            sleep(AGAIN).await;
        }
    }
}

//! What a user does.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tandem::client::{Answer, Client};

use super::{Socket, until};

pub const CREATE_ACCOUNT: &str = "mutation($input: CreateAccountInput!) {
    createAccount(input: $input) { account { id balance { amount currencyCode } } userErrors { code field } } }";
pub const TOP_UP: &str = "mutation($input: TopUpAccountInput!) {
    topUpAccount(input: $input) { account { id balance { amount currencyCode } } entry { id amount { amount } } userErrors { code field } } }";
pub const CREATE_ORDER: &str = "mutation($input: CreateOrderInput!) {
    createOrder(input: $input) { order { id number status total { amount currencyCode } description } userErrors { code field } } }";
const ORDER: &str = "query($id: ID!) { order(id: $id) { status rejectionReason } }";
const BALANCE: &str = "{ me { account { balance { amount } } } }";

/// Somebody with a token.
#[derive(Clone)]
pub struct User {
    pub client: Client,
    pub token: String,
    address: SocketAddr,
}

impl User {
    pub fn new(client: Client, token: String, address: SocketAddr) -> Self {
        Self { client, token, address }
    }

    pub async fn run(&self, document: &str, variables: Value) -> Answer {
        self.client.run(document, variables).await.unwrap()
    }

    /// The data of an answer without errors.
    pub async fn data(&self, document: &str, variables: Value) -> Value {
        let answer = self.run(document, variables).await;
        assert_eq!(answer.errors, Vec::<Value>::new(), "{document}");
        answer.data
    }

    pub async fn create_account(&self, currency: &str) -> String {
        let input = json!({ "input": { "currencyCode": currency } });
        let payload = self.data(CREATE_ACCOUNT, input).await["createAccount"].take();
        assert_eq!(payload["userErrors"], json!([]), "{payload}");
        text(&payload["account"]["id"])
    }

    pub async fn top_up(&self, amount: &str, currency: &str) -> String {
        let input = json!({ "input": { "amount": money(amount, currency) } });
        let payload = self.data(TOP_UP, input).await["topUpAccount"].take();
        assert_eq!(payload["userErrors"], json!([]), "{payload}");
        text(&payload["entry"]["id"])
    }

    /// Orders for this much in EUR; the id of the accepted order.
    pub async fn order(&self, amount: &str) -> String {
        self.order_in(amount, "EUR").await
    }

    pub async fn order_in(&self, amount: &str, currency: &str) -> String {
        let payload = self.create_order(json!({ "total": money(amount, currency), "description": "a book" })).await;
        accepted(&payload)
    }

    /// The payload, refused or not.
    pub async fn create_order(&self, input: Value) -> Value {
        self.data(CREATE_ORDER, json!({ "input": input })).await["createOrder"].take()
    }

    /// Status and reason of an order.
    pub async fn status(&self, order: &str) -> (String, Option<String>) {
        let data = self.data(ORDER, json!({ "id": order })).await;
        let reason = data["order"]["rejectionReason"].as_str().map(str::to_owned);
        (text(&data["order"]["status"]), reason)
    }

    /// Status and reason once the payment is decided.
    pub async fn decided(&self, order: &str) -> (String, Option<String>) {
        until("the order is decided", async || self.status(order).await.0 != "PENDING").await;
        self.status(order).await
    }

    /// Waits until an order is paid.
    pub async fn paid(&self, order: &str) {
        assert_eq!(self.decided(order).await, ("PAID".to_owned(), None));
    }

    pub async fn balance(&self) -> String {
        text(&self.data(BALANCE, json!({})).await["me"]["account"]["balance"]["amount"])
    }

    /// An acknowledged socket.
    pub async fn socket(&self) -> Socket {
        let mut socket = Socket::connect(self.address).await;
        socket.init(&self.token).await;
        socket
    }
}

pub fn money(amount: &str, currency: &str) -> Value {
    json!({ "amount": amount, "currencyCode": currency })
}

/// The id of an order that was accepted.
pub fn accepted(payload: &Value) -> String {
    assert_eq!(payload["userErrors"], json!([]), "{payload}");
    text(&payload["order"]["id"])
}

pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}

//! The two events between the services: what Order Service asks for and what Payments Service decided.
//!
//! The body is JSON; the envelope is CloudEvents 1.0 in binary mode, so `ce_id`, `ce_type`, `ce_source` and `ce_time` travel as headers.
//! Readers ignore unknown fields; a new field is optional for ever. A change that old readers cannot bear gets a new `ce_type`.

use schemars::{JsonSchema, Schema, schema_for};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{CurrencyCode, MAX_AMOUNT_MINOR, Money, OrderId, RejectionReason, Timestamp, UserId};

/// Topic of [`PaymentTask`], keyed by user id.
pub const TOPIC_PAYMENT_TASKS: &str = "payment_tasks";
/// Topic of [`PaymentResult`], keyed by user id.
pub const TOPIC_PAYMENT_RESULTS: &str = "payment_results";

/// Constants of an event type's envelope.
pub trait EventSource: Serialize + DeserializeOwned {
    /// `ce_type`; ends with the version of the body.
    const TYPE: &'static str;
    /// `ce_source`: the service that speaks.
    const SOURCE: &'static str;

    /// The body as JSON.
    fn to_json(&self) -> Result<String, MalformedPayload> {
        serde_json::to_string(self).map_err(|error| MalformedPayload::Json(error.to_string()))
    }

    /// Reads a message: the type must be known and the body must fit, both by syntax and by [`EventSource::check`].
    fn from_message(event_type: Option<&str>, body: &[u8]) -> Result<Self, MalformedPayload> {
        match event_type {
            Some(found) if found == Self::TYPE => {}
            found => {
                let found = found.unwrap_or("none").chars().take(128).collect();
                return Err(MalformedPayload::Type { expected: Self::TYPE, found });
            }
        }
        let event: Self = serde_json::from_slice(body).map_err(|error| MalformedPayload::Json(error.to_string()))?;
        event.check()?;
        Ok(event)
    }

    /// What the types alone cannot say.
    fn check(&self) -> Result<(), MalformedPayload>;
}

/// A message that cannot be an event of the expected type. Permanent: the same bytes never become readable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MalformedPayload {
    /// `ce_type` is missing or names another type or version.
    #[error("event type is `{found}`, expected `{expected}`")]
    Type {
        /// What this reader knows.
        expected: &'static str,
        /// What the message says.
        found: String,
    },
    /// The body is no JSON or has a wrong shape.
    #[error("body is not readable: {0}")]
    Json(String),
    /// A value is outside of what the contract allows.
    #[error("`{field}` is {found}, allowed is {allowed}")]
    Value {
        /// The field of the body.
        field: &'static str,
        /// What it holds.
        found: String,
        /// What it may hold.
        allowed: String,
    },
}

/// Order Service asks for the payment of one order. Sent at least once; the decision is made once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PaymentTask {
    /// The order to pay, as a UUID.
    pub order_id: OrderId,
    /// Whose account pays; also the message key.
    pub user_id: UserId,
    /// What to pay, in minor units of the currency: 1 to 10^15.
    #[schemars(range(min = 1, max = 1_000_000_000_000_000_i64))]
    pub amount_minor: i64,
    /// ISO 4217.
    pub currency: CurrencyCode,
}

impl PaymentTask {
    /// The amount with its currency.
    pub fn amount(&self) -> Money {
        Money { minor: self.amount_minor, currency: self.currency }
    }
}

impl EventSource for PaymentTask {
    const TYPE: &'static str = "tandem.payment_task.v1";
    const SOURCE: &'static str = "/tandem/order-service";

    fn check(&self) -> Result<(), MalformedPayload> {
        if !(1..=MAX_AMOUNT_MINOR).contains(&self.amount_minor) {
            let allowed = format!("1 to {MAX_AMOUNT_MINOR}");
            return Err(MalformedPayload::Value { field: "amount_minor", found: self.amount_minor.to_string(), allowed });
        }
        check_user_id(&self.user_id)
    }
}

/// How a payment was decided.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, async_graphql::Enum, sea_orm::DeriveValueType,
)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[sea_orm(value_type = "String")]
pub enum PaymentOutcome {
    /// The account was debited.
    Paid,
    /// No money moved.
    Rejected,
}

impl PaymentOutcome {
    /// As stored and sent.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Paid => "PAID",
            Self::Rejected => "REJECTED",
        }
    }
}

impl std::fmt::Display for PaymentOutcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for PaymentOutcome {
    type Err = MalformedPayload;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "PAID" => Ok(Self::Paid),
            "REJECTED" => Ok(Self::Rejected),
            _ => {
                let found = text.chars().take(64).collect();
                Err(MalformedPayload::Value { field: "outcome", found, allowed: "PAID or REJECTED".to_owned() })
            }
        }
    }
}

/// Payments Service tells how it decided. The same decision is told again whenever the task comes again, under the same event id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PaymentResult {
    /// The order that was decided, as a UUID.
    pub order_id: OrderId,
    /// Whose order it is; also the message key.
    pub user_id: UserId,
    /// Paid or rejected, for ever.
    pub outcome: PaymentOutcome,
    /// Present exactly when the outcome is `REJECTED`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejection_reason: Option<RejectionReason>,
    /// When it was decided, in milliseconds since 1970-01-01T00:00:00Z.
    pub decided_at_ms: Timestamp,
}

impl EventSource for PaymentResult {
    const TYPE: &'static str = "tandem.payment_result.v1";
    const SOURCE: &'static str = "/tandem/payment-service";

    fn check(&self) -> Result<(), MalformedPayload> {
        if (self.outcome == PaymentOutcome::Rejected) != self.rejection_reason.is_some() {
            let found = format!("{:?}", self.rejection_reason);
            let allowed = "a reason exactly when the outcome is REJECTED".to_owned();
            return Err(MalformedPayload::Value { field: "rejection_reason", found, allowed });
        }
        check_user_id(&self.user_id)
    }
}

fn check_user_id(user_id: &UserId) -> Result<(), MalformedPayload> {
    if user_id.is_valid() {
        return Ok(());
    }
    let found = format!("{} characters", user_id.0.chars().count());
    let allowed = format!("1 to {} visible characters", UserId::MAX_CHARS);
    Err(MalformedPayload::Value { field: "user_id", found, allowed })
}

/// The JSON Schema of every event body by file name, as committed under `schema/events/`.
pub fn event_schemas() -> Vec<(&'static str, Schema)> {
    vec![("payment_task.v1.json", schema_for!(PaymentTask)), ("payment_result.v1.json", schema_for!(PaymentResult))]
}

/// The AsyncAPI 3 document of both topics, as committed under `schema/events/asyncapi.yaml`.
pub fn asyncapi_yaml() -> String {
    let channel = |topic: &str, message: &str| {
        format!(
            "  {topic}:\n    address: {topic}\n    messages:\n      {message}:\n        $ref: '#/components/messages/{message}'\n"
        )
    };
    let operation = |name: &str, action: &str, topic: &str| {
        format!("  {name}:\n    action: {action}\n    channel:\n      $ref: '#/channels/{topic}'\n")
    };
    let message = |name: &str, event_type: &str, source: &str, file: &str| {
        format!(
            "    {name}:\n      name: {event_type}\n      contentType: application/json\n      headers:\n        type: object\n        \
             required: [ce_specversion, ce_id, ce_type, ce_source, ce_time]\n        properties:\n          \
             ce_specversion: {{type: string, const: '1.0'}}\n          ce_id: {{type: string, format: uuid}}\n          \
             ce_type: {{type: string, const: {event_type}}}\n          ce_source: {{type: string, const: {source}}}\n          \
             ce_time: {{type: string, format: date-time}}\n          traceparent: {{type: string}}\n      \
             payload:\n        $ref: './{file}'\n"
        )
    };
    [
        "asyncapi: 3.0.0\ninfo:\n  title: Tandem\n  version: '1'\n  description: What Order Service and Payments Service say to each other. Keyed by user id.\ndefaultContentType: application/json\nchannels:\n".to_owned(),
        channel(TOPIC_PAYMENT_TASKS, "PaymentTask"),
        channel(TOPIC_PAYMENT_RESULTS, "PaymentResult"),
        "operations:\n".to_owned(),
        operation("orderServiceSendsTasks", "send", TOPIC_PAYMENT_TASKS),
        operation("paymentServiceReceivesTasks", "receive", TOPIC_PAYMENT_TASKS),
        operation("paymentServiceSendsResults", "send", TOPIC_PAYMENT_RESULTS),
        operation("orderServiceReceivesResults", "receive", TOPIC_PAYMENT_RESULTS),
        "components:\n  messages:\n".to_owned(),
        message("PaymentTask", PaymentTask::TYPE, PaymentTask::SOURCE, "payment_task.v1.json"),
        message("PaymentResult", PaymentResult::TYPE, PaymentResult::SOURCE, "payment_result.v1.json"),
    ]
    .concat()
}

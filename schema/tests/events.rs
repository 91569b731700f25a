//! The committed event documents say what the types say, and samples of every released version keep parsing.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, path::PathBuf};

use schema::{EventSource as _, MalformedPayload, PaymentResult, PaymentTask};

fn committed(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("events").join(name)
}

/// Compares with the committed file; `UPDATE_SCHEMA=1` (which `make schema` sets) writes it instead.
fn assert_up_to_date(name: &str, generated: &str) {
    let path = committed(name);
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        fs::write(&path, generated).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(found, generated, "{} is out of date: run `make schema`", path.display());
}

#[test]
fn the_committed_event_documents_are_up_to_date() {
    for (name, schema) in schema::event_schemas() {
        assert_up_to_date(name, &(serde_json::to_string_pretty(&schema).unwrap() + "\n"));
    }
    assert_up_to_date("asyncapi.yaml", &schema::asyncapi_yaml());
}

#[test]
fn old_samples_keep_parsing_and_unknown_fields_are_ignored() {
    let task = r#"{"order_id":"019a0000-0000-7000-8000-000000000001","user_id":"demo","amount_minor":1250,"currency":"EUR","later":{"x":1}}"#;
    let task = PaymentTask::from_message(Some("tandem.payment_task.v1"), task.as_bytes()).unwrap();
    assert_eq!((task.amount_minor, task.user_id.0.as_str()), (1250, "demo"));

    let paid =
        r#"{"order_id":"019a0000-0000-7000-8000-000000000001","user_id":"demo","outcome":"PAID","decided_at_ms":1770000000007}"#;
    assert!(PaymentResult::from_message(Some("tandem.payment_result.v1"), paid.as_bytes()).is_ok());
    let rejected = r#"{"order_id":"019a0000-0000-7000-8000-000000000001","user_id":"demo","outcome":"REJECTED","rejection_reason":"INSUFFICIENT_FUNDS","decided_at_ms":1770000000007}"#;
    assert!(PaymentResult::from_message(Some("tandem.payment_result.v1"), rejected.as_bytes()).is_ok());
}

#[test]
fn what_is_no_task_is_refused_with_the_reason() {
    let valid = r#"{"order_id":"019a0000-0000-7000-8000-000000000001","user_id":"demo","amount_minor":1,"currency":"EUR"}"#;
    let refuse = |event_type: Option<&str>, body: &str| PaymentTask::from_message(event_type, body.as_bytes()).unwrap_err();
    let v1 = Some(PaymentTask::TYPE);

    assert!(matches!(refuse(None, valid), MalformedPayload::Type { .. }));
    assert!(matches!(refuse(Some("tandem.payment_task.v2"), valid), MalformedPayload::Type { .. }));
    for body in [
        "",
        "no json",
        "[]",
        "{}",
        &valid.replace("\"EUR\"", "\"XAU\""),
        &valid.replace(":1,", ":\"1\","),
        &valid.replace(":1,", ":1.5,"),
    ] {
        assert!(matches!(refuse(v1, body), MalformedPayload::Json(_)), "{body}");
    }
    for body in [
        valid.replace(":1,", ":0,"),
        valid.replace(":1,", ":-5,"),
        valid.replace(":1,", ":1000000000000001,"),
        valid.replace("demo", ""),
    ] {
        assert!(matches!(refuse(v1, &body), MalformedPayload::Value { .. }), "{body}");
    }
}

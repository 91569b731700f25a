//! Liveness and readiness.
//!
//! `/health/live` answers 200 for as long as the process can answer at all: restarting it would not
//! cure anything that it waits for. `/health/ready` answers 200 when every named check is ready and
//! the process is not draining, else 503 with what is missing.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{StatusCode, header};
use serde::Serialize;
use tokio::sync::watch;

/// The checks of one process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Health {
    state: Arc<watch::Sender<State>>,
}

#[derive(Clone, Debug, Default)]
struct State {
    draining: bool,
    /// Why each check is not ready; `None` when it is. Bounded: one entry per name in the code.
    checks: BTreeMap<&'static str, Option<String>>,
}

impl State {
    fn is_ready(&self) -> bool {
        !self.draining && self.checks.values().all(Option::is_none)
    }
}

/// One named check; whoever does the work sets it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct HealthCheck {
    name: &'static str,
    health: Health,
}

impl Default for Health {
    fn default() -> Self {
        Self { state: Arc::new(watch::Sender::new(State::default())) }
    }
}

impl Health {
    /// No checks yet, which counts as ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a check, or finds it again. A new one is not ready: "starting".
    pub fn check(&self, name: &'static str) -> HealthCheck {
        self.state.send_modify(|state| {
            state.checks.entry(name).or_insert_with(|| Some("starting".to_owned()));
        });
        HealthCheck { name, health: self.clone() }
    }

    /// From now on not ready, for load balancers to look elsewhere.
    pub fn drain(&self) {
        self.state.send_modify(|state| state.draining = true);
    }

    /// Whether everything is ready now.
    pub fn is_ready(&self) -> bool {
        self.state.borrow().is_ready()
    }

    /// Waits until everything is ready.
    pub async fn ready(&self) {
        // The sender lives in `self`, so the channel cannot be closed.
        let _ = self.state.subscribe().wait_for(State::is_ready).await;
    }

    /// `GET /health/live` and `GET /health/ready`.
    pub fn router(&self) -> Router {
        let health = self.clone();
        Router::new()
            .route("/health/live", get(async || json(StatusCode::OK, &Live { status: "live" })))
            .route("/health/ready", get(async move || health.answer()))
    }

    fn answer(&self) -> Response {
        let state = self.state.borrow();
        let (code, status) = match (state.is_ready(), state.draining) {
            (true, _) => (StatusCode::OK, "ready"),
            (false, true) => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
            (false, false) => (StatusCode::SERVICE_UNAVAILABLE, "not ready"),
        };
        let checks = state.checks.iter().map(|(name, reason)| (*name, reason.as_deref().unwrap_or("ready"))).collect();
        json(code, &Ready { status, checks })
    }
}

impl HealthCheck {
    /// It is ready.
    pub fn ready(&self) {
        self.set(None);
    }

    /// It is not, and why, in a few words for an operator ("waiting for the database: …").
    pub fn not_ready(&self, reason: impl Into<String>) {
        self.set(Some(reason.into()));
    }

    fn set(&self, reason: Option<String>) {
        self.health.state.send_if_modified(|state| {
            let check = state.checks.entry(self.name).or_default();
            if *check == reason {
                return false;
            }
            match &reason {
                Some(reason) => tracing::info!(check = self.name, reason, "not ready"),
                None => tracing::info!(check = self.name, "ready"),
            }
            *check = reason;
            true
        });
    }
}

#[derive(Serialize)]
struct Live {
    status: &'static str,
}

#[derive(Serialize)]
struct Ready<'a> {
    status: &'static str,
    checks: BTreeMap<&'static str, &'a str>,
}

fn json(code: StatusCode, body: &impl Serialize) -> Response {
    (code, [(header::CACHE_CONTROL, "no-store")], axum::Json(body)).into_response()
}

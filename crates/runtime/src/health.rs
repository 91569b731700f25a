//! Liveness and readiness.
//!
//! `/health/live` answers 200 for as long as the process can answer at all: restarting it would not
//! cure anything that it waits for. `/health/ready` answers 200 when every named check is ready and
//! the process is not draining, else 503 with what is missing. A check may also be degraded: what it
//! is about is away, but requests are served all the same, so load balancers need not look
//! elsewhere, where it is away too.

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
    /// Bounded: one entry per name in the code.
    checks: BTreeMap<&'static str, Check>,
}

/// With the reason where there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Check {
    Ready,
    Degraded(String),
    NotReady(String),
}

impl State {
    fn is_ready(&self) -> bool {
        !self.draining && !self.checks.values().any(|check| matches!(check, Check::NotReady(_)))
    }

    fn is_degraded(&self) -> bool {
        self.checks.values().any(|check| matches!(check, Check::Degraded(_)))
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
            state.checks.entry(name).or_insert_with(|| Check::NotReady("starting".to_owned()));
        });
        HealthCheck { name, health: self.clone() }
    }

    /// From now on not ready, for load balancers to look elsewhere.
    pub fn drain(&self) {
        self.state.send_modify(|state| state.draining = true);
    }

    /// Whether everything is ready now, or degraded.
    pub fn is_ready(&self) -> bool {
        self.state.borrow().is_ready()
    }

    /// Waits until everything is ready, or degraded.
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
            (true, _) if state.is_degraded() => (StatusCode::OK, "degraded"),
            (true, _) => (StatusCode::OK, "ready"),
            (false, true) => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
            (false, false) => (StatusCode::SERVICE_UNAVAILABLE, "not ready"),
        };
        let checks = state.checks.iter().map(|(name, check)| (*name, check.to_string())).collect();
        json(code, &Ready { status, checks })
    }
}

impl std::fmt::Display for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ready => f.write_str("ready"),
            Self::Degraded(reason) => write!(f, "degraded: {reason}"),
            Self::NotReady(reason) => f.write_str(reason),
        }
    }
}

impl HealthCheck {
    /// It is ready.
    pub fn ready(&self) {
        self.set(|_| Check::Ready);
    }

    /// What it is about is away, and why; requests are served all the same. The same as [`HealthCheck::not_ready`] for a check that has never
    /// been ready, or is not ready now: what is needed has to be reached first.
    pub fn degraded(&self, reason: impl Into<String>) {
        let reason = reason.into();
        self.set(|now| match now {
            Check::NotReady(_) => Check::NotReady(reason),
            Check::Ready | Check::Degraded(_) => Check::Degraded(reason),
        });
    }

    /// It is not, and why, in a few words for an operator ("waiting for the database: …").
    pub fn not_ready(&self, reason: impl Into<String>) {
        let reason = reason.into();
        self.set(|_| Check::NotReady(reason));
    }

    fn set(&self, change: impl FnOnce(&Check) -> Check) {
        self.health.state.send_if_modified(|state| {
            // `Health::check` has inserted it.
            let Some(check) = state.checks.get_mut(self.name) else { return false };
            let changed = change(check);
            if *check == changed {
                return false;
            }
            match &changed {
                Check::Ready => tracing::info!(check = self.name, "ready"),
                Check::Degraded(reason) => tracing::warn!(check = self.name, reason, "degraded"),
                Check::NotReady(reason) => tracing::info!(check = self.name, reason, "not ready"),
            }
            *check = changed;
            true
        });
    }
}

#[derive(Serialize)]
struct Live {
    status: &'static str,
}

#[derive(Serialize)]
struct Ready {
    status: &'static str,
    checks: BTreeMap<&'static str, String>,
}

fn json(code: StatusCode, body: &impl Serialize) -> Response {
    (code, [(header::CACHE_CONTROL, "no-store")], axum::Json(body)).into_response()
}

//! Answers before the service can: the health routes at once, everything else once there is a database behind it.

use std::sync::{Arc, OnceLock};

use axum::{
    Router,
    extract::Request,
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use runtime::health::Health;
use serde_json::json;
use tower::ServiceExt as _;

/// The public routes, once they are there.
#[derive(Clone, Default)]
pub struct LateRouter(Arc<OnceLock<Router>>);

impl LateRouter {
    /// From now on requests go to `router`.
    pub fn set(&self, router: Router) {
        // Set once per start; a second one would change nothing.
        let _ = self.0.set(router);
    }

    /// The health routes, and what was set or will be.
    pub fn router(&self, health: &Health) -> Router {
        let late = self.clone();
        health.router().fallback(move |request: Request| async move {
            match late.0.get() {
                Some(router) => match router.clone().oneshot(request).await {
                    Ok(response) => response,
                    Err(never) => match never {},
                },
                None => starting(),
            }
        })
    }
}

fn starting() -> Response {
    let error = json!({ "message": "starting, please try again", "extensions": { "code": "SERVICE_UNAVAILABLE" } });
    let headers = [(header::RETRY_AFTER, "1")];
    (StatusCode::SERVICE_UNAVAILABLE, headers, axum::Json(json!({ "errors": [error] }))).into_response()
}

//! What every service needs around its business; knows nothing of any business.
//!
//! - [`settings`]: errors that name the setting, what was read and what is allowed
//! - [`service_settings`]: the settings that both services have, as groups for clap
//! - [`telemetry`]: logs on stderr, pretty for people and JSON for machines
//! - [`lifecycle`]: signals, draining, and the end after a grace time
//! - [`program`]: from a command to an exit code, and a service from its start to its end
//! - [`stage`]: the tasks of a service, stopped in order and missed when they panic
//! - [`publishing`]: topics, relay and sweeper of a service
//! - [`serve`]: bind and serve HTTP, bounded and drained
//! - [`health`]: `/health/live` and `/health/ready` with named checks; [`readiness`] keeps those that every service has
//! - [`metrics`]: `/metrics` for Prometheus
//! - [`auth`]: JSON Web Tokens, verified and signed

pub mod auth;
pub mod broker_settings;
pub mod health;
pub mod lifecycle;
pub mod metrics;
pub mod program;
pub mod publishing;
pub mod readiness;
pub mod serve;
pub mod service_settings;
pub mod settings;
pub mod stage;
pub mod telemetry;
#[cfg(feature = "testing")]
pub mod testing;
pub mod traces;

/// Makes `ring` the process's TLS provider. Called by what needs TLS here; harmless to repeat.
pub fn install_tls_provider() {
    // An error means that one is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

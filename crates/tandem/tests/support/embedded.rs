//! Everything in this process, on SQLite files.

use std::sync::Arc;

use messaging::{Broker, embedded::Seek};
use order_service::app::OrderService;
use payment_service::PaymentService;
use tandem::embedded::{EmbeddedSettings, Tandem};
use tempfile::TempDir;

use super::system::{Deployment, SECRET};

/// As `cargo run` has it, on a free port and a folder of its own.
pub struct Embedded {
    tandem: Tandem,
    folder: TempDir,
}

impl Embedded {
    async fn start_on(folder: TempDir) -> Self {
        let settings = EmbeddedSettings { jwt_secret: Some(SECRET.to_owned()), ..EmbeddedSettings::local(folder.path(), 0) };
        Self { tandem: Tandem::start(settings).await.unwrap(), folder }
    }
}

impl Deployment for Embedded {
    async fn start() -> Option<Self> {
        Some(Self::start_on(tempfile::tempdir().unwrap()).await)
    }

    async fn restart(self) -> Self {
        self.tandem.stop().await;
        Self::start_on(self.folder).await
    }

    fn orders(&self) -> &OrderService {
        self.tandem.orders()
    }

    fn payments(&self) -> &PaymentService {
        self.tandem.payments()
    }

    fn broker(&self) -> Arc<dyn Broker> {
        self.tandem.broker().clone()
    }

    async fn seek(&self, group: &str, topic: &str, to: Seek) {
        self.tandem.broker().seek_group(group, topic, to).await.unwrap();
    }
}

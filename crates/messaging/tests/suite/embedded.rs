//! The embedded broker: the contract of every broker, and the dangers of its own.

use std::sync::Arc;

use async_trait::async_trait;
use database::{Database, DatabaseUrl};
use messaging::contract::BrokerUnderTest;
use messaging::{Broker, EmbeddedBroker, EmbeddedOptions};
use migrations::BrokerLogMigrator;
use tempfile::TempDir;

mod contract {
    messaging::broker_contract!(super::EmbeddedUnderTest::start);
}

/// A log in a folder of its own, closed and opened again by a restart.
struct EmbeddedUnderTest {
    folder: TempDir,
    database: Option<Database>,
    broker: EmbeddedBroker,
}

impl EmbeddedUnderTest {
    async fn start() -> Self {
        Self::start_with(EmbeddedOptions::default()).await
    }

    async fn start_with(options: EmbeddedOptions) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (database, broker) = open(&folder, options).await;
        Self { folder, database: Some(database), broker }
    }
}

async fn open(folder: &TempDir, options: EmbeddedOptions) -> (Database, EmbeddedBroker) {
    let url = DatabaseUrl::sqlite(folder.path().join("log.db"));
    let database = Database::connect(&url, &database::testing::options()).await.unwrap();
    database.migrate::<BrokerLogMigrator>().await.unwrap();
    let broker = EmbeddedBroker::open(database.clone(), options).await.unwrap();
    (database, broker)
}

#[async_trait]
impl BrokerUnderTest for EmbeddedUnderTest {
    fn broker(&self) -> Arc<dyn Broker> {
        Arc::new(self.broker.clone())
    }

    async fn restart(&mut self) {
        self.broker.close().await.unwrap();
        self.database.take().unwrap().close().await;
        let (database, broker) = open(&self.folder, EmbeddedOptions::default()).await;
        self.database = Some(database);
        self.broker = broker;
    }
}

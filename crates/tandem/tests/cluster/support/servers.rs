//! Both services in this process, with everything between and below them as in a cluster.

use std::sync::Arc;

use database::testing::TestDatabase;
use messaging::{
    Broker,
    broker::DEFAULT_PARTITIONS,
    embedded::Seek,
    kafka::{KafkaBroker, KafkaOptions},
};
use order_service::{app::OrderService, endpoint::EndpointOptions};
use payment_service::{PaymentService, Topics};
use runtime::{
    auth::{Secret, TokenVerifier},
    serve,
};

use super::{
    own_topics::OwnTopics,
    system::{Deployment, SECRET},
};
use crate::{
    cluster::{unique_prefix, with_database},
    kafka::delete_topics,
    servers::Servers,
};

/// On databases and topics of one test's own.
pub struct OnServers {
    /// Taken only to be stopped.
    services: Option<(OrderService, PaymentService)>,
    broker: Arc<OwnTopics>,
    places: Places,
}

/// What outlives a restart.
struct Places {
    servers: Servers,
    prefix: String,
    orders: TestDatabase,
    payments: TestDatabase,
}

impl Drop for Places {
    fn drop(&mut self) {
        delete_topics(&self.servers.kafka, &self.prefix);
    }
}

impl OnServers {
    async fn start_on(places: Places) -> Self {
        let kafka = KafkaBroker::new(KafkaOptions::new(&places.servers.kafka)).unwrap();
        let broker = Arc::new(OwnTopics::new(kafka, &places.servers.kafka, &places.prefix));
        let verifier = TokenVerifier::new(&[Secret::new(SECRET).unwrap()], None);
        let payments = payment_service::Settings {
            database: with_database(&places.servers.postgres, &places.payments).parse().unwrap(),
            migrate_on_start: true,
            listen: "127.0.0.1:0".to_owned(),
            topics: Topics::with_prefix(""),
            metrics: None,
            drain_notice: std::time::Duration::ZERO,
        };
        let payments = PaymentService::start(payments, broker.clone(), verifier.clone()).await.unwrap();
        let orders = order_service::app::Settings {
            database: with_database(&places.servers.postgres, &places.orders).parse().unwrap(),
            migrate_on_start: true,
            payments_url: format!("http://{}/graphql", payments.address()),
            topic_prefix: String::new(),
            partitions: DEFAULT_PARTITIONS,
            endpoint: EndpointOptions { graphiql: true, introspection: true, ..EndpointOptions::default() },
            subgraph_listen: None,
            metrics: None,
            drain_notice: std::time::Duration::ZERO,
        };
        let listener = serve::bind("127.0.0.1:0").await.unwrap();
        let orders = OrderService::start(orders, broker.clone(), verifier, listener).await.unwrap();
        tokio::join!(payments.health().ready(), orders.health().ready());
        Self { services: Some((orders, payments)), broker, places }
    }

    fn services(&self) -> &(OrderService, PaymentService) {
        self.services.as_ref().expect("they run")
    }
}

impl Deployment for OnServers {
    async fn start() -> Option<Self> {
        let servers = Servers::shared()?;
        let orders = database::testing::postgres::<migrations::OrdersMigrator>().await?;
        let payments = database::testing::postgres::<migrations::PaymentsMigrator>().await?;
        Some(Self::start_on(Places { servers, prefix: unique_prefix("system"), orders, payments }).await)
    }

    async fn restart(mut self) -> Self {
        let (orders, payments) = self.services.take().expect("they run");
        orders.stop().await;
        payments.stop().await;
        Self::start_on(self.places).await
    }

    fn orders(&self) -> &OrderService {
        &self.services().0
    }

    fn payments(&self) -> &PaymentService {
        &self.services().1
    }

    fn broker(&self) -> Arc<dyn Broker> {
        self.broker.clone()
    }

    async fn seek(&self, group: &str, topic: &str, to: Seek) {
        self.broker.seek(group, topic, to).await;
    }
}

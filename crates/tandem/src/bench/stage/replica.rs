//! One service in a process of its own, as its own program runs it, and with a handle to hold parts of the flow.
//!
//! The benchmark talks to it over stdin and stdout, a line each: it says `listening ADDRESS SUBGRAPH` once it is ready, and answers
//! `pause` and `resume` with the same word when it is done. It stops when its stdin ends, so that no replica survives the benchmark.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use database::DatabaseUrl;
use messaging::{
    Broker,
    broker::DEFAULT_PARTITIONS,
    kafka::{KafkaBroker, KafkaOptions},
};
use order_service::{app::OrderService, endpoint::EndpointOptions};
use payment_service::{PaymentService, Topics};
use runtime::{
    auth::{Secret, TokenVerifier},
    metrics::Metrics,
    serve,
};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, stdin, stdout};

use crate::bench::BenchError;

/// Where a replica finds what it needs.
#[derive(Debug, Clone)]
pub struct ReplicaSettings {
    /// Its database.
    pub database_url: String,
    /// Kafka.
    pub kafka_brokers: String,
    /// In front of topics and groups.
    pub topic_prefix: String,
    /// Order Service only: the payments subgraph.
    pub payments_url: String,
    /// Signs and checks tokens.
    pub jwt_secret: String,
}

/// Runs Order Service until stdin ends.
///
/// # Errors
/// When it does not start.
pub async fn run_orders(settings: ReplicaSettings) -> Result<(), BenchError> {
    let broker = settings.broker("order-service")?;
    // Free at this moment, and bound again at once.
    let subgraph = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let app = order_service::app::Settings {
        database: settings.database()?,
        migrate_on_start: true,
        payments_url: settings.payments_url.clone(),
        topic_prefix: settings.topic_prefix.clone(),
        partitions: DEFAULT_PARTITIONS,
        // As in cluster mode without further settings.
        endpoint: EndpointOptions::default(),
        subgraph_listen: Some(subgraph.to_string()),
        metrics: Some(Metrics::install().map_err(BenchError::unexpected)?),
        drain_notice: Duration::ZERO,
    };
    let listener = serve::bind("127.0.0.1:0").await.map_err(BenchError::unexpected)?;
    let service = OrderService::start(app, broker, settings.verifier()?, listener).await.map_err(BenchError::unexpected)?;
    service.health().ready().await;
    let gates = service.gates().clone();
    obey(service.address(), subgraph, async |pause| {
        let held = [&gates.relay, &gates.sweeper, &gates.consumer];
        for gate in held {
            if pause {
                gate.close();
                gate.quiet().await;
            } else {
                gate.open();
            }
        }
    })
    .await?;
    service.stop().await;
    Ok(())
}

/// Runs Payments Service until stdin ends.
///
/// # Errors
/// When it does not start.
pub async fn run_payments(settings: ReplicaSettings) -> Result<(), BenchError> {
    let broker = settings.broker("payment-service")?;
    let app = payment_service::Settings {
        database: settings.database()?,
        migrate_on_start: true,
        listen: "127.0.0.1:0".to_owned(),
        topics: Topics::with_prefix(&settings.topic_prefix),
        metrics: Some(Metrics::install().map_err(BenchError::unexpected)?),
        drain_notice: Duration::ZERO,
    };
    let service = PaymentService::start(app, broker, settings.verifier()?).await.map_err(BenchError::unexpected)?;
    service.health().ready().await;
    obey(
        service.address(),
        service.address(),
        async |pause| {
            if pause { service.pause_consumer().await } else { service.resume_consumer() }
        },
    )
    .await?;
    service.stop().await;
    Ok(())
}

impl ReplicaSettings {
    fn database(&self) -> Result<DatabaseUrl, BenchError> {
        self.database_url.parse().map_err(BenchError::unexpected)
    }

    fn broker(&self, client_id: &str) -> Result<Arc<dyn Broker>, BenchError> {
        let options = KafkaOptions { client_id: client_id.to_owned(), ..KafkaOptions::new(&self.kafka_brokers) };
        Ok(Arc::new(KafkaBroker::new(options).map_err(BenchError::unexpected)?))
    }

    fn verifier(&self) -> Result<TokenVerifier, BenchError> {
        Ok(TokenVerifier::new(&[Secret::new(&self.jwt_secret).map_err(BenchError::unexpected)?], None))
    }
}

async fn obey(address: SocketAddr, subgraph: SocketAddr, hold: impl AsyncFn(bool)) -> Result<(), BenchError> {
    let mut answers = stdout();
    answers.write_all(format!("listening {address} {subgraph}\n").as_bytes()).await?;
    let mut commands = BufReader::new(stdin()).lines();
    while let Some(command) = commands.next_line().await? {
        hold(command == "pause").await;
        answers.write_all(format!("{command}\n").as_bytes()).await?;
        answers.flush().await?;
    }
    Ok(())
}

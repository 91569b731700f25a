//! Sends every message twice and receives it once.
//!
//! `cargo run -p messaging --example exactly_once` runs on the embedded broker; with `KAFKA_BROKERS=host:port`, on Kafka.
#![expect(clippy::print_stdout, reason = "an example")]

use std::{error::Error, sync::Arc};

use messaging::{kafka::*, outbox::insert_batch, *};
use sea_orm::{ConnectionTrait as _, DatabaseTransaction};

type Failure = Box<dyn Error + Send + Sync>;
const OUTBOX: OutboxTable = OutboxTable("outbox_mails");
const INBOX: InboxTable = InboxTable("inbox_mails");
const MESSAGES: usize = 10;

/// Receives. The claim and the change are in one transaction: both happen, or neither.
struct Receiver(tokio::sync::mpsc::Sender<usize>);

#[async_trait::async_trait]
impl Handler for Receiver {
    type Read = Vec<uuid::Uuid>;
    type Committed = usize;

    fn read(&self, deliveries: &[Delivery]) -> Result<Self::Read, HandlerError> {
        Ok(deliveries.iter().map(Delivery::event_id).collect::<Result<_, _>>()?)
    }

    async fn apply_in_tx(&self, tx: &DatabaseTransaction, ids: &Self::Read) -> Result<usize, HandlerError> {
        let new = inbox::claim_batch(tx, INBOX, ids).await?;
        for _ in &new {
            tx.execute_unprepared("UPDATE mails SET received = received + 1").await?;
        }
        println!("a batch of {} messages, {} of them new", ids.len(), new.len());
        Ok(ids.len())
    }

    async fn committed(&self, deliveries: usize) {
        let _ = self.0.send(deliveries).await;
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let open = async |name| {
        let url = database::DatabaseUrl::sqlite(folder.path().join(name));
        database::Database::connect(&url, &database::ConnectOptions::new("example")).await
    };
    let db = open("mails.db").await?;
    db.migrate::<tables::Migrator>().await?;
    let broker: Arc<dyn Broker> = if let Ok(brokers) = std::env::var("KAFKA_BROKERS") {
        Arc::new(KafkaBroker::new(KafkaOptions::new(&brokers))?)
    } else {
        let log = open("log.db").await?;
        log.migrate::<migrations::BrokerLogMigrator>().await?;
        Arc::new(EmbeddedBroker::open(log, EmbeddedOptions::default()).await?)
    };
    let topic = TopicSpec::new(format!("example-{}", uuid::Uuid::now_v7()));
    let (stop, gate) = (tokio_util::sync::CancellationToken::new(), Gate::new());

    let (told, mut received) = tokio::sync::mpsc::channel(MESSAGES);
    let options = ConsumerOptions::new(&topic.name, vec![topic.clone()]);
    let consumer = ConsumerLoop::new(db.clone(), Arc::clone(&broker), Arc::new(Receiver(told)), options);
    let (_, consuming) = consumer.start(stop.clone(), gate.clone());

    // Sends. The rows are committed with the change they tell about, then published; each twice, as a crash might.
    create_topics(&*broker, std::slice::from_ref(&topic)).await?;
    let (relay, relaying) = Relay::start(db.clone(), OUTBOX, broker, RelayOptions::default(), stop.clone(), gate);
    let mail = |n| OutboxRow::new(&topic.name, format!("user-{n}"), event(), format!("{{\"text\": \"hello {n}\"}}"));
    let rows: Vec<_> = (0..MESSAGES).map(mail).collect();
    let sent = rows.clone();
    db.transaction("send", move |tx| Box::pin(async move { Ok::<_, Failure>(insert_batch(tx, OUTBOX, &rows).await?) })).await?;
    relay.committed(sent.clone());
    relay.committed(sent);

    let mut deliveries = 0;
    while deliveries < 2 * MESSAGES {
        deliveries += received.recv().await.ok_or("the consumer ended")?;
    }
    let count = sea_orm::Statement::from_string(db.backend(), "SELECT received FROM mails");
    let count: i64 = db.reader().query_one_raw(count).await?.ok_or("no row")?.try_get_by_index(0)?;
    println!("{MESSAGES} messages, {deliveries} deliveries, received {count} times in all");
    stop.cancel();
    tokio::try_join!(consuming, relaying)?;
    Ok(())
}

fn event() -> CloudEvent {
    CloudEvent { id: uuid::Uuid::now_v7(), type_: "mail.sent".into(), source: "/example".into(), time_ms: 0 }
}

/// For SQLite; the README has the columns for Postgres.
mod tables {
    use sea_orm_migration::prelude::*;

    pub struct Migrator;
    struct Create;

    impl MigratorTrait for Migrator {
        fn migrations() -> Vec<Box<dyn MigrationTrait>> {
            vec![Box::new(Create)]
        }
    }

    impl MigrationName for Create {
        fn name(&self) -> &'static str {
            "create_mails"
        }
    }

    #[async_trait::async_trait]
    impl MigrationTrait for Create {
        async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
            let sql = "
                CREATE TABLE mails (received INTEGER NOT NULL);
                INSERT INTO mails VALUES (0);
                CREATE TABLE outbox_mails (id BLOB NOT NULL PRIMARY KEY, event_id BLOB NOT NULL, topic TEXT NOT NULL,
                    message_key TEXT NOT NULL, headers TEXT NOT NULL, payload TEXT NOT NULL, created_at_ms INTEGER NOT NULL,
                    attempts INTEGER NOT NULL DEFAULT 0, next_attempt_at_ms INTEGER NOT NULL);
                CREATE TABLE inbox_mails (message_id BLOB NOT NULL PRIMARY KEY, received_at_ms INTEGER NOT NULL);";
            manager.get_connection().execute_unprepared(sql).await.map(|_| ())
        }
    }
}

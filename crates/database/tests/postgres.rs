//! What only PostgreSQL can do to us: end sessions, detect deadlocks, vanish behind a cut network.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod support;

use std::time::{Duration, Instant};

use database::testing::TestDatabase;
use database::{ConnectOptions, Database, DatabaseError, Writes, testing};
use sea_orm::{ConnectionTrait, DbBackend, Statement};
use support::{Migrator, Network, PATIENCE, address_of, count, end_sessions, insert, insert_in_transaction, url_through};
use tokio::net::TcpListener;
use tokio::sync::Barrier;

async fn connect_through(db: &TestDatabase, network: &Network, options: &ConnectOptions) -> Database {
    Database::connect(&url_through(db, network.address), options).await.unwrap()
}

fn code(error: &DatabaseError) -> String {
    let DatabaseError::Db(sea_orm::DbErr::Exec(error) | sea_orm::DbErr::Query(error)) = error else {
        panic!("{error:?}");
    };
    let sea_orm::RuntimeErr::SqlxError(error) = error else { panic!("{error:?}") };
    error.as_database_error().unwrap().code().unwrap().into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_the_server_between_two_transactions_is_not_noticed() {
    let Some(db) = testing::postgres::<Migrator>().await else { return };
    let replica = Database::connect(db.url(), &testing::options()).await.unwrap();
    // Several connections in each pool, all of them idle when the sessions end.
    let warm = (0..6).map(|id| insert_in_transaction(&replica, id));
    futures_util::future::try_join_all(warm).await.unwrap();
    futures_util::future::join_all((0..6).map(|_| count(&replica))).await;

    end_sessions(&db).await;
    assert_eq!(count(&replica).await, 6);
    insert_in_transaction(&replica, 10).await.unwrap();
    end_sessions(&db).await;
    insert_in_transaction(&replica, 11).await.unwrap();
    assert_eq!(count(&replica).await, 8);
}

#[tokio::test]
async fn a_session_ended_within_a_transaction_is_a_transient_error_and_rolls_back() {
    let Some(db) = testing::postgres::<Migrator>().await else { return };
    let admin = Database::connect(db.url(), &testing::options()).await.unwrap();
    let error = db
        .transaction("interrupted", move |tx| {
            Box::pin(async move {
                insert(tx, 1).await?;
                end_sessions(&admin).await;
                insert(tx, 2).await?;
                Ok::<_, DatabaseError>(())
            })
        })
        .await
        .unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    assert!(!error.is_outcome_unknown());
    assert_eq!(count(&db).await, 0);
}

#[tokio::test]
async fn a_connection_lost_before_the_answer_to_commit_leaves_the_outcome_unknown() {
    let Some(db) = testing::postgres::<Migrator>().await else { return };
    let admin = Database::connect(db.url(), &testing::options()).await.unwrap();
    let error = db
        .transaction("in doubt", move |tx| {
            Box::pin(async move {
                insert(tx, 1).await?;
                end_sessions(&admin).await;
                Ok::<_, DatabaseError>(())
            })
        })
        .await
        .unwrap_err();
    assert!(error.is_outcome_unknown() && error.is_transient(), "{error:?}");
}

/// Cuts the network when the last answer is still to come: the connection that it comes on is pinged when it is given back, and the ping gets no answer.
async fn cut_during_a_ping(db: &Database, replica: &Database, network: &Network) {
    let mut writes = Writes::new(DbBackend::Postgres);
    writes.add_sql("INSERT INTO entries SELECT 1, 1 FROM pg_sleep(0.2)".to_owned());
    let running = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";
    let cut = async {
        let running = || db.reader().query_one_raw(Statement::from_string(DbBackend::Postgres, running));
        while running().await.unwrap().is_none() {}
        network.cut_requests();
    };
    let (written, ()) = tokio::join!(writes.run(replica, "slow"), cut);
    written.unwrap();
    network.cut();
}

fn impatient() -> ConnectOptions {
    ConnectOptions {
        acquire_timeout: Duration::from_millis(500),
        statement_timeout: Duration::from_millis(500),
        transaction_timeout: Duration::from_secs(2),
        // One more than is needed at once.
        write_connections: 3,
        read_connections: 2,
        ..testing::options()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_network_is_noticed_in_bounded_time_and_heals() {
    let Some(db) = testing::postgres::<Migrator>().await else { return };
    let network = Network::before(address_of(&db)).await;
    let replica = connect_through(&db, &network, &impatient()).await;
    cut_during_a_ping(&db, &replica, &network).await;
    let started = Instant::now();
    let statement = Statement::from_string(DbBackend::Postgres, "SELECT 1");
    let (read, write) = tokio::join!(replica.reader().query_one_raw(statement), insert_in_transaction(&replica, 2));
    assert!(database::is_transient(&read.unwrap_err()));
    let error = write.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());

    // The places of the silent connections become free, but for the one in its ping: two transactions fit in.
    network.heal();
    let healed = async {
        loop {
            let both_inside = std::sync::Arc::new(Barrier::new(2));
            let both = (0..2).map(|_| {
                let both_inside = both_inside.clone();
                replica.transaction("both", move |_| {
                    Box::pin(async move {
                        both_inside.wait().await;
                        Ok::<_, DatabaseError>(())
                    })
                })
            });
            // Both to their end: one that waits alone for the other still has a connection, and the next two would not find theirs.
            let both = futures_util::future::join_all(both).await;
            if both.iter().all(Result::is_ok) && replica.ping().await.is_ok() {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, healed).await.unwrap();
}

/// It would wait for as long as TCP tries.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_cut_during_a_ping_takes_no_worker_its_only_connection() {
    let Some(db) = testing::postgres::<Migrator>().await else { return };
    let network = Network::before(address_of(&db)).await;
    let worker = connect_through(&db, &network, &impatient()).await.for_worker(1);
    cut_during_a_ping(&db, &worker, &network).await;
    assert!(insert_in_transaction(&worker, 2).await.unwrap_err().is_transient());
    network.heal();
    let healed = async { while insert_in_transaction(&worker, 2).await.is_err() {} };
    tokio::time::timeout(PATIENCE, healed).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadlock_is_transient() {
    let Some(db) = testing::postgres::<Migrator>().await else { return };
    for id in [1, 2] {
        insert_in_transaction(&db, id).await.unwrap();
    }
    let both_hold_one = std::sync::Arc::new(Barrier::new(2));
    let update = |first: i64, second: i64| {
        let barrier = both_hold_one.clone();
        db.transaction("locks", move |tx| {
            Box::pin(async move {
                tx.execute_unprepared(&format!("UPDATE entries SET amount = 2 WHERE id = {first}")).await?;
                barrier.wait().await;
                tx.execute_unprepared(&format!("UPDATE entries SET amount = 2 WHERE id = {second}")).await?;
                Ok::<_, DatabaseError>(())
            })
        })
    };
    let (one, other) = tokio::join!(update(1, 2), update(2, 1));
    let error = one.and(other).unwrap_err();
    assert_eq!(code(&error), "40P01");
    assert!(error.is_transient());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_locks_and_idle_transactions_are_bounded_by_the_server() {
    let options = ConnectOptions {
        statement_timeout: Duration::from_millis(400),
        lock_timeout: Duration::from_millis(100),
        idle_in_transaction_timeout: Duration::from_millis(200),
        ..testing::options()
    };
    let Some(db) = testing::postgres_with::<Migrator>(&options).await else { return };
    insert_in_transaction(&db, 1).await.unwrap();
    let run = |sql: &'static str| {
        db.transaction("bounded", move |tx| {
            Box::pin(async move {
                tx.execute_unprepared(sql).await?;
                Ok::<_, DatabaseError>(())
            })
        })
    };
    let error = run("SELECT pg_sleep(30)").await.unwrap_err();
    assert_eq!(code(&error), "57014");
    assert!(error.is_transient());

    let holder = (*db).clone();
    let error = db
        .transaction("holds the lock", move |tx| {
            Box::pin(async move {
                tx.execute_unprepared("UPDATE entries SET amount = 2").await?;
                let waiting = holder.transaction("wants the lock", |tx| {
                    Box::pin(async move {
                        tx.execute_unprepared("UPDATE entries SET amount = 3").await?;
                        Ok::<_, DatabaseError>(())
                    })
                });
                waiting.await
            })
        })
        .await
        .unwrap_err();
    assert_eq!(code(&error), "55P03");
    assert!(error.is_transient());

    let started = Instant::now();
    let error = db
        .transaction("paused", move |tx| {
            Box::pin(async move {
                insert(tx, 2).await?;
                // What a paused process does: nothing, with its locks held.
                while started.elapsed() < Duration::from_millis(600) {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                insert(tx, 3).await?;
                Ok::<_, DatabaseError>(())
            })
        })
        .await
        .unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    assert_eq!(count(&db).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_serialization_failure_is_transient() {
    let Some(db) = testing::postgres::<Migrator>().await else { return };
    insert_in_transaction(&db, 1).await.unwrap();
    let other = (*db).clone();
    let error = db
        .transaction("serializable", move |tx| {
            Box::pin(async move {
                tx.execute_unprepared("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").await?;
                tx.execute_unprepared("SELECT COUNT(*) FROM entries").await?;
                other
                    .transaction("overtakes", |tx| {
                        Box::pin(async move {
                            tx.execute_unprepared("UPDATE entries SET amount = 2").await?;
                            Ok::<_, DatabaseError>(())
                        })
                    })
                    .await?;
                tx.execute_unprepared("UPDATE entries SET amount = 3").await?;
                Ok(())
            })
        })
        .await
        .unwrap_err();
    assert_eq!(code(&error), "40001");
    assert!(error.is_transient());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exhausted_pool_is_transient() {
    let options = ConnectOptions { write_connections: 1, acquire_timeout: Duration::from_millis(100), ..testing::options() };
    let Some(db) = testing::postgres_with::<Migrator>(&options).await else { return };
    let second = (*db).clone();
    let error =
        db.transaction("first", move |_| Box::pin(async move { insert_in_transaction(&second, 1).await })).await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
}

#[tokio::test]
async fn a_worker_does_not_wait_for_the_connections_of_requests_and_its_own_are_closed_with_the_database() {
    let Some(db) = testing::postgres::<Migrator>().await else { return };
    let options = ConnectOptions { write_connections: 1, ..testing::options() };
    let replica = Database::connect(db.url(), &options).await.unwrap();
    let worker = replica.for_worker(1);
    let inserted = replica.transaction("request", move |_| {
        Box::pin(async move {
            insert_in_transaction(&worker, 1).await?;
            Ok::<_, DatabaseError>(worker)
        })
    });
    let worker = tokio::time::timeout(PATIENCE, inserted).await.unwrap().unwrap();
    assert_eq!(count(&worker).await, 1);
    replica.close().await;
    assert!(insert_in_transaction(&worker, 2).await.unwrap_err().is_transient());
    assert!(worker.reader().execute_unprepared("SELECT 1").await.is_err(), "the one for reading, too");
    assert_eq!(count(&db).await, 1);
}

/// Inserts one row, in a transaction of its own.
async fn insert_alone(db: &Database, id: i64) -> Result<(), DatabaseError> {
    let mut writes = Writes::new(DbBackend::Postgres);
    writes.add_sql(format!("INSERT INTO entries (id, amount) VALUES ({id}, 1)"));
    writes.run(db, "alone").await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_ends_during_writes_of_their_own_leaves_the_outcome_unknown() {
    let Some(db) = testing::postgres::<Migrator>().await else { return };
    let replica = Database::connect(db.url(), &testing::options()).await.unwrap();
    let admin = Database::connect(db.url(), &testing::options()).await.unwrap();
    // Its writes wait for a row that another transaction has inserted, and their session ends meanwhile.
    let interrupted = db.transaction("holder", move |tx| {
        Box::pin(async move {
            insert(tx, 1).await?;
            let writing = tokio::spawn({
                let replica = replica.clone();
                async move { insert_alone(&replica, 1).await }
            });
            let blocked = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                           WHERE datname = current_database() AND wait_event_type = 'Lock'";
            while admin.reader().query_all_raw(Statement::from_string(DbBackend::Postgres, blocked)).await?.is_empty() {
                tokio::task::yield_now().await;
            }
            Ok::<_, DatabaseError>((writing.await.unwrap(), replica))
        })
    });
    let (interrupted, replica) = tokio::time::timeout(PATIENCE, interrupted).await.unwrap().unwrap();
    let error = interrupted.unwrap_err();
    assert!(error.is_outcome_unknown() && error.is_transient(), "{error:?}");
    // What the server answers is known.
    let error = insert_alone(&replica, 1).await.unwrap_err();
    assert!(!error.is_outcome_unknown() && !error.is_transient(), "{error:?}");
    insert_alone(&replica, 2).await.unwrap();
    assert_eq!(count(&db).await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_may_start_before_its_database() {
    let Some(db) = testing::postgres::<Migrator>().await else { return };
    // A port that nobody listens on yet.
    let reserved = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = reserved.local_addr().unwrap();
    drop(reserved);
    let url = url_through(&db, address);

    let error = Database::connect(&url, &testing::options()).await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");

    let (waits, mut waited) = tokio::sync::mpsc::unbounded_channel();
    let connecting = tokio::spawn(async move {
        let on_wait = |error: &DatabaseError| waits.send(error.to_string()).unwrap();
        database::connect_with_backoff(&url, &testing::options(), on_wait).await
    });
    let message = waited.recv().await.unwrap();
    assert!(message.contains(&address.to_string()) && message.contains("***"), "{message}");

    let listener = TcpListener::bind(address).await.unwrap();
    let _network = Network::on(listener, address_of(&db));
    let late = tokio::time::timeout(PATIENCE, connecting).await.unwrap().unwrap().unwrap();
    late.ping().await.unwrap();
}

#[tokio::test]
async fn a_refused_user_or_database_is_not_waited_for() {
    let Some(db) = testing::postgres::<Migrator>().await else { return };
    let address = address_of(&db);
    let url = format!("postgres://tandem@{address}/no_such_database").parse().unwrap();
    let error = database::connect_with_backoff(&url, &testing::options(), |_| {}).await.unwrap_err();
    assert!(error.to_string().contains("no_such_database"), "{error}");
}

#[tokio::test]
async fn notifications_arrive_on_a_connection_of_their_own() {
    let Some(db) = testing::postgres::<Migrator>().await else { return };
    let mut listener = db.listen("events").await.unwrap().unwrap();
    db.transaction("notify", |tx| {
        Box::pin(async move {
            tx.execute_unprepared("SELECT pg_notify('events', '42')").await?;
            Ok::<_, DatabaseError>(())
        })
    })
    .await
    .unwrap();
    let notification = tokio::time::timeout(PATIENCE, listener.recv()).await.unwrap().unwrap();
    assert_eq!(notification.payload(), "42");
}

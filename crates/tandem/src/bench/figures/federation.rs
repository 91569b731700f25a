//! Figure 6: what the built-in federation costs.
//!
//! One query over both services, one client, one at a time: against the sum of the two subgraph queries that it is made of, asked for one
//! after the other, directly and over the same kind of connection. And one query of orders alone, many clients: against the rate of the
//! same query on the plain subgraph. What is compared is measured in turns, so that a noisy minute is everybody's.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures_util::future::try_join_all;
use hdrhistogram::Histogram;
use hyper::{body::Bytes, header::HeaderValue};
use schema::OrderId;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::settle;
use crate::bench::{
    Bench, BenchError,
    load::{Load, Pace, connection::Connection, histogram, on_own_thread, open_accounts},
    progress::Progress,
    report::{Bar, Figure, Yardstick},
    stage::Stage,
    verify,
};

/// What a page of one order shows.
const CROSS_SERVICE: &str = "query Order($id: ID!) { order(id: $id) { id number status total { amount currencyCode } payment { outcome decidedAt entry { id } } } }";
/// What the gateway makes of it: first this, of Order Service …
const OF_ORDERS: &str = "query($id:ID!){order(id:$id){__typename id number status total{amount currencyCode}}}";
/// … and then this, of Payments Service.
const OF_PAYMENTS: &str = "query($representations:[_Any!]!){_entities(representations:$representations){...on Order{payment{outcome decidedAt entry{id}}}}}";
/// The same through the gateway and of the plain subgraph.
const ONE_SERVICE: &str = "query Order($id: ID!) { order(id: $id) { id number status total { amount currencyCode } } }";
/// Concurrent clients of the second comparison.
const CLIENTS: usize = 32;
/// Orders that are asked for, each in its turn: more than one page of an index, few enough to stay in memory.
const ORDERS: usize = 2_000;

/// Measures.
///
/// # Errors
/// [`BenchError`].
pub async fn measure(bench: &mut Bench) -> Result<Vec<Figure>, BenchError> {
    let progress = Progress::new("6 federation");
    let stage = Stage::start(&bench.servers, "federation").await?;
    let orders = settled_orders(bench, &stage, &progress).await?;
    let authorization = stage.target(1)?.authorizations()?.remove(0);
    let asked = Arc::new(Asked {
        orders,
        authorization,
        public: stage.orders.address,
        orders_subgraph: stage.orders.subgraph,
        payments_subgraph: stage.payments.subgraph,
    });
    progress.step("one client, both services", Duration::ZERO);
    let rounds = if bench.options.quick { 500 } else { 5_000 };
    let cross = on_own_thread({
        let asked = Arc::clone(&asked);
        move || async move { asked.cross_service(rounds).await }
    })
    .await?;
    let (public, plain) = in_turns(bench, &asked, &progress).await?;
    stage.stop().await?;
    progress.done();
    let [gateway, of_orders, of_payments] =
        cross.map(|times| Duration::from_micros(times.value_at_percentile(50.0)).as_secs_f64() * 1e3);
    let parts = Yardstick {
        name: format!(
            "its subgraph queries, asked directly: orders ({of_orders:.2} ms), then payments ({of_payments:.2} ms), medians"
        ),
        value: of_orders + of_payments,
    };
    let subgraph = Yardstick { name: "the same query of the plain subgraph".to_owned(), value: plain };
    let rate = format!("order(id) through the public endpoint, {CLIENTS} clients");
    Ok(vec![
        Figure::new(6, "order and payment in one query, median", gateway, "ms", Some(parts), Bar::AtMostTimes(1.3)),
        Figure::new(6, rate, public, "queries/s", Some(subgraph), Bar::AtLeastTimes(0.7)),
    ])
}

/// Orders of one user, all PAID.
async fn settled_orders(bench: &Bench, stage: &Stage, progress: &Progress) -> Result<Vec<OrderId>, BenchError> {
    progress.step("orders", Duration::ZERO);
    let target = stage.target(1)?;
    open_accounts(&target, "1000000.00").await?;
    let measured = Duration::from_secs(if bench.options.quick { 1 } else { 3 });
    let load = Load { run: "federation", clients: 32, pace: Pace::Closed, warm_up: Duration::ZERO, measured };
    let mut accepted = load.run(target).await?.accepted;
    settle::wait_until_settled(stage, accepted.len()).await?;
    verify::accepted_are_settled(stage, &accepted).await?;
    accepted.truncate(ORDERS);
    Ok(accepted)
}

/// Queries per second of the public endpoint and of the plain subgraph, each twice for half the time.
async fn in_turns(bench: &Bench, asked: &Arc<Asked>, progress: &Progress) -> Result<(f64, f64), BenchError> {
    let (mut public, mut plain) = (0.0, 0.0);
    for turn in ["first turn", "second turn"] {
        for (what, address, rate) in
            [("public endpoint", asked.public, &mut public), ("subgraph", asked.orders_subgraph, &mut plain)]
        {
            let (warm_up, measured) = (Duration::from_secs(1), bench.options.measured() / 2);
            progress.step(format!("order(id), {what}, {turn}"), warm_up + measured);
            let asked = Arc::clone(asked);
            let per_second = on_own_thread(move || asked.closed_loop(address, warm_up, measured)).await?;
            *rate += per_second / 2.0;
        }
    }
    Ok((public, plain))
}

/// Of whom, as whom, and for what.
struct Asked {
    orders: Vec<OrderId>,
    authorization: HeaderValue,
    public: SocketAddr,
    orders_subgraph: SocketAddr,
    payments_subgraph: SocketAddr,
}

impl Asked {
    /// Times of the gateway's query and of its two parts, in this order, after a fifth of so many rounds more as a warm-up.
    async fn cross_service(&self, rounds: usize) -> Result<[Histogram<u64>; 3], BenchError> {
        let mut gateway = Connection::open(self.public).await?;
        let mut orders = Connection::open(self.orders_subgraph).await?;
        let mut payments = Connection::open(self.payments_subgraph).await?;
        let mut times = [histogram()?, histogram()?, histogram()?];
        for (round, order) in (0..rounds + rounds / 5).zip(self.orders.iter().cycle()) {
            let id = order.to_string();
            let representations = json!([{ "__typename": "Order", "id": id }]);
            let mut questions = [
                (0, &mut gateway, body(CROSS_SERVICE, &json!({ "id": id }))),
                (1, &mut orders, body(OF_ORDERS, &json!({ "id": id }))),
                (2, &mut payments, body(OF_PAYMENTS, &json!({ "representations": representations }))),
            ];
            // The first who asks for an order finds the processor's caches cold.
            questions.rotate_left(round % 3);
            let mut answers = [Value::Null, Value::Null, Value::Null];
            for (who, connection, question) in questions {
                let started = Instant::now();
                let answer = connection.post(&self.authorization, question).await?;
                let took = started.elapsed();
                answers[who] = serde_json::from_slice(&answer)?;
                if round >= rounds / 5 {
                    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
                    times[who].record(micros).map_err(BenchError::unexpected)?;
                }
            }
            compare(&id, answers)?;
        }
        Ok(times)
    }

    /// Queries that are answered per second.
    async fn closed_loop(self: Arc<Self>, address: SocketAddr, warm_up: Duration, measured: Duration) -> Result<f64, BenchError> {
        let connections = try_join_all((0..CLIENTS).map(|_| Connection::open(address))).await?;
        let counted = Instant::now() + warm_up;
        let client = async |(client, mut connection): (usize, Connection)| {
            let mut answered = 0_u64;
            for order in self.orders.iter().cycle().skip(client * self.orders.len() / CLIENTS) {
                let id = order.to_string();
                let answer = connection.post(&self.authorization, body(ONE_SERVICE, &json!({ "id": id }))).await?;
                let now = Instant::now();
                if now >= counted + measured {
                    break;
                }
                check(&id, &answer)?;
                answered += u64::from(now >= counted);
            }
            Ok::<_, BenchError>(answered)
        };
        let answered = try_join_all(connections.into_iter().enumerate().map(client)).await?;
        Ok(answered.into_iter().sum::<u64>() as f64 / measured.as_secs_f64())
    }
}

fn body(query: &str, variables: &Value) -> Vec<u8> {
    json!({ "query": query, "variables": variables }).to_string().into_bytes()
}

/// The parts, put together, are what the gateway answers: the order that was asked for, paid.
fn compare(id: &str, [gateway, mut orders, mut payments]: [Value; 3]) -> Result<(), BenchError> {
    let mut order = orders["data"]["order"].take();
    if let Some(order) = order.as_object_mut() {
        order.remove("__typename");
    }
    order["payment"] = payments["data"]["_entities"][0]["payment"].take();
    let paid = order["id"] == id
        && order["status"] == "PAID"
        && order["payment"]["outcome"] == "PAID"
        && order["payment"]["entry"]["id"].is_string();
    if paid && gateway == json!({ "data": { "order": order } }) {
        return Ok(());
    }
    Err(BenchError::Answer(format!("of {id} the gateway says {gateway}, the subgraphs {order}")))
}

/// The order that was asked for, paid. Read without being taken apart, because the generator shares the machine with what it measures.
fn check(id: &str, answer: &Bytes) -> Result<(), BenchError> {
    let text = std::str::from_utf8(answer).unwrap_or_default();
    let rest = text.strip_prefix(r#"{"data":{"order":{"id":""#).and_then(|rest| rest.strip_prefix(id));
    match rest {
        Some(rest) if rest.contains(r#""status":"PAID""#) && !rest.contains(r#""errors""#) => Ok(()),
        _ => Err(BenchError::Answer(String::from_utf8_lossy(answer).into_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_of_the_order_that_was_asked_for_and_paid() {
        let answer = |id: &str, status: &str| {
            Bytes::from(format!(r#"{{"data":{{"order":{{"id":"{id}","number":"1","status":"{status}"}}}}}}"#))
        };
        assert!(check("order_1", &answer("order_1", "PAID")).is_ok());
        assert!(check("order_1", &answer("order_2", "PAID")).is_err());
        assert!(check("order_1", &answer("order_1", "PENDING")).is_err());
        assert!(check("order_1", &Bytes::from_static(br#"{"data":{"order":null}}"#)).is_err());
    }

    #[test]
    fn the_gateway_must_say_what_the_subgraphs_say() {
        let orders = json!({ "data": { "order": { "__typename": "Order", "id": "order_1", "status": "PAID" } } });
        let payment = json!({ "outcome": "PAID", "entry": { "id": "entry_1" } });
        let payments = json!({ "data": { "_entities": [{ "payment": payment }] } });
        let gateway = json!({ "data": { "order": { "id": "order_1", "status": "PAID", "payment": payment } } });
        assert!(compare("order_1", [gateway.clone(), orders.clone(), payments.clone()]).is_ok());
        assert!(compare("order_2", [gateway.clone(), orders.clone(), payments]).is_err());
        assert!(compare("order_1", [gateway, orders, json!({ "data": { "_entities": [null] } })]).is_err());
    }
}

//! A load balancer as simple as they come: each connection goes to one healthy replica and stays there.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::sleep,
};

use crate::replica::health;

/// Between two looks at a replica's health.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Runs until it is dropped.
pub struct Balancer {
    pub address: SocketAddr,
    _tasks: JoinSet<()>,
}

struct Backend {
    address: SocketAddr,
    healthy: AtomicBool,
}

impl Balancer {
    /// Over replicas that are ready now.
    pub async fn start(addresses: impl IntoIterator<Item = SocketAddr>) -> Self {
        let backends: Arc<[Backend]> =
            addresses.into_iter().map(|address| Backend { address, healthy: AtomicBool::new(true) }).collect();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&backends)));
        for number in 0..backends.len() {
            let backends = Arc::clone(&backends);
            tasks.spawn(async move {
                let backend = &backends[number];
                loop {
                    let status = health(&format!("http://{}", backend.address)).await.map(|(status, _)| status);
                    backend.healthy.store(status == Some(200), Ordering::Relaxed);
                    sleep(LOOK_EVERY).await;
                }
            });
        }
        Self { address, _tasks: tasks }
    }

    /// `http://host:port`.
    pub fn base(&self) -> String {
        format!("http://{}", self.address)
    }
}

async fn accept(listener: TcpListener, backends: Arc<[Backend]>) {
    let turn = AtomicUsize::new(0);
    let mut connections = JoinSet::new();
    loop {
        let (client, _) = listener.accept().await.unwrap();
        let first = turn.fetch_add(1, Ordering::Relaxed);
        connections.spawn(forward(client, Arc::clone(&backends), first));
        while connections.try_join_next().is_some() {}
    }
}

/// To the first healthy replica that takes the connection; without one the client is disconnected.
async fn forward(mut client: TcpStream, backends: Arc<[Backend]>, first: usize) {
    for backend in backends.iter().cycle().skip(first % backends.len()).take(backends.len()) {
        if !backend.healthy.load(Ordering::Relaxed) {
            continue;
        }
        let Ok(mut server) = TcpStream::connect(backend.address).await else { continue };
        client.set_nodelay(true).unwrap();
        server.set_nodelay(true).unwrap();
        // Whoever ends it, both ends learn of it.
        let _ = copy_bidirectional(&mut client, &mut server).await;
        return;
    }
}

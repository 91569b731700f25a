//! Web pages stay away from a server on the reader's own machine, unless they are the reader's own.

use serde_json::json;
use tokio_tungstenite::tungstenite::Error;

use crate::support::{Socket, System};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_for_another_host_is_refused_wherever_there_is_data_or_a_token() {
    let Some(system) = System::start().await else { return };
    let http = reqwest::Client::new();
    // Health is for probes, which call by whatever name they have, and tells nothing of anybody.
    for path in ["", "graphql", "graphiql", "schema.graphql"] {
        let url = format!("http://{}/{path}", system.address());
        for host in ["evil.example", "localhost.evil.example", "192.168.1.7:8000"] {
            let response = http.get(&url).header("host", host).send().await.unwrap();
            assert_eq!(response.status().as_u16(), 421, "{host}/{path}");
            let body = response.text().await.unwrap();
            assert!(!body.contains("eyJ"), "no token in the refusal: {body}");
        }
        let status = http.get(&url).header("host", "localhost:8000").send().await.unwrap().status();
        assert_ne!(status.as_u16(), 421, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_from_elsewhere_cannot_open_a_socket() {
    let Some(system) = System::start().await else { return };
    for origin in ["https://evil.example", "http://localhost.evil.example", "null"] {
        match Socket::try_connect(system.address(), Some(origin), None).await {
            Err(Error::Http(response)) => assert_eq!(response.status().as_u16(), 403, "{origin}"),
            other => panic!("{origin}: {:?}", other.err()),
        }
    }
    let own = format!("http://{}", system.address());
    for origin in ["http://localhost:5173", "http://127.0.0.1:3000", &own] {
        let mut socket = Socket::try_connect(system.address(), Some(origin), None).await.unwrap();
        socket.init(&system.user("ada").token).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_this_machine_may_call_and_others_get_no_permission() {
    let Some(system) = System::start().await else { return };
    let ada = system.user("ada");
    let http = reqwest::Client::new();
    let allowed = async |method: reqwest::Method, origin: &str| {
        let request = http.request(method, system.url()).header("origin", origin).bearer_auth(&ada.token);
        let request = request
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization,content-type");
        let response = request.json(&json!({ "query": "{ me { id } }" })).send().await.unwrap();
        response.headers().get("access-control-allow-origin").map(|value| value.to_str().unwrap().to_owned())
    };
    for method in [reqwest::Method::OPTIONS, reqwest::Method::POST] {
        for origin in ["http://localhost:5173", "http://127.0.0.1:4000"] {
            assert_eq!(allowed(method.clone(), origin).await.as_deref(), Some(origin), "{method}");
        }
        assert_eq!(allowed(method.clone(), "https://evil.example").await, None, "{method}");
    }
}

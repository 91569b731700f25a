//! A broker of one test, which may kill it.

use std::path::PathBuf;
use std::time::Duration;

use messaging::kafka::KafkaOptions;
use tokio::process::Command;

use super::{options, unique};

/// For starting a broker on a machine that is busy with other tests.
const START_PATIENCE: Duration = Duration::from_secs(90);

const DELIVERY_TIMEOUT: Duration = Duration::from_secs(10);

/// A broker of one test, gone afterwards.
pub(super) struct OwnBroker {
    name: String,
    pub(super) options: KafkaOptions,
}

impl OwnBroker {
    /// `None` where no broker is wanted at all.
    pub(super) async fn start() -> Option<Self> {
        options()?;
        let name = unique("test");
        let address = script("start", &name).await;
        let options = KafkaOptions { delivery_timeout: DELIVERY_TIMEOUT, ..KafkaOptions::new(address.trim()) };
        Some(Self { name, options })
    }

    /// Its address with TLS, and the file of the certificate to trust.
    #[cfg(feature = "kafka-tls")]
    pub(super) async fn secure(&self) -> (String, String) {
        let answer = script("secure", &self.name).await;
        let (address, certificate) = answer.trim().split_once(' ').unwrap();
        (address.to_owned(), certificate.to_owned())
    }

    pub(super) async fn run(&self, command: &str) {
        script(command, &self.name).await;
    }
}

impl Drop for OwnBroker {
    fn drop(&mut self) {
        let removed = std::process::Command::new(path()).args(["remove", &self.name]).status();
        assert!(removed.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../scripts/test-kafka")
}

async fn script(command: &str, name: &str) -> String {
    let running = Command::new(path()).args([command, name]).output();
    let output = tokio::time::timeout(START_PATIENCE, running).await.unwrap().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

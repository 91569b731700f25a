//! Public keys from a file or a URL (RFC 7517).
//!
//! They are read at the start, again when a token names a key that is not known (at most every
//! [`REFRESH_GAP`]), and when they are older than [`MAX_AGE`], so that withdrawn keys go. A refresh
//! that fails leaves the old keys in use.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// The shortest time between two reads: tokens with invented key ids must not turn into requests.
const REFRESH_GAP: Duration = Duration::from_secs(10);

/// How old keys may become before they are read again in the background.
const MAX_AGE: Duration = Duration::from_secs(10 * 60);

/// How long a read may take. Callers with an unknown key wait for it.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// A set is some kilobytes; more is no key set.
const MAX_BYTES: usize = 256 * 1024;

/// Keys used of one set. Without a key id in the token each is tried.
const MAX_KEYS: usize = 32;

/// Where the keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JwksSource {
    /// A file.
    File(PathBuf),
    /// An `http://` or `https://` URL.
    Url(String),
}

impl FromStr for JwksSource {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_url = text.starts_with("http://") || text.starts_with("https://");
        Ok(if is_url { Self::Url(text.to_owned()) } else { Self::File(PathBuf::from(text)) })
    }
}

impl fmt::Display for JwksSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Url(url) => f.write_str(url),
        }
    }
}

/// Why keys could not be read.
#[derive(Debug, thiserror::Error)]
pub enum JwksError {
    /// The file.
    #[error("the key set {source_name} cannot be read: {source}")]
    File {
        /// Where it should be.
        source_name: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// The URL.
    #[error("the key set {source_name} cannot be fetched: {source}")]
    Fetch {
        /// Where it should be.
        source_name: String,
        /// What the client says.
        source: reqwest::Error,
    },
    /// What was read.
    #[error("{source_name} is no usable key set: {reason}")]
    Content {
        /// Where it is.
        source_name: String,
        /// What is wrong.
        reason: String,
    },
}

/// The keys of one source.
pub struct Jwks {
    source: JwksSource,
    client: reqwest::Client,
    keys: RwLock<Arc<Vec<PublicKey>>>,
    /// When the source was last tried; `None` before the first time. Held during a read, so that
    /// there is one at a time.
    last_read: Mutex<Option<Instant>>,
    stale_after: RwLock<Instant>,
}

pub(super) struct PublicKey {
    pub(super) id: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
}

impl Jwks {
    /// Reads the keys for the first time. An unreachable URL is no error, because a service may start
    /// before its identity provider: tokens are refused as unverifiable until it answers.
    ///
    /// # Errors
    ///
    /// A file that cannot be read or used.
    pub async fn load(source: JwksSource) -> Result<Arc<Self>, JwksError> {
        crate::install_tls_provider();
        let client = reqwest::Client::builder()
            .timeout(READ_TIMEOUT)
            // Keys come from where the operator said, not from where that place says.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|source_error| JwksError::Fetch { source_name: source.to_string(), source: source_error })?;
        let jwks = Arc::new(Self {
            source,
            client,
            keys: RwLock::default(),
            last_read: Mutex::new(None),
            stale_after: RwLock::new(Instant::now() + MAX_AGE),
        });
        match jwks.read_now().await {
            Err(error) if matches!(jwks.source, JwksSource::File(_)) => return Err(error),
            Err(error) => tracing::warn!(%error, "starting without keys"),
            Ok(()) => {}
        }
        Ok(jwks)
    }

    /// The current keys; empty while none could be read. Starts a refresh when they are old.
    pub(super) fn keys(self: &Arc<Self>) -> Arc<Vec<PublicKey>> {
        if Instant::now() >= *self.stale_after.read().unwrap_or_else(PoisonError::into_inner) {
            // The next one to notice comes a gap later.
            *self.stale_after.write().unwrap_or_else(PoisonError::into_inner) = Instant::now() + REFRESH_GAP;
            self.start_refresh();
        }
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the keys again, unless that was tried less than [`REFRESH_GAP`] ago. Whoever comes during
    /// a read waits for it. A caller that goes away does not end the read: it would count as one all the same.
    pub(super) async fn refresh(self: &Arc<Self>) {
        // It only fails when it panics or the runtime ends.
        let _ = self.start_refresh().await;
    }

    fn start_refresh(self: &Arc<Self>) -> JoinHandle<()> {
        let jwks = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(error) = jwks.read_now().await {
                tracing::warn!(%error, "keeping the old keys");
            }
        })
    }

    async fn read_now(&self) -> Result<(), JwksError> {
        let mut last_read = self.last_read.lock().await;
        if last_read.is_some_and(|at| at.elapsed() < REFRESH_GAP) {
            return Ok(());
        }
        *last_read = Some(Instant::now());
        let keys = parse(&self.source, &self.read().await?)?;
        tracing::info!(source = %self.source, keys = keys.len(), "read the key set");
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
        *self.stale_after.write().unwrap_or_else(PoisonError::into_inner) = Instant::now() + MAX_AGE;
        Ok(())
    }

    async fn read(&self) -> Result<Vec<u8>, JwksError> {
        let source_name = self.source.to_string();
        match &self.source {
            JwksSource::File(path) => tokio::fs::read(path).await.map_err(|source| JwksError::File { source_name, source }),
            JwksSource::Url(url) => fetch(&self.client, url)
                .await
                .map_err(|source| JwksError::Fetch { source_name: source_name.clone(), source })?
                .ok_or(JwksError::Content { source_name, reason: format!("more than {MAX_BYTES} bytes") }),
        }
    }
}

impl fmt::Debug for Jwks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Jwks({})", self.source)
    }
}

/// `None`: too long.
async fn fetch(client: &reqwest::Client, url: &str) -> Result<Option<Vec<u8>>, reqwest::Error> {
    let mut response = client.get(url).send().await?.error_for_status()?;
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_BYTES {
            return Ok(None);
        }
    }
    Ok(Some(body))
}

fn parse(source: &JwksSource, body: &[u8]) -> Result<Vec<PublicKey>, JwksError> {
    let content = |reason: String| JwksError::Content { source_name: source.to_string(), reason };
    if body.len() > MAX_BYTES {
        return Err(content(format!("more than {MAX_BYTES} bytes")));
    }
    let set: JwkSet = serde_json::from_slice(body).map_err(|error| content(error.to_string()))?;
    let keys: Vec<_> = set.keys.iter().filter_map(public_key).take(MAX_KEYS).collect();
    if keys.is_empty() {
        return Err(content("it has no public key for RS256, ES256 or EdDSA".to_owned()));
    }
    Ok(keys)
}

/// The key with the one algorithm it may verify, by its type. `None` for keys of no use here:
/// symmetric ones (a published secret is none), for encryption, of another curve or algorithm.
fn public_key(jwk: &Jwk) -> Option<PublicKey> {
    if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
        return None;
    }
    let (algorithm, name) = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => (Algorithm::RS256, KeyAlgorithm::RS256),
        AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P256 => (Algorithm::ES256, KeyAlgorithm::ES256),
        AlgorithmParameters::OctetKeyPair(okp) if okp.curve == EllipticCurve::Ed25519 => (Algorithm::EdDSA, KeyAlgorithm::EdDSA),
        _ => return None,
    };
    if jwk.common.key_algorithm.is_some_and(|own| own != name) {
        return None;
    }
    let key = DecodingKey::from_jwk(jwk).ok()?;
    Some(PublicKey { id: jwk.common.key_id.clone(), algorithm, key })
}

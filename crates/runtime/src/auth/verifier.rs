//! Verifying tokens.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, header};
use jsonwebtoken::{Algorithm, DecodingKey, TokenData, Validation};
use moka::Expiry;
use moka::sync::Cache;
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::jwks::Jwks;
use super::secret::Secret;
use super::{Identity, LEEWAY, TOKEN_MAX_BYTES, TokenError, is_subject};

/// Verified tokens remembered: a signature costs up to some 200 µs, a look-up less than one. Each
/// entry takes some 200 bytes.
const CACHE_ENTRIES: u64 = 10_000;

/// How long a verified token is remembered at most. A key that was withdrawn stops working after
/// this time at the latest.
const CACHE_TIME_MAX: Duration = Duration::from_secs(5 * 60);

/// Scopes of a token that are looked at.
const SCOPES_MAX: usize = 64;

/// Verifies tokens against the service's secrets and public keys. Cheap to clone.
#[derive(Clone)]
pub struct TokenVerifier {
    inner: Arc<Inner>,
}

struct Inner {
    secrets: Vec<DecodingKey>,
    jwks: Option<Arc<Jwks>>,
    audience: Option<String>,
    issuer: Option<String>,
    verified: Cache<[u8; 32], Arc<Identity>>,
}

impl TokenVerifier {
    /// With secrets for HS256 and, or, public keys. With neither, every token is
    /// [`TokenError::UnknownKey`].
    pub fn new(secrets: &[Secret], jwks: Option<Arc<Jwks>>) -> Self {
        Self::requiring(secrets, jwks, None, None)
    }

    /// As [`TokenVerifier::new`], and `aud` must contain `audience`, `iss` must be `issuer`. To be used
    /// when the keys belong to an identity provider that also signs tokens for other services.
    pub fn requiring(secrets: &[Secret], jwks: Option<Arc<Jwks>>, audience: Option<String>, issuer: Option<String>) -> Self {
        let verified = Cache::builder().max_capacity(CACHE_ENTRIES).expire_after(WithTheToken).build();
        let secrets = secrets.iter().map(|secret| DecodingKey::from_secret(secret.as_bytes())).collect();
        Self { inner: Arc::new(Inner { secrets, jwks, audience, issuer, verified }) }
    }

    /// The identity in the `Authorization` header; `None` when there is no such header.
    ///
    /// # Errors
    ///
    /// A header that is there and not good: a client that sends a token wants to be told.
    pub async fn from_headers(&self, headers: &HeaderMap) -> Result<Option<Identity>, TokenError> {
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let Some(value) = values.next() else {
            return Ok(None);
        };
        if values.next().is_some() {
            return Err(TokenError::NotBearer);
        }
        let value = value.to_str().map_err(|_| TokenError::NotBearer)?;
        self.verify_authorization(value).await.map(Some)
    }

    /// The identity of an `Authorization` value, `Bearer <token>` (the scheme in any case), wherever it
    /// was sent: a header, or the payload of `connection_init`.
    ///
    /// # Errors
    ///
    /// As [`TokenVerifier::verify`], and [`TokenError::NotBearer`].
    pub async fn verify_authorization(&self, value: &str) -> Result<Identity, TokenError> {
        let (scheme, token) = value.trim().split_once(' ').ok_or(TokenError::NotBearer)?;
        if !scheme.eq_ignore_ascii_case("Bearer") {
            return Err(TokenError::NotBearer);
        }
        self.verify(token.trim_start()).await
    }

    /// The identity of a token, without the word `Bearer`.
    ///
    /// # Errors
    ///
    /// Why it is not accepted.
    pub async fn verify(&self, bearer: &str) -> Result<Identity, TokenError> {
        if bearer.len() > TOKEN_MAX_BYTES {
            return Err(TokenError::Malformed);
        }
        let digest: [u8; 32] = Sha256::digest(bearer).into();
        if let Some(identity) = self.inner.verified.get(&digest)
            && identity.expires_at > SystemTime::now()
        {
            return Ok(Identity::clone(&identity));
        }
        let identity = self.inner.verify(bearer).await?;
        self.inner.verified.insert(digest, Arc::new(identity.clone()));
        Ok(identity)
    }
}

impl std::fmt::Debug for TokenVerifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenVerifier")
            .field("secrets", &self.inner.secrets.len())
            .field("jwks", &self.inner.jwks)
            .finish_non_exhaustive()
    }
}

impl Inner {
    async fn verify(&self, token: &str) -> Result<Identity, TokenError> {
        // An unknown `alg`, `none` included, fails to parse here.
        let header = jsonwebtoken::decode_header(token).map_err(|_| header_error(token))?;
        let claims = match header.alg {
            Algorithm::HS256 => self.verify_with(self.secrets.iter(), Algorithm::HS256, token)?,
            Algorithm::RS256 | Algorithm::ES256 | Algorithm::EdDSA => {
                self.verify_public(header.alg, header.kid.as_deref(), token).await?
            }
            _ => return Err(TokenError::UnsupportedAlgorithm),
        };
        claims.into_identity()
    }

    async fn verify_public(&self, algorithm: Algorithm, id: Option<&str>, token: &str) -> Result<Claims, TokenError> {
        let jwks = self.jwks.as_ref().ok_or(TokenError::UnknownKey)?;
        let mut keys = jwks.keys();
        let fits = |key: &super::jwks::PublicKey| {
            key.algorithm == algorithm && (id.is_none() || key.id.is_none() || key.id.as_deref() == id)
        };
        if !keys.iter().any(fits) {
            jwks.refresh().await;
            keys = jwks.keys();
        }
        if keys.is_empty() {
            return Err(TokenError::KeysUnavailable);
        }
        self.verify_with(keys.iter().filter(|key| fits(key)).map(|key| &key.key), algorithm, token)
    }

    /// Verifies with the first key that fits. Every key has been chosen for this one algorithm, and
    /// the token's own `alg` must be the same: a public key is never used as a secret.
    fn verify_with<'k>(
        &self,
        keys: impl Iterator<Item = &'k DecodingKey>,
        algorithm: Algorithm,
        token: &str,
    ) -> Result<Claims, TokenError> {
        let validation = self.validation(algorithm);
        let mut error = TokenError::UnknownKey;
        for key in keys {
            match jsonwebtoken::decode(token, key, &validation) {
                Ok(TokenData { claims, .. }) => return Ok(claims),
                Err(found) => match found.into() {
                    TokenError::BadSignature => error = TokenError::BadSignature,
                    // The signature fits, or no key will help.
                    other => return Err(other),
                },
            }
        }
        Err(error)
    }

    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.leeway = LEEWAY.as_secs();
        validation.validate_nbf = true;
        let mut required = vec!["exp", "sub"];
        match &self.audience {
            Some(audience) => {
                validation.set_audience(&[audience]);
                required.push("aud");
            }
            None => validation.validate_aud = false,
        }
        if let Some(issuer) = &self.issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        validation.set_required_spec_claims(&required);
        validation
    }
}

/// Tells a token whose algorithm is none of ours from a text that is no token.
fn header_error(token: &str) -> TokenError {
    use base64::Engine;
    let header = token.split('.').next().unwrap_or_default();
    let header = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(header);
    let header = header.ok().and_then(|header| serde_json::from_slice::<Value>(&header).ok());
    match header.as_ref().and_then(|header| header.get("alg")) {
        Some(Value::String(_)) if token.split('.').count() == 3 => TokenError::UnsupportedAlgorithm,
        _ => TokenError::Malformed,
    }
}

#[derive(Deserialize)]
struct Claims {
    // As values, so that a wrong type is reported as such and not as a malformed token.
    #[serde(default)]
    sub: Value,
    /// A number of seconds, possibly with a fraction (RFC 7519).
    #[serde(default)]
    exp: Value,
    #[serde(default)]
    scope: Value,
    #[serde(default)]
    scopes: Value,
    #[serde(default)]
    scp: Value,
}

impl Claims {
    fn into_identity(self) -> Result<Identity, TokenError> {
        let Value::String(subject) = self.sub else {
            return Err(TokenError::InvalidClaim("sub"));
        };
        if !is_subject(&subject) {
            return Err(TokenError::InvalidClaim("sub"));
        }
        let expires_at = self
            .exp
            .as_f64()
            .and_then(|seconds| Duration::try_from_secs_f64(seconds.trunc()).ok())
            .and_then(|after| UNIX_EPOCH.checked_add(after))
            .ok_or(TokenError::InvalidClaim("exp"))?;
        let mut scopes: Vec<String> = Vec::new();
        for scope in [&self.scope, &self.scopes, &self.scp].into_iter().flat_map(words) {
            if scopes.len() < SCOPES_MAX && !scopes.iter().any(|known| known == scope) {
                scopes.push(scope.to_owned());
            }
        }
        Ok(Identity { subject, scopes, expires_at })
    }
}

/// Issuers write scopes as one string with spaces or as an array.
fn words(value: &Value) -> Box<dyn Iterator<Item = &str> + '_> {
    match value {
        Value::String(text) => Box::new(text.split_whitespace()),
        Value::Array(items) => Box::new(items.iter().filter_map(Value::as_str)),
        _ => Box::new(std::iter::empty()),
    }
}

/// A remembered token is forgotten when it expires.
struct WithTheToken;

impl Expiry<[u8; 32], Arc<Identity>> for WithTheToken {
    fn expire_after_create(&self, _: &[u8; 32], identity: &Arc<Identity>, _: std::time::Instant) -> Option<Duration> {
        let left = identity.expires_at.duration_since(SystemTime::now()).unwrap_or_default();
        Some(left.min(CACHE_TIME_MAX))
    }
}

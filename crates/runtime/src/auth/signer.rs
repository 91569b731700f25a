//! Signing tokens, for the embedded mode and for tests: HS256 with the first secret.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;

use super::secret::Secret;
use super::{TokenError, is_subject};

/// Signs tokens that a [`super::TokenVerifier`] with the same secret accepts.
#[derive(Clone)]
pub struct TokenSigner {
    key: EncodingKey,
    audience: Option<String>,
    issuer: Option<String>,
}

#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    iat: u64,
    exp: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    scope: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
}

impl TokenSigner {
    /// Signs with this secret.
    pub fn new(secret: &Secret) -> Self {
        Self { key: EncodingKey::from_secret(secret.as_bytes()), audience: None, issuer: None }
    }

    /// Tokens also say for whom and by whom they are, for a verifier that requires it.
    #[must_use]
    pub fn naming(self, audience: Option<String>, issuer: Option<String>) -> Self {
        Self { audience, issuer, ..self }
    }

    /// A token for `subject` that expires after `ttl` (whole seconds).
    ///
    /// # Errors
    ///
    /// [`TokenError::InvalidClaim`] when the subject is not 1 to 255 visible characters, a scope is
    /// empty or contains white space, or the expiry is beyond what can be written.
    pub fn sign<S: AsRef<str>>(&self, subject: &str, scopes: &[S], ttl: Duration) -> Result<String, TokenError> {
        if !is_subject(subject) {
            return Err(TokenError::InvalidClaim("sub"));
        }
        let scopes: Vec<&str> = scopes.iter().map(AsRef::as_ref).collect();
        if scopes.iter().any(|scope| scope.is_empty() || scope.contains(char::is_whitespace)) {
            return Err(TokenError::InvalidClaim("scope"));
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let exp = now.checked_add(ttl.as_secs()).filter(|exp| i64::try_from(*exp).is_ok());
        let claims = Claims {
            sub: subject,
            iat: now,
            exp: exp.ok_or(TokenError::InvalidClaim("exp"))?,
            scope: scopes.join(" "),
            aud: self.audience.as_deref(),
            iss: self.issuer.as_deref(),
        };
        Ok(jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.key)?)
    }
}

impl std::fmt::Debug for TokenSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenSigner(…)")
    }
}

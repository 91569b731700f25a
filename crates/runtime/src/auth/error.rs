//! Why a token was refused, for the client and for the log.

use http::{HeaderValue, StatusCode};
use jsonwebtoken::errors::ErrorKind;

/// Why a token was not accepted. The texts may be shown to the client: they say nothing of keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// There is an `Authorization`, but not of the form `Bearer <token>`.
    #[error("the Authorization header must be: Bearer <token>")]
    NotBearer,
    /// No JSON Web Token at all, or one that is too long.
    #[error("the token is malformed")]
    Malformed,
    /// Anything but HS256, RS256, ES256 and EdDSA.
    #[error("the token's algorithm is not supported")]
    UnsupportedAlgorithm,
    /// Nothing here can verify it: no key of its algorithm, or none with its key id.
    #[error("the token is signed with an unknown key")]
    UnknownKey,
    /// The signature does not fit the content.
    #[error("the token's signature is wrong")]
    BadSignature,
    /// `exp` has passed.
    #[error("the token has expired")]
    Expired,
    /// `nbf` has not been reached.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// A claim is missing or not as required.
    #[error("the token's claim {0:?} is missing or invalid")]
    InvalidClaim(&'static str),
    /// The keys could not be loaded so far; the token may be good.
    #[error("tokens cannot be verified at the moment")]
    KeysUnavailable,
}

impl TokenError {
    /// 401, or 503 when it is not the token's fault.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::KeysUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::UNAUTHORIZED,
        }
    }

    /// The value of `WWW-Authenticate` for this error (RFC 6750, section 3).
    pub fn www_authenticate(&self) -> HeaderValue {
        let code = match self {
            Self::NotBearer => "invalid_request",
            _ => "invalid_token",
        };
        // The texts contain quotation marks only around claims.
        let description = self.to_string().replace('"', "'");
        let value = format!("Bearer error=\"{code}\", error_description=\"{description}\"");
        HeaderValue::try_from(value).unwrap_or(HeaderValue::from_static("Bearer"))
    }
}

impl From<jsonwebtoken::errors::Error> for TokenError {
    fn from(error: jsonwebtoken::errors::Error) -> Self {
        match error.kind() {
            ErrorKind::ExpiredSignature => Self::Expired,
            ErrorKind::ImmatureSignature => Self::NotYetValid,
            ErrorKind::InvalidSignature => Self::BadSignature,
            ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName | ErrorKind::UnsupportedAlgorithm => {
                Self::UnsupportedAlgorithm
            }
            ErrorKind::InvalidIssuer => Self::InvalidClaim("iss"),
            ErrorKind::InvalidAudience => Self::InvalidClaim("aud"),
            ErrorKind::InvalidSubject => Self::InvalidClaim("sub"),
            ErrorKind::MissingRequiredClaim(name) | ErrorKind::InvalidClaimFormat(name) => Self::InvalidClaim(known_claim(name)),
            _ => Self::Malformed,
        }
    }
}

fn known_claim(name: &str) -> &'static str {
    ["exp", "nbf", "iss", "aud"].into_iter().find(|known| *known == name).unwrap_or("sub")
}

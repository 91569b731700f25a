//! JSON Web Tokens: who is calling, and what they may do.
//!
//! What holds:
//!
//! - A key verifies only the algorithm it is for. Secrets verify HS256; public keys verify RS256,
//!   ES256 or EdDSA by their own type. Nothing else is accepted, `none` least of all.
//! - `exp` and `sub` are required, `nbf` is respected, with [`LEEWAY`] for clocks that differ.
//! - Several secrets may be valid (rotation): the first signs, all verify.
//! - Keys from a URL are refreshed in bounds, and the old ones stay while the URL is down.

mod error;
mod jwks;
mod secret;
mod signer;
mod verifier;

use std::time::{Duration, SystemTime};

pub use error::TokenError;
pub use jwks::{Jwks, JwksError, JwksSource};
pub use secret::{Secret, SecretFileError, WeakSecret};
pub use signer::TokenSigner;
pub use verifier::TokenVerifier;

/// The scope of operators.
pub const ADMIN_SCOPE: &str = "admin";

/// How far the clocks of the issuer and of this machine may differ. Synchronized clocks differ by
/// milliseconds; an expired token must not live noticeably longer.
pub const LEEWAY: Duration = Duration::from_secs(5);

/// The longest accepted token. Real ones have some 300 to 2,000 bytes; headers are bounded anyway.
pub const TOKEN_MAX_BYTES: usize = 8 * 1024;

/// The longest subject in characters.
pub const SUBJECT_MAX_CHARS: usize = 255;

/// Whom a verified token stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The user: 1 to 255 visible characters.
    pub subject: String,
    /// What the token allows.
    pub scopes: Vec<String>,
    /// When the token ends, and with it everything that was opened with it.
    pub expires_at: SystemTime,
}

impl Identity {
    /// Whether the scopes contain `scope`.
    pub fn has_scope(&self, scope: &str) -> bool {
        self.scopes.iter().any(|own| own == scope)
    }

    /// Whether it is an operator's.
    pub fn is_admin(&self) -> bool {
        self.has_scope(ADMIN_SCOPE)
    }
}

/// 1 to 255 characters, all of them visible: a subject is compared, logged and shown.
fn is_subject(text: &str) -> bool {
    let mut chars = 0;
    for c in text.chars() {
        chars += 1;
        if chars > SUBJECT_MAX_CHARS || c.is_control() || c.is_whitespace() {
            return false;
        }
    }
    chars > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_are_visible_and_bounded() {
        for good in ["a", "auth0|5f7c", "jörg@example.com", &"x".repeat(255), &"ü".repeat(255)] {
            assert!(is_subject(good), "{good}");
        }
        for bad in ["", " ", "a b", "a\n", "a\0", "\u{a0}", &"x".repeat(256)] {
            assert!(!is_subject(bad), "{bad:?}");
        }
    }
}

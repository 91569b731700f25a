//! How the repetition of a mutation is recognized.
//!
//! The client's key and a hash of what was asked for under it stand on the row of the effect: the account, or the ledger entry. So they are
//! there exactly when the effect is, and never expire.

use schema::graphql::IdempotencyKey;
use sha2::{Digest as _, Sha256};

/// An idempotency key together with the hash of what was asked for under it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyedRequest {
    key: String,
    hash: [u8; 32],
}

/// What a stored row says about a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repetition {
    /// The row was not made under this key.
    Unrelated,
    /// The row is the effect of this very request.
    Same,
    /// The row was made under this key for other arguments.
    KeyReused,
}

impl KeyedRequest {
    /// `arguments` are the coerced arguments in a fixed order: amounts in minor units, so that `12.5` and `12.50` are the same request.
    pub fn new(key: &IdempotencyKey, mutation: &str, arguments: &[&str]) -> Self {
        let mut hash = Sha256::new();
        for part in [mutation].iter().chain(arguments) {
            // With the length in front no two lists of arguments look the same.
            hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(part.as_bytes());
        }
        Self { key: key.as_str().to_owned(), hash: hash.finalize().into() }
    }

    /// The key as the client sent it.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// SHA-256 of the arguments.
    pub fn hash(&self) -> &[u8] {
        &self.hash
    }

    /// Compares with what stands on a row.
    pub fn compare(&self, stored_key: Option<&str>, stored_hash: Option<&[u8]>) -> Repetition {
        if stored_key != Some(self.key()) {
            Repetition::Unrelated
        } else if stored_hash == Some(self.hash()) {
            Repetition::Same
        } else {
            Repetition::KeyReused
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(mutation: &str, arguments: &[&str]) -> KeyedRequest {
        let key = IdempotencyKey::parse(Some("k".to_owned())).unwrap().unwrap();
        KeyedRequest::new(&key, mutation, arguments)
    }

    #[test]
    fn arguments_that_run_together_are_not_the_same_request() {
        let stored = request("topUpAccount", &["12", "3EUR"]);
        let compare = |other: KeyedRequest| other.compare(Some(stored.key()), Some(stored.hash()));
        assert_eq!(compare(request("topUpAccount", &["12", "3EUR"])), Repetition::Same);
        assert_eq!(compare(request("topUpAccount", &["123", "EUR"])), Repetition::KeyReused);
        assert_eq!(compare(request("topUpAccount", &["12", "3EUR", ""])), Repetition::KeyReused);
        assert_eq!(stored.compare(None, None), Repetition::Unrelated);
        assert_eq!(stored.compare(Some("other"), Some(stored.hash())), Repetition::Unrelated);
    }
}

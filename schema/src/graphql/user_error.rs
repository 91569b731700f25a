//! Refusals that a caller could foresee: values of a mutation's payload, not GraphQL errors.

use async_graphql::{Enum, SimpleObject};

/// Longest idempotency key, in characters.
pub const MAX_IDEMPOTENCY_KEY_CHARS: usize = 255;

/// A refusal that the caller could foresee.
#[derive(Debug, Clone, PartialEq, Eq, SimpleObject)]
#[graphql(shareable)]
pub struct UserError {
    /// What a program branches on; treat an unknown code as "other".
    pub code: UserErrorCode,
    /// What a person reads.
    pub message: String,
    /// The path in the input, for example ["total", "amount"].
    pub field: Option<Vec<String>>,
}

impl UserError {
    /// A refusal of the input field at `field`.
    pub fn new(code: UserErrorCode, message: impl Into<String>, field: &[&str]) -> Self {
        let field = Some(field.iter().map(|&part| part.to_owned()).collect());
        Self { code, message: message.into(), field }
    }
}

/// Why a mutation was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Enum)]
pub enum UserErrorCode {
    /// The user has an account already.
    AccountAlreadyExists,
    /// The user has no account yet.
    AccountNotFound,
    /// The amount is zero or negative.
    AmountNotPositive,
    /// The amount, or the balance that it would lead to, is above the limit.
    AmountTooLarge,
    /// The amount has more decimals than its currency.
    AmountTooPrecise,
    /// The account is held in another currency.
    CurrencyMismatch,
    /// The description has no visible character.
    DescriptionBlank,
    /// The description is longer than allowed.
    DescriptionTooLong,
    /// The key is empty, too long or has invisible characters.
    IdempotencyKeyInvalid,
    /// The key was used before with other arguments.
    IdempotencyKeyReused,
}

/// A valid idempotency key: 1 to [`MAX_IDEMPOTENCY_KEY_CHARS`] visible characters (no white space, no control characters).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// Checks the key; `None` stays `None`.
    pub fn parse(key: Option<String>) -> Result<Option<Self>, UserError> {
        let Some(key) = key else { return Ok(None) };
        let visible = |c: char| !c.is_whitespace() && !c.is_control();
        let chars = key.chars().take(MAX_IDEMPOTENCY_KEY_CHARS + 1).count();
        if (1..=MAX_IDEMPOTENCY_KEY_CHARS).contains(&chars) && key.chars().all(visible) {
            return Ok(Some(Self(key)));
        }
        let message = format!("an idempotency key has 1 to {MAX_IDEMPOTENCY_KEY_CHARS} visible characters");
        Err(UserError::new(UserErrorCode::IdempotencyKeyInvalid, message, &["idempotencyKey"]))
    }

    /// The key as the client sent it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

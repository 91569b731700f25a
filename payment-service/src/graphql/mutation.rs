//! `createAccount` and `topUpAccount`.
//!
//! Refusals that a caller could foresee are values of the payload; everything else is an error beside a null payload, so that a mutation that
//! was carried out in the same request is still reported.

use async_graphql::{Context, InputObject, Object, SimpleObject};
use database::Database;
use schema::{
    CurrencyCode,
    graphql::{GraphqlError, IdempotencyKey, MoneyInput, UserError, UserErrorCode},
};

use super::{account::Account, entry::LedgerEntry, failure::write_failure, viewer::Viewer};
use crate::{
    account::{AccountError, CreateAccount, Refusal, TopUp, create_account, top_up_account},
    ledger::Line,
};

/// The root of the subgraph's mutations.
#[derive(Debug, Default, Clone, Copy)]
pub struct Mutation;

/// What is needed for a new account.
#[derive(InputObject)]
struct CreateAccountInput {
    /// What the account holds, for ever.
    currency_code: CurrencyCode,
    /// Makes a repetition harmless: 1 to 255 visible characters, unique per user and mutation.
    idempotency_key: Option<String>,
}

/// The new account, or why there is none.
#[derive(SimpleObject, Default)]
struct CreateAccountPayload {
    /// The account; null when the request was refused.
    account: Option<Account>,
    /// Why the request was refused; empty when it was carried out.
    user_errors: Vec<UserError>,
}

/// What is put into the account.
#[derive(InputObject)]
struct TopUpAccountInput {
    /// How much, in the account's currency.
    amount: MoneyInput,
    /// Makes a repetition harmless: 1 to 255 visible characters, unique per user and mutation.
    idempotency_key: Option<String>,
}

/// The account with its new entry, or why there is none.
#[derive(SimpleObject, Default)]
struct TopUpAccountPayload {
    /// The account as it is now; null when the request was refused.
    account: Option<Account>,
    /// The entry that the request made; null when it was refused.
    entry: Option<LedgerEntry>,
    /// Why the request was refused; empty when it was carried out.
    user_errors: Vec<UserError>,
}

/// Repeating a mutation with the same `idempotencyKey` (1 to 255 visible characters, per user and mutation) has no second effect and
/// answers with the same entity as it is now; refusals claim no key. A mutation may be retried only with a key.
#[Object]
impl Mutation {
    /// Creates the caller's account with a balance of zero. At most one account per user.
    async fn create_account(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The account to create.")] input: CreateAccountInput,
    ) -> Option<Result<CreateAccountPayload, GraphqlError>> {
        Some(create(ctx, input).await)
    }

    /// Adds money to the caller's account.
    async fn top_up_account(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The amount to add.")] input: TopUpAccountInput,
    ) -> Option<Result<TopUpAccountPayload, GraphqlError>> {
        Some(top_up(ctx, input).await)
    }
}

async fn create(ctx: &Context<'_>, input: CreateAccountInput) -> Result<CreateAccountPayload, GraphqlError> {
    let user = Viewer::of(ctx)?.user();
    let refused = |error| CreateAccountPayload { user_errors: vec![error], ..CreateAccountPayload::default() };
    let key = match IdempotencyKey::parse(input.idempotency_key) {
        Ok(key) => key,
        Err(error) => return Ok(refused(error)),
    };
    let request = CreateAccount { user, currency: input.currency_code, key };
    match create_account(database(ctx)?, request).await {
        Ok(created) => Ok(CreateAccountPayload { account: Some(Account(created.into_account())), user_errors: Vec::new() }),
        Err(AccountError::Refused(refusal)) => Ok(refused(user_error(refusal))),
        Err(AccountError::Database(error)) => Err(write_failure("createAccount", &error)),
    }
}

async fn top_up(ctx: &Context<'_>, input: TopUpAccountInput) -> Result<TopUpAccountPayload, GraphqlError> {
    let user = Viewer::of(ctx)?.user();
    let refused = |user_errors| TopUpAccountPayload { user_errors, ..TopUpAccountPayload::default() };
    let (amount, key) = match (input.amount.to_money(&["amount"]), IdempotencyKey::parse(input.idempotency_key)) {
        (Ok(amount), Ok(key)) => (amount, key),
        (amount, key) => return Ok(refused(amount.err().into_iter().chain(key.err()).collect())),
    };
    match top_up_account(database(ctx)?, TopUp { user, amount, key }).await {
        Ok(topped_up) => {
            let (account, entry) = topped_up.into_parts();
            let line = Line { entry, currency: account.currency, user_id: account.user_id.clone() };
            Ok(TopUpAccountPayload { account: Some(Account(account)), entry: Some(LedgerEntry(line)), user_errors: Vec::new() })
        }
        Err(AccountError::Refused(refusal)) => Ok(refused(vec![user_error(refusal)])),
        Err(AccountError::Database(error)) => Err(write_failure("topUpAccount", &error)),
    }
}

fn database<'a>(ctx: &Context<'a>) -> Result<&'a Database, GraphqlError> {
    // The schema is never executed without its data; see `super::schema`.
    ctx.data_opt::<Database>().ok_or_else(GraphqlError::internal)
}

/// A refusal with the part of the input that it is about.
fn user_error(refusal: Refusal) -> UserError {
    let (code, field): (_, &[&str]) = match refusal {
        Refusal::AlreadyExists => (UserErrorCode::AccountAlreadyExists, &[]),
        Refusal::NotFound => (UserErrorCode::AccountNotFound, &[]),
        Refusal::CurrencyMismatch { .. } => (UserErrorCode::CurrencyMismatch, &["amount", "currencyCode"]),
        Refusal::BalanceTooLarge { .. } => (UserErrorCode::AmountTooLarge, &["amount", "amount"]),
        Refusal::KeyReused => (UserErrorCode::IdempotencyKeyReused, &["idempotencyKey"]),
    };
    let error = UserError::new(code, refusal.to_string(), field);
    // No part of the input is wrong: the state is another one than the caller thought.
    if field.is_empty() { UserError { field: None, ..error } } else { error }
}

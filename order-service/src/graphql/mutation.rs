//! `Mutation`: the part of orders.

use async_graphql::{Context, InputObject, Object, SimpleObject};
use schema::graphql::{ErrorCode, GraphqlError, IdempotencyKey, MoneyInput, UserError, UserErrorCode};

use super::{Context as Services, order::OrderObject, viewer::viewer};
use crate::order::{CreateOutcome, NewOrder, intake::IntakeError};

/// Longest description, in characters: a few sentences; documents belong elsewhere.
pub const MAX_DESCRIPTION_CHARS: usize = 500;

/// Everything that can be changed.
pub struct Mutation;

/// What to order.
#[derive(Debug, InputObject)]
pub struct CreateOrderInput {
    /// What is to be paid.
    total: MoneyInput,
    /// What for: 1 to 500 characters, not only white space.
    description: String,
    /// Makes it safe to repeat the call: 1 to 255 visible characters.
    idempotency_key: Option<String>,
}

/// The order, or why there is none.
#[derive(SimpleObject)]
pub struct CreateOrderPayload {
    /// The accepted order; null when it was refused.
    order: Option<OrderObject>,
    /// Why it was refused; empty when it was accepted.
    user_errors: Vec<UserError>,
}

/// Repeating a mutation with the same `idempotencyKey` (1 to 255 visible characters, per user and mutation) has no second effect and
/// answers with the same entity as it is now; refusals claim no key. A mutation may be retried only with a key.
#[Object]
impl Mutation {
    /// Answers once the order and its payment task are durable; the payment follows.
    async fn create_order(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What to order.")] input: CreateOrderInput,
    ) -> Option<Result<CreateOrderPayload, GraphqlError>> {
        Some(create(ctx, input).await)
    }
}

async fn create(ctx: &Context<'_>, input: CreateOrderInput) -> Result<CreateOrderPayload, GraphqlError> {
    let user_id = viewer(ctx).user()?;
    let services = ctx.data::<Services>().map_err(|_| GraphqlError::internal())?;
    if input.description.contains('\0') {
        // No refusal code fits, and no honest client sends it; the database could not store it.
        return Err(GraphqlError::new(ErrorCode::BadUserInput, "`description` contains the character U+0000"));
    }
    let (total, idempotency_key) = match check(&input) {
        Ok(checked) => checked,
        Err(user_errors) => return Ok(CreateOrderPayload { order: None, user_errors }),
    };
    let order = NewOrder { user_id, total, description: input.description, idempotency_key, traceparent: None };
    match services.intake.create(order).await {
        Ok(CreateOutcome::Created(order) | CreateOutcome::AlreadyCreated(order)) => {
            Ok(CreateOrderPayload { order: Some(OrderObject(order)), user_errors: Vec::new() })
        }
        Ok(CreateOutcome::KeyReused) => {
            let message = "this key was used before with other arguments";
            let error = UserError::new(UserErrorCode::IdempotencyKeyReused, message, &["idempotencyKey"]);
            Ok(CreateOrderPayload { order: None, user_errors: vec![error] })
        }
        Err(error) => Err(failure(&error)),
    }
}

/// All refusals at once, so that a form can show them all.
fn check(input: &CreateOrderInput) -> Result<(schema::Money, Option<String>), Vec<UserError>> {
    let total = input.total.to_money(&["total"]);
    let description = check_description(&input.description);
    let key = IdempotencyKey::parse(input.idempotency_key.clone());
    match (total, description, key) {
        (Ok(total), Ok(()), Ok(key)) => Ok((total, key.map(|key| key.as_str().to_owned()))),
        (total, description, key) => Err([total.err(), description.err(), key.err()].into_iter().flatten().collect()),
    }
}

fn check_description(description: &str) -> Result<(), UserError> {
    let field = &["description"];
    if description.chars().all(|c| c.is_whitespace() || c.is_control()) {
        return Err(UserError::new(UserErrorCode::DescriptionBlank, "the description is blank", field));
    }
    if description.chars().take(MAX_DESCRIPTION_CHARS + 1).count() > MAX_DESCRIPTION_CHARS {
        let message = format!("the description is longer than {MAX_DESCRIPTION_CHARS} characters");
        return Err(UserError::new(UserErrorCode::DescriptionTooLong, message, field));
    }
    Ok(())
}

fn failure(error: &IntakeError) -> GraphqlError {
    match error {
        IntakeError::Overloaded => GraphqlError::unavailable(),
        IntakeError::Database(error) if error.is_outcome_unknown() => GraphqlError::new(
            ErrorCode::Timeout,
            "it is unknown whether the order was accepted: repeat the call with the same idempotency key",
        ),
        IntakeError::Database(error) if error.is_transient() => GraphqlError::unavailable(),
        IntakeError::Database(_) => GraphqlError::internal(),
    }
}

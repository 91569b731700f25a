//! GraphQL types that both subgraphs export with the same SDL.

mod error;
pub mod loading;
mod money;
mod page;
mod scalar;
mod user_error;

pub use error::{ErrorCode, GraphqlError};
pub use money::{MoneyInput, MoneyOutput};
pub use page::{DEFAULT_PAGE_SIZE, Direction, MAX_PAGE_SIZE, Page, PageInfo, PageRequest, Window, decode_cursor, encode_cursor};
pub use scalar::{DateTime, Decimal};
pub use user_error::{IdempotencyKey, MAX_IDEMPOTENCY_KEY_CHARS, UserError, UserErrorCode};

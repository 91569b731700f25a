//! Accounts: at most one per user, in one currency.
//!
//! The balance and the number of the last ledger entry stand on the account's row, so its lock is what orders everything that happens to
//! the account.

mod create;
pub mod entity;
mod error;
mod top_up;

pub use create::{CreateAccount, Created, create_account};
pub use entity::{Entity as Accounts, Model as Account, accounts_batch, accounts_of_users_batch};
pub use error::{AccountError, Refusal};
pub use top_up::{TopUp, ToppedUp, top_up_account};

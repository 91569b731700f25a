//! The accounts that a batch of tasks is decided on.

use std::collections::HashMap;

use schema::{AccountId, UserId};

use super::Standing;
use crate::account::Account;

/// Accounts by their owners: how a batch finds each, and how it leaves it. Decided on what the batch before it leaves, a batch needs no look at the
/// database; that it was right shows when it is written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Book(HashMap<UserId, AccountChange>);

/// How a batch finds an account, and how it leaves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccountChange {
    /// Which account.
    pub id: AccountId,
    /// How it has to stand for the batch to be right.
    pub before: Standing,
    /// How it stands after the batch.
    pub after: Standing,
}

impl Book {
    /// Of the accounts as they were read.
    pub fn open(accounts: Vec<Account>) -> Self {
        Self(accounts.into_iter().map(opened).collect())
    }

    /// The user's account, to be debited.
    pub fn get_mut(&mut self, user: &UserId) -> Option<&mut AccountChange> {
        self.0.get_mut(user)
    }

    /// Each account that was debited, sorted by id.
    pub fn changes(&self) -> Vec<AccountChange> {
        let is_changed = |change: &&AccountChange| change.after != change.before;
        let mut changes: Vec<_> = self.0.values().filter(is_changed).copied().collect();
        changes.sort_unstable_by_key(|change| change.id);
        changes
    }
}

fn opened(account: Account) -> (UserId, AccountChange) {
    let Account { id, user_id, currency, balance_minor, entry_count, .. } = account;
    let standing = Standing { currency, balance_minor, entry_count };
    (user_id, AccountChange { id, before: standing, after: standing })
}

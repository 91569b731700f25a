//! The rules of a payment. All of them are here.

use schema::{CurrencyCode, Money, RejectionReason};

/// What of an account matters for a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The only currency that it holds.
    pub currency: CurrencyCode,
    /// Never below zero.
    pub balance_minor: i64,
    /// The number of the last ledger entry.
    pub entry_count: i64,
}

/// How one order is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The account is debited; this is how it stands afterwards, with one more entry.
    Paid(Standing),
    /// No money moves.
    Rejected(RejectionReason),
}

/// Decides about one order that was not decided before. `amount` is positive; anything else is refused before it comes here.
pub fn decide(account: Option<Standing>, amount: Money) -> Decision {
    let Some(account) = account else {
        return Decision::Rejected(RejectionReason::AccountNotFound);
    };
    if account.currency != amount.currency {
        return Decision::Rejected(RejectionReason::CurrencyMismatch);
    }
    match account.balance_minor.checked_sub(amount.minor) {
        Some(balance_minor) if balance_minor >= 0 => {
            Decision::Paid(Standing { balance_minor, entry_count: account.entry_count + 1, ..account })
        }
        _ => Decision::Rejected(RejectionReason::InsufficientFunds),
    }
}

#[cfg(test)]
mod tests {
    use schema::CurrencyCode::{EUR, USD};

    use super::*;

    #[test]
    fn every_rule() {
        let account = Standing { currency: EUR, balance_minor: 100, entry_count: 3 };
        let eur = |minor| Money { minor, currency: EUR };
        assert_eq!(decide(None, eur(1)), Decision::Rejected(RejectionReason::AccountNotFound));
        assert_eq!(
            decide(Some(account), Money { minor: 1, currency: USD }),
            Decision::Rejected(RejectionReason::CurrencyMismatch)
        );
        assert_eq!(decide(Some(account), eur(101)), Decision::Rejected(RejectionReason::InsufficientFunds));
        assert_eq!(decide(Some(account), eur(100)), Decision::Paid(Standing { currency: EUR, balance_minor: 0, entry_count: 4 }));
    }
}

//! Creating an account and putting money into it: repeated, raced and refused.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{account, account_with, clean_audit, count, entries, eur, settle, task, user};
use database::{Database, testing::on_both};
use migrations::PaymentsMigrator;
use payment_service::account::{
    Account, AccountError, CreateAccount, Created, Refusal, TopUp, ToppedUp, create_account, top_up_account,
};
use schema::{CurrencyCode, MAX_AMOUNT_MINOR, MAX_BALANCE_MINOR, Money, graphql::IdempotencyKey};

fn key(text: &str) -> Option<IdempotencyKey> {
    IdempotencyKey::parse(Some(text.to_owned())).unwrap()
}

async fn create(db: &Database, currency: CurrencyCode, key: Option<IdempotencyKey>) -> Result<Created, AccountError> {
    create_account(db, CreateAccount { user: user("ada"), currency, key }).await
}

async fn top_up(db: &Database, amount: Money, key: Option<IdempotencyKey>) -> Result<ToppedUp, AccountError> {
    top_up_account(db, TopUp { user: user("ada"), amount, key }).await
}

fn refusal<T: std::fmt::Debug>(result: Result<T, AccountError>) -> Refusal {
    match result {
        Err(AccountError::Refused(refusal)) => refusal,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

on_both!(PaymentsMigrator;
    async fn a_second_account_of_a_user_is_refused_unless_it_is_the_same_request(db: &TestDatabase) {
        let created = create(db, CurrencyCode::EUR, key("k")).await.unwrap();
        assert!(matches!(created, Created::Applied(_)));
        top_up(db, eur(100), None).await.unwrap();

        let again = create(db, CurrencyCode::EUR, key("k")).await.unwrap();
        let Created::AlreadyApplied(again) = again else { panic!("{again:?}") };
        assert_eq!(again.id, created.into_account().id);
        assert_eq!(again.balance_minor, 100, "as it is now");

        assert_eq!(refusal(create(db, CurrencyCode::USD, key("k")).await), Refusal::KeyReused);
        assert_eq!(refusal(create(db, CurrencyCode::EUR, key("other")).await), Refusal::AlreadyExists);
        assert_eq!(refusal(create(db, CurrencyCode::EUR, None).await), Refusal::AlreadyExists);
        assert_eq!(count(db, "accounts").await, 1);
    }

    async fn an_account_made_without_a_key_is_nobody_s_repetition(db: &TestDatabase) {
        create(db, CurrencyCode::EUR, None).await.unwrap();
        assert_eq!(refusal(create(db, CurrencyCode::EUR, key("k")).await), Refusal::AlreadyExists);
    }

    async fn a_race_for_the_first_account_has_one_winner_and_everybody_with_the_key_gets_it(db: &TestDatabase) {
        let mut running = tokio::task::JoinSet::new();
        for worker in 0..12 {
            let db = Database::clone(db);
            let key = if worker < 8 { key("same") } else { None };
            running.spawn(async move { (worker, create(&db, CurrencyCode::EUR, key).await) });
        }
        let mut winners = Vec::new();
        let mut same: Vec<Account> = Vec::new();
        while let Some(done) = running.join_next().await {
            match done.unwrap() {
                (_, Ok(Created::Applied(account))) => winners.push(account),
                (_, Ok(Created::AlreadyApplied(account))) => same.push(account),
                (_, Err(error)) => assert!(matches!(error, AccountError::Refused(Refusal::AlreadyExists)), "{error}"),
            }
        }
        assert_eq!(winners.len(), 1);
        assert!(same.iter().all(|account| *account == winners[0]));
        assert_eq!(count(db, "accounts").await, 1);
    }

    async fn a_repeated_top_up_adds_once_and_answers_with_its_entry(db: &TestDatabase) {
        account_with(db, "ada", 0).await;
        let (_, first) = top_up(db, eur(1_250), key("k")).await.unwrap().into_parts();
        settle(db, &[task("ada", 1_000)]).await.unwrap();

        let again = top_up(db, eur(1_250), key("k")).await.unwrap();
        let ToppedUp::AlreadyApplied(account, entry) = again else { panic!("{again:?}") };
        assert_eq!(entry, first);
        assert_eq!(account.balance_minor, 250, "the account as it is now");
        assert_eq!(refusal(top_up(db, eur(1_251), key("k")).await), Refusal::KeyReused);
        assert_eq!(entries(db).await.len(), 2);
        clean_audit(db).await;
    }

    async fn a_race_of_one_key_makes_one_entry(db: &TestDatabase) {
        account_with(db, "ada", 0).await;
        let mut running = tokio::task::JoinSet::new();
        for _ in 0..12 {
            let db = Database::clone(db);
            running.spawn(async move { top_up(&db, eur(500), key("same")).await.unwrap() });
        }
        let mut applied = 0;
        let mut ids = std::collections::HashSet::new();
        while let Some(done) = running.join_next().await {
            let done = done.unwrap();
            applied += u32::from(matches!(done, ToppedUp::Applied(..)));
            ids.insert(done.into_parts().1.id);
        }
        assert_eq!((applied, ids.len()), (1, 1));
        assert_eq!(account(db, "ada").await.balance_minor, 500);
        clean_audit(db).await;
    }

    async fn a_refused_top_up_claims_no_key_and_changes_nothing(db: &TestDatabase) {
        assert_eq!(refusal(top_up(db, eur(1), key("k")).await), Refusal::NotFound);
        account_with(db, "ada", 0).await;
        let dollars = Money { minor: 100, currency: CurrencyCode::USD };
        assert_eq!(
            refusal(top_up(db, dollars, key("k")).await),
            Refusal::CurrencyMismatch { account: CurrencyCode::EUR }
        );
        assert!(matches!(top_up(db, eur(100), key("k")).await, Ok(ToppedUp::Applied(..))));
        assert_eq!(account(db, "ada").await.balance_minor, 100);
        clean_audit(db).await;
    }

    async fn a_balance_never_passes_what_every_reader_gets_exactly(db: &TestDatabase) {
        account_with(db, "ada", 0).await;
        // 2^53 - 1 is nine times the largest amount and a bit.
        for _ in 0..9 {
            top_up(db, eur(MAX_AMOUNT_MINOR), None).await.unwrap();
        }
        let rest = MAX_BALANCE_MINOR - 9 * MAX_AMOUNT_MINOR;
        assert_eq!(
            refusal(top_up(db, eur(rest + 1), key("k")).await),
            Refusal::BalanceTooLarge { currency: CurrencyCode::EUR }
        );
        top_up(db, eur(rest), key("k")).await.unwrap();
        assert_eq!(account(db, "ada").await.balance_minor, MAX_BALANCE_MINOR);
        // A repetition is found before the bound is checked.
        assert!(matches!(top_up(db, eur(rest), key("k")).await, Ok(ToppedUp::AlreadyApplied(..))));
        clean_audit(db).await;
    }

    async fn the_audit_sees_a_balance_that_its_entries_do_not_explain(db: &TestDatabase) {
        use payment_service::audit::{Difference, audit};
        use sea_orm::ConnectionTrait as _;
        account_with(db, "ada", 500).await;
        settle(db, &[task("ada", 200), task("bob", 1)]).await.unwrap();
        let report = clean_audit(db).await;
        assert_eq!((report.accounts, report.entries, report.paid, report.rejected), (1, 2, 1, 1));

        let tamper: Result<(), database::DatabaseError> = db
            .transaction("tamper", |tx| {
                Box::pin(async move {
                    tx.execute_unprepared("UPDATE accounts SET balance_minor = balance_minor + 1").await?;
                    Ok(())
                })
            })
            .await;
        tamper.unwrap();
        let report = audit(db.reader()).await.unwrap();
        assert!(matches!(report.differences[..], [Difference::Account { balance_minor: 301, sum_minor: 300, .. }]), "{report:?}");
    }
);

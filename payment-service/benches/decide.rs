//! What it costs to decide a batch of tasks, without the database: all on one account, and each on another.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use payment_service::{
    account::Account,
    payment::{Book, plan::plan},
};
use schema::{AccountId, CurrencyCode, OrderId, PaymentTask, Timestamp, UserId};

/// As many as a consumer takes at once.
const TASKS: usize = 500;

fn user(number: usize) -> UserId {
    UserId(format!("user-{number}"))
}

fn account(number: usize) -> Account {
    Account {
        id: AccountId::generate(),
        user_id: user(number),
        currency: CurrencyCode::EUR,
        balance_minor: 1_000_000,
        entry_count: 1,
        created_at_ms: Timestamp(0),
        idempotency_key: None,
        idempotency_hash: None,
    }
}

fn task(account: usize) -> PaymentTask {
    PaymentTask { order_id: OrderId::generate(), user_id: user(account), amount_minor: 1, currency: CurrencyCode::EUR }
}

fn benchmarks(criterion: &mut Criterion) {
    for accounts in [1, TASKS] {
        let stored: Vec<Account> = (0..accounts).map(account).collect();
        let tasks: Vec<PaymentTask> = (0..TASKS).map(|number| task(number % accounts)).collect();
        criterion.bench_function(&format!("decide {TASKS} tasks on {accounts} accounts"), |bencher| {
            let decide = |stored| {
                let plan = plan(black_box(&tasks), &mut Book::open(stored), Vec::new(), Timestamp(1));
                assert_eq!((plan.debits.len(), plan.accounts.len()), (TASKS, accounts));
                plan
            };
            bencher.iter_batched(|| stored.clone(), decide, BatchSize::SmallInput);
        });
    }
}

criterion_group!(benches, benchmarks);
criterion_main!(benches);

//! Pages of an account's ledger, newest first. The key is the entry's number, which is unique and without holes per account.

use schema::{
    AccountId,
    graphql::{Direction, Page, Window, decode_cursor, encode_cursor},
};
use sea_orm::{
    ColumnTrait as _, ConnectionTrait, DbErr, EntityTrait as _, Order, QueryFilter as _, QueryOrder as _, QuerySelect as _,
};

use super::entity::{Column, Entity, Model};

/// The list's name in its cursors.
const LIST: &str = "entries";

/// The cursor of the entry with this number.
pub fn entry_cursor(number: i64) -> String {
    encode_cursor(LIST, &number.to_string())
}

/// The entry's number in a cursor of such a list.
pub fn decode_entry_cursor(cursor: &str) -> Option<i64> {
    decode_cursor(LIST, cursor)?.parse().ok()
}

/// One page of an account's entries. What comes later in the list has a smaller number.
pub async fn entries_of_account(
    db: &impl ConnectionTrait,
    account: AccountId,
    window: &Window<i64>,
) -> Result<Page<Model>, DbErr> {
    let mut select = Entity::find().filter(Column::AccountId.eq(account));
    if let Some(after) = window.after {
        select = select.filter(Column::Number.lt(after));
    }
    if let Some(before) = window.before {
        select = select.filter(Column::Number.gt(before));
    }
    let order = match window.direction {
        Direction::Forward => Order::Desc,
        Direction::Backward => Order::Asc,
    };
    // One more than shown tells whether there is more; the window's size is bounded.
    let limit = u64::try_from(window.size).unwrap_or(0) + 1;
    let rows = select.order_by(Column::Number, order).limit(limit).all(db).await?;
    Ok(Page::new(window, rows))
}

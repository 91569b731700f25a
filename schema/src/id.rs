//! Ids: opaque for clients, typed in the code.
//!
//! Outside, an id is a [TypeID](https://github.com/jetify-com/typeid): its type, `_`, and 26 characters that hold a UUIDv7. In a database
//! column it is the UUID alone. A user is named by the subject of the token instead: `user_` and its base64url.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use type_safe_id::{StaticType, TypeSafeId};
use uuid::Uuid;

use crate::Timestamp;

/// The text is no id of the expected type. It is treated like an id that does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an id of this type")]
pub struct UnknownId;

macro_rules! typed_id {
    ($(#[$doc:meta])* $name:ident, $tag:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema, sea_orm::DeriveValueType,
        )]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        #[derive(Default)]
        struct $tag;

        impl StaticType for $tag {
            const TYPE: &'static str = $prefix;
        }

        impl $name {
            /// The type in front of the underscore.
            pub const PREFIX: &'static str = $prefix;
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                TypeSafeId::<$tag>::from_uuid(self.0).fmt(f)
            }
        }

        /// sea-orm asks this of every primary key; an id is never made from a database's counter.
        impl sea_orm::TryFromU64 for $name {
            fn try_from_u64(_: u64) -> Result<Self, sea_orm::DbErr> {
                Err(sea_orm::DbErr::ConvertFromU64(stringify!($name)))
            }
        }

        impl FromStr for $name {
            type Err = UnknownId;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse::<TypeSafeId<$tag>>().map(|id| Self(id.uuid())).map_err(|_| UnknownId)
            }
        }
    };
}

typed_id!(
    /// An order. The UUID starts with the millisecond of its creation, so ids sort by age.
    OrderId, OrderTag, "order"
);
typed_id!(
    /// An account of one user.
    AccountId, AccountTag, "account"
);
typed_id!(
    /// A line of an account's ledger.
    LedgerEntryId, LedgerEntryTag, "entry"
);
typed_id!(
    /// The payment decision of one order; holds the order's UUID, since there is exactly one per order.
    PaymentId, PaymentTag, "payment"
);

impl OrderId {
    /// A new id for an order created at this instant.
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }

    /// The millisecond in the id; an order's creation time is defined as this.
    pub fn created_at(self) -> Timestamp {
        let ms = self.0.as_u128() >> 80;
        Timestamp(i64::try_from(ms).unwrap_or(i64::MAX))
    }

    /// The smallest id that an order of that millisecond can have: bounds of a time range become bounds of ids.
    pub fn first_at(at: Timestamp) -> Self {
        let ms = u128::try_from(at.0.clamp(0, (1 << 48) - 1)).unwrap_or(0);
        Self(Uuid::from_u128(ms << 80))
    }
}

impl AccountId {
    /// A new id.
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }
}

impl LedgerEntryId {
    /// A new id.
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }
}

impl From<OrderId> for PaymentId {
    fn from(id: OrderId) -> Self {
        Self(id.0)
    }
}

impl From<PaymentId> for OrderId {
    fn from(id: PaymentId) -> Self {
        Self(id.0)
    }
}

/// An event's id: made once, kept through every retry, so that a receiver can recognize it.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
    sea_orm::DeriveValueType,
)]
#[serde(transparent)]
pub struct EventId(pub Uuid);

impl EventId {
    /// A new id.
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A user, named by the subject (`sub`) of the token.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema, sea_orm::DeriveValueType,
)]
#[serde(transparent)]
pub struct UserId(pub String);

impl UserId {
    /// The type in front of the underscore of the public id.
    pub const PREFIX: &'static str = "user";
    /// Longest subject in characters; longer ones are refused with the token.
    pub const MAX_CHARS: usize = 255;

    /// The subject. There is no `Display`, so that the subject is never taken for the public form by accident.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a token can name this user: 1 to [`UserId::MAX_CHARS`] visible characters.
    pub fn is_valid(&self) -> bool {
        let chars = self.0.chars().take(Self::MAX_CHARS + 1).count();
        (1..=Self::MAX_CHARS).contains(&chars) && !self.0.contains(|c: char| c.is_control() || c.is_whitespace())
    }

    /// Reads the public form, `user_` and base64url.
    pub fn from_public(id: &str) -> Result<Self, UnknownId> {
        let encoded = id.strip_prefix("user_").ok_or(UnknownId)?;
        let subject = URL_SAFE_NO_PAD.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok()).ok_or(UnknownId)?;
        Some(Self(subject)).filter(Self::is_valid).ok_or(UnknownId)
    }

    /// The form that clients see.
    pub fn to_public(&self) -> String {
        format!("user_{}", URL_SAFE_NO_PAD.encode(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_says_its_type_and_is_refused_elsewhere() {
        let order = OrderId::generate();
        let text = order.to_string();
        assert!(text.starts_with("order_"));
        assert_eq!(text.parse(), Ok(order));
        assert_eq!(text.parse::<AccountId>(), Err(UnknownId));
        for text in ["", "order_", "order_x", "ORDER_01h2xcejqtf2nbrexx3vqjhp41", "order_81h2xcejqtf2nbrexx3vqjhp41"] {
            assert_eq!(text.parse::<OrderId>(), Err(UnknownId), "{text}");
        }
    }

    #[test]
    fn an_order_s_id_holds_its_creation_time() {
        let before = Timestamp::now();
        let order = OrderId::generate();
        assert!(before <= order.created_at() && order.created_at() <= Timestamp::now());
        assert!(OrderId::first_at(order.created_at()) <= order);
        assert!(order < OrderId::first_at(Timestamp(order.created_at().0 + 1)));
    }

    #[test]
    fn a_user_s_id_is_its_subject() {
        let user = UserId("zoë@example.org".to_owned());
        assert_eq!(UserId::from_public(&user.to_public()), Ok(user));
        for text in ["", "user_", "user_*", "order_Zg", "user_/w==", "user_AA", "user_YSBi"] {
            assert_eq!(UserId::from_public(text), Err(UnknownId), "{text}");
        }
    }
}

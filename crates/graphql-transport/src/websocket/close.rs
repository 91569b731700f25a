//! Why a socket ends, and with which code.

use std::borrow::Cow;

use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use crate::auth::Rejected;

/// RFC 6455: a control frame carries 125 bytes, two of them the code.
const MAX_REASON_BYTES: usize = 123;

/// The reasons of the server. 1009 and 1011 are not among them: clients take both as fatal and never come back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Close {
    BadMessage(Cow<'static, str>),
    NotAcknowledged,
    Forbidden(Cow<'static, str>),
    ProtocolNotOffered,
    InitTimeout,
    DuplicateId(String),
    SecondInit,
    Draining,
    SlowReader,
    Unavailable(String),
}

impl Close {
    pub(crate) const fn code(&self) -> u16 {
        match self {
            Self::Draining => 1012,
            Self::SlowReader | Self::Unavailable(_) => 1013,
            Self::BadMessage(_) => 4400,
            Self::NotAcknowledged => 4401,
            Self::Forbidden(_) => 4403,
            Self::ProtocolNotOffered => 4406,
            Self::InitTimeout => 4408,
            Self::DuplicateId(_) => 4409,
            Self::SecondInit => 4429,
        }
    }

    fn reason(&self) -> Cow<'_, str> {
        match self {
            Self::BadMessage(reason) | Self::Forbidden(reason) => Cow::Borrowed(reason),
            Self::NotAcknowledged => "Unauthorized".into(),
            Self::ProtocolNotOffered => "Subprotocol not acceptable: offer graphql-transport-ws".into(),
            Self::InitTimeout => "Connection initialisation timeout".into(),
            Self::DuplicateId(id) => format!("Subscriber for {id} already exists").into(),
            Self::SecondInit => "Too many initialisation requests".into(),
            Self::Draining => "Service restart".into(),
            Self::SlowReader => "The client reads too slowly".into(),
            Self::Unavailable(reason) => Cow::Borrowed(reason),
        }
    }

    pub(crate) fn frame(&self) -> CloseFrame {
        let reason = self.reason();
        let mut end = reason.len().min(MAX_REASON_BYTES);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        CloseFrame { code: self.code().into(), reason: Utf8Bytes::from(&reason[..end]) }
    }
}

impl From<Rejected> for Close {
    fn from(rejected: Rejected) -> Self {
        match rejected {
            Rejected::InvalidToken(reason) | Rejected::Forbidden(reason) => {
                Self::Forbidden(format!("Forbidden: {reason}").into())
            }
            Rejected::Unavailable(reason) => Self::Unavailable(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let frame = Close::BadMessage("é".repeat(100).into()).frame();
        assert_eq!(frame.reason.len(), 122);
        assert_eq!(u16::from(frame.code), 4400);
    }
}

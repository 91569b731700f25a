//! Which web pages may open a WebSocket. CORS does not cover that: a browser opens a socket to any host and only says from where.

use std::fmt;
use std::str::FromStr;

use http::header::{HOST, ORIGIN};
use http::{HeaderMap, Uri};

/// One allowed origin: `https://shop.example`, with any port (`http://localhost:*`), or every one (`*`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginPattern(Pattern);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    Any,
    AnyPort { scheme_and_host: String },
    Exact(String),
}

/// The text is not an origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an origin: write `https://host`, `https://host:port`, `http://host:*` or `*`")]
pub struct OriginPatternError(String);

impl FromStr for OriginPattern {
    type Err = OriginPatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim().to_ascii_lowercase();
        if text == "*" {
            return Ok(Self(Pattern::Any));
        }
        let origin = text.strip_suffix(":*").unwrap_or(&text);
        let valid = origin.parse::<Uri>().is_ok_and(|uri| {
            let is_host = |host: &http::uri::Authority| {
                let has_port = !host.as_str().ends_with(host.host());
                origin.ends_with(host.as_str()) && !host.as_str().contains('@') && has_port == host.port_u16().is_some()
            };
            uri.scheme().is_some() && uri.authority().is_some_and(is_host)
        });
        match (valid, origin.len() < text.len()) {
            (false, _) => Err(OriginPatternError(text)),
            (true, true) => Ok(Self(Pattern::AnyPort { scheme_and_host: origin.to_owned() })),
            (true, false) => Ok(Self(Pattern::Exact(text))),
        }
    }
}

impl fmt::Display for OriginPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Pattern::Any => f.write_str("*"),
            Pattern::AnyPort { scheme_and_host } => write!(f, "{scheme_and_host}:*"),
            Pattern::Exact(origin) => f.write_str(origin),
        }
    }
}

impl OriginPattern {
    /// Several patterns separated by commas; none when the text is empty.
    ///
    /// # Errors
    /// The first one that is no pattern.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, OriginPatternError> {
        text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::parse).collect()
    }

    /// Whether `origin`, as in an `Origin` header, is meant.
    #[must_use]
    pub fn matches(&self, origin: &str) -> bool {
        let origin = origin.to_ascii_lowercase();
        match &self.0 {
            Pattern::Any => true,
            Pattern::Exact(allowed) => *allowed == origin,
            Pattern::AnyPort { scheme_and_host } => match origin.strip_prefix(scheme_and_host.as_str()) {
                Some("") => true,
                Some(rest) => rest.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok()),
                None => false,
            },
        }
    }
}

/// Whether a request may open a socket. Without an `Origin` it does not come from a web page; pages of this server itself are
/// always allowed (the `Host` header is for the server in front of this crate to check).
pub(crate) fn is_allowed(headers: &HeaderMap, allowed: Option<&[OriginPattern]>) -> bool {
    let (Some(allowed), Some(origin)) = (allowed, headers.get(ORIGIN)) else {
        return true;
    };
    let Ok(origin) = origin.to_str() else {
        return false;
    };
    let own = headers.get(HOST).and_then(|host| host.to_str().ok());
    let is_own = origin.split_once("://").is_some_and(|(_, host)| own.is_some_and(|own| own.eq_ignore_ascii_case(host)));
    is_own || allowed.iter().any(|pattern| pattern.matches(origin))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_alike_host_is_not_the_allowed_one() {
        let localhost: OriginPattern = "http://localhost:*".parse().unwrap();
        assert!(localhost.matches("http://localhost"));
        assert!(localhost.matches("http://LOCALHOST:5173"));
        assert!(!localhost.matches("http://localhost.evil.example"));
        assert!(!localhost.matches("http://localhost:80.evil.example"));
        assert!(!localhost.matches("https://localhost:5173"));
        let shop: OriginPattern = "https://shop.example".parse().unwrap();
        assert!(shop.matches("https://shop.example"));
        assert!(!shop.matches("https://shop.example:8443"));
    }

    #[test]
    fn what_is_no_origin_is_refused_at_start() {
        for text in ["", "shop.example", "https://shop.example/path", "https://", "https://a@b", "http://localhost:x"] {
            assert!(text.parse::<OriginPattern>().is_err(), "{text}");
        }
        assert_eq!("http://localhost:*".parse::<OriginPattern>().unwrap().to_string(), "http://localhost:*");
    }
}

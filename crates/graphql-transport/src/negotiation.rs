//! Content negotiation: what the client accepts, and what it sent.

use http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};

/// How a response is written. Server-sent events would be one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResponseFormat {
    /// `application/json`: 200 for everything that was a well-formed request.
    Json,
    /// `application/graphql-response+json`: the status says whether the operation was executed.
    GraphqlResponse,
}

impl ResponseFormat {
    /// Best first: among equally wanted formats the first one wins.
    const ALL: [Self; 2] = [Self::GraphqlResponse, Self::Json];

    /// The `Content-Type` header's value.
    pub(crate) const fn content_type(self) -> HeaderValue {
        match self {
            Self::Json => HeaderValue::from_static("application/json; charset=utf-8"),
            Self::GraphqlResponse => HeaderValue::from_static("application/graphql-response+json; charset=utf-8"),
        }
    }

    const fn subtype(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::GraphqlResponse => "graphql-response+json",
        }
    }
}

/// Chooses the response's format; `None` means that nothing fits (406).
///
/// No `Accept` header means `application/json`, and so does a wildcard: clients that say nothing are old ones. A format that is
/// named counts before one that a wildcard covers.
pub(crate) fn negotiate(headers: &HeaderMap) -> Option<ResponseFormat> {
    let mut ranges = Vec::new();
    let mut has_header = false;
    for value in headers.get_all(ACCEPT) {
        has_header = true;
        ranges.extend(value.to_str().unwrap_or_default().split(',').filter_map(MediaRange::parse));
    }
    if !has_header {
        return Some(ResponseFormat::Json);
    }
    let mut best: Option<(ResponseFormat, (u16, bool))> = None;
    for format in ResponseFormat::ALL {
        // The most specific range decides about a format, wherever it stands in the header (RFC 9110, 12.5.1).
        let Some(range) = ranges.iter().filter(|range| range.covers(format)).max_by_key(|range| range.specificity()) else {
            continue;
        };
        let rank = (range.quality, range.specificity() == 2);
        let by_wildcard_only = !rank.1 && format == ResponseFormat::Json;
        let better = match best {
            None => true,
            Some((_, other)) => rank > other || (rank == other && by_wildcard_only),
        };
        if range.quality > 0 && better {
            best = Some((format, rank));
        }
    }
    best.map(|(format, _)| format)
}

struct MediaRange<'a> {
    kind: &'a str,
    subtype: &'a str,
    /// In thousandths.
    quality: u16,
}

impl<'a> MediaRange<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let (kind, subtype) = parts.next()?.split_once('/')?;
        let mut quality = 1000;
        for parameter in parts {
            let (name, value) = parameter.split_once('=')?;
            if name.trim().eq_ignore_ascii_case("q") {
                quality = parse_quality(value.trim())?;
            } else if name.trim().eq_ignore_ascii_case("charset") && !is_utf8(value.trim()) {
                return None;
            }
        }
        Some(Self { kind: kind.trim(), subtype: subtype.trim(), quality })
    }

    fn covers(&self, format: ResponseFormat) -> bool {
        match (self.kind, self.subtype) {
            ("*", "*") => true,
            (kind, "*") => kind.eq_ignore_ascii_case("application"),
            (kind, subtype) => kind.eq_ignore_ascii_case("application") && subtype.eq_ignore_ascii_case(format.subtype()),
        }
    }

    fn specificity(&self) -> u8 {
        match (self.kind, self.subtype) {
            ("*", _) => 0,
            (_, "*") => 1,
            _ => 2,
        }
    }
}

/// `0` to `1` with up to three digits, in thousandths.
fn parse_quality(text: &str) -> Option<u16> {
    let value: f32 = text.parse().ok()?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be between 0 and 1")]
    (0.0..=1.0).contains(&value).then_some((value * 1000.0).round() as u16)
}

/// Whether the request's body says that it is JSON in UTF-8. Nothing else is read, and that is also what keeps forms on other
/// sites from sending requests: a browser asks (CORS) before it sends this type.
pub(crate) fn is_json_body(headers: &HeaderMap) -> bool {
    let Some(content_type) = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()) else {
        return false;
    };
    let mut parts = content_type.split(';').map(str::trim);
    let is_json = parts.next().is_some_and(|essence| essence.eq_ignore_ascii_case("application/json"));
    let is_plain = headers.get(CONTENT_ENCODING).is_none_or(|encoding| encoding.as_bytes().eq_ignore_ascii_case(b"identity"));
    is_json
        && is_plain
        && parts
            .filter_map(|parameter| parameter.split_once('='))
            .all(|(name, value)| !name.trim().eq_ignore_ascii_case("charset") || is_utf8(value.trim()))
}

fn is_utf8(charset: &str) -> bool {
    charset.trim_matches('"').eq_ignore_ascii_case("utf-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(value: &str) -> Option<ResponseFormat> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, value.parse().unwrap());
        negotiate(&headers)
    }

    #[test]
    fn the_format_is_what_the_client_prefers() {
        use ResponseFormat::{GraphqlResponse, Json};
        assert_eq!(negotiate(&HeaderMap::new()), Some(Json));
        for (header, expected) in [
            ("*/*", Some(Json)),
            ("application/*", Some(Json)),
            ("application/json", Some(Json)),
            ("application/json; charset=UTF-8", Some(Json)),
            ("application/json; charset=iso-8859-1", None),
            ("application/graphql-response+json", Some(GraphqlResponse)),
            ("Application/GraphQL-Response+JSON", Some(GraphqlResponse)),
            ("application/graphql-response+json, application/json", Some(GraphqlResponse)),
            ("application/graphql-response+json, application/json;q=0.9", Some(GraphqlResponse)),
            ("application/graphql-response+json;q=0.5, application/json", Some(Json)),
            ("application/graphql-response+json, */*", Some(GraphqlResponse)),
            ("application/graphql-response+json;q=0, */*", Some(Json)),
            ("application/json;q=0, */*", Some(GraphqlResponse)),
            ("application/json, multipart/mixed", Some(Json)),
            ("text/html, application/xhtml+xml, */*;q=0.8", Some(Json)),
            ("text/html", None),
            ("text/event-stream", None),
            ("*/*;q=0", None),
            ("application/json;q=2", None),
            ("", None),
        ] {
            assert_eq!(accept(header), expected, "{header}");
        }
    }

    #[test]
    fn only_json_in_utf8_is_a_body() {
        for (header, expected) in [
            ("application/json", true),
            ("application/json; charset=utf-8", true),
            ("application/json;charset=\"UTF-8\"", true),
            ("application/json; charset=latin1", false),
            ("text/plain", false),
            ("application/x-www-form-urlencoded", false),
            ("multipart/form-data; boundary=x", false),
            ("application/jsonp", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, header.parse().unwrap());
            assert_eq!(is_json_body(&headers), expected, "{header}");
        }
        assert!(!is_json_body(&HeaderMap::new()));
    }
}

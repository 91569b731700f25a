//! The GraphiQL page, embedded: `/graphiql` and `/graphiql/assets/…`. It loads nothing from anywhere else, and its content
//! security policy makes sure of that. Built by `web/graphiql`.

use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{Redirect, Response};
use axum::routing::get;
use http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HOST, IF_NONE_MATCH,
    REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use rust_embed::RustEmbed;
use serde::Serialize;

/// What the page shows when it is opened for the first time.
#[derive(Clone, Serialize)]
pub struct GraphiqlOptions {
    /// The page's title. Default `GraphiQL`.
    pub title: String,
    /// The endpoint's URL, relative to the page. Default `graphql`, its neighbor.
    pub endpoint: String,
    /// A token that is put into the headers editor. Whoever can open the page can read it: only for demonstrations. The browser
    /// does not store it. Default none.
    pub token: Option<String>,
    /// Whose token that is, to be shown as "signed in as …". Default none.
    pub user: Option<String>,
    /// The tabs that are open. Empty means GraphiQL's own welcome text.
    #[serde(rename = "tabs")]
    pub default_tabs: Vec<GraphiqlTab>,
}

/// One tab. GraphiQL labels it with the operation's name; the title stands above the query as a comment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GraphiqlTab {
    /// What the query is good for, in one line.
    pub title: String,
    /// The document.
    pub query: String,
    /// Its variables as JSON text.
    pub variables: Option<String>,
}

impl<T: Into<String>, Q: Into<String>> From<(T, Q)> for GraphiqlTab {
    fn from((title, query): (T, Q)) -> Self {
        Self { title: title.into(), query: query.into(), variables: None }
    }
}

impl Default for GraphiqlOptions {
    fn default() -> Self {
        Self { title: "GraphiQL".to_owned(), endpoint: "graphql".to_owned(), token: None, user: None, default_tabs: Vec::new() }
    }
}

impl fmt::Debug for GraphiqlOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GraphiqlOptions")
            .field("title", &self.title)
            .field("endpoint", &self.endpoint)
            .field("token", &self.token.as_ref().map(|_| "redacted"))
            .field("user", &self.user)
            .field("default_tabs", &self.default_tabs)
            .finish()
    }
}

/// The built page. Assets are stored compressed only: they are a third of the size, and every browser takes them so.
#[derive(RustEmbed)]
#[folder = "assets/graphiql"]
struct Files;

/// The routes of the page: `/graphiql` and what it loads.
#[expect(clippy::needless_pass_by_value, reason = "the options are used up, as those of the other router are")]
pub fn graphiql_router(options: GraphiqlOptions) -> Router {
    Router::new()
        .route("/graphiql", get(page))
        // The page's own links are relative to the name without the slash.
        .route("/graphiql/", get(|| async { Redirect::permanent("../graphiql") }))
        .route("/graphiql/assets/{file}", get(asset))
        .with_state(Arc::<str>::from(render(&options)))
}

fn render(options: &GraphiqlOptions) -> String {
    let template = Files::get("index.html").map(|file| String::from_utf8_lossy(&file.data).into_owned()).unwrap_or_default();
    // Inside a script element only `<` could end the JSON early.
    let settings = serde_json::to_string(options).unwrap_or_default().replace('<', "\\u003c");
    let title = options.title.replace('&', "&amp;").replace('<', "&lt;");
    // The settings last: nothing in them is replaced then.
    template.replace("{{title}}", &title).replace("{{assets}}", "graphiql/assets/").replace("{{settings}}", &settings)
}

async fn page(State(page): State<Arc<str>>, headers: HeaderMap) -> Response {
    let mut response = Response::new(Body::from(page.to_string()));
    let response_headers = response.headers_mut();
    response_headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    // It carries a token.
    response_headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response_headers.insert(CONTENT_SECURITY_POLICY, content_security_policy(&headers));
    response_headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response_headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Only this server. Monaco writes style elements, hence `unsafe-inline` for styles; icons are inside the style sheet. Not every
/// browser counts a WebSocket of the same host as `self`, so it is named.
fn content_security_policy(headers: &HeaderMap) -> HeaderValue {
    let is_host = |host: &&str| host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte));
    let socket = match headers.get(HOST).and_then(|host| host.to_str().ok()).filter(is_host) {
        Some(host) => format!(" ws://{host} wss://{host}"),
        None => String::new(),
    };
    let policy = format!(
        "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self' 'unsafe-inline'; font-src 'self'; \
         img-src 'self' data:; connect-src 'self'{socket}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
}

async fn asset(Path(file): Path<String>, headers: HeaderMap) -> Response {
    let found = Files::get(&format!("assets/{file}.gz"));
    let Some((embedded, content_type)) = found.zip(content_type(&file)) else {
        return status(StatusCode::NOT_FOUND);
    };
    if !accepts_gzip(&headers) {
        return status(StatusCode::NOT_ACCEPTABLE);
    }
    let etag = embedded
        .metadata
        .sha256_hash()
        .iter()
        .take(ETAG_BYTES)
        .fold(String::from("\""), |text, byte| format!("{text}{byte:02x}"));
    let etag = HeaderValue::try_from(format!("{etag}\"")).ok();
    let is_known = etag.is_some() && headers.get(IF_NONE_MATCH) == etag.as_ref();
    let mut response = if is_known {
        status(StatusCode::NOT_MODIFIED)
    } else {
        let mut response = Response::new(Body::from(embedded.data));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        response
    };
    let response_headers = response.headers_mut();
    if let Some(etag) = etag {
        response_headers.insert(ETAG, etag);
    }
    // Kept, and asked for again: names stay the same from one version to the next.
    response_headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response_headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    response_headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Enough of the hash to tell versions apart.
const ETAG_BYTES: usize = 16;

fn content_type(file: &str) -> Option<&'static str> {
    match file.rsplit_once('.')?.1 {
        "js" => Some("text/javascript; charset=utf-8"),
        "css" => Some("text/css; charset=utf-8"),
        "ttf" => Some("font/ttf"),
        _ => None,
    }
}

/// No header accepts every coding (RFC 9110, 12.5.3).
fn accepts_gzip(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(ACCEPT_ENCODING).iter().peekable();
    values.peek().is_none()
        || values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).any(|coding| {
            let (name, parameters) = coding.split_once(';').unwrap_or((coding, ""));
            let refused = parameters.trim().strip_prefix("q=").is_some_and(|quality| quality.parse() == Ok(0.0_f32));
            matches!(name.trim(), "gzip" | "x-gzip" | "*") && !refused
        })
}

fn status(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_cannot_break_out_of_their_element() {
        let options = GraphiqlOptions {
            title: "</title><script>alert(1)</script>{{settings}}".to_owned(),
            default_tabs: vec![("</script><script>alert(2)</script>", "{ a }").into()],
            ..GraphiqlOptions::default()
        };
        let page = render(&options);
        assert_eq!(page.matches("<script").count(), 2, "{page}");
        assert!(!page.contains("{{assets}}") && page.contains("graphiql/assets/main.js"), "{page}");
    }

    #[test]
    fn a_strange_host_does_not_get_into_the_policy() {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("evil; script-src *"));
        assert!(!content_security_policy(&headers).to_str().unwrap().contains("evil"));
        headers.insert(HOST, HeaderValue::from_static("[::1]:8000"));
        assert!(content_security_policy(&headers).to_str().unwrap().contains("ws://[::1]:8000 "));
    }

    #[test]
    fn every_file_of_the_page_is_served_with_its_type() {
        let mut count = 0;
        for file in Files::iter().filter(|file| file.starts_with("assets/")) {
            let name = file.trim_start_matches("assets/").strip_suffix(".gz").expect("stored compressed").to_owned();
            assert!(content_type(&name).is_some(), "{name}");
            count += 1;
        }
        assert!(count > 5, "run `npm run build` in web/graphiql");
    }

    #[test]
    fn only_a_client_that_refuses_gzip_goes_without() {
        for (value, expected) in
            [("gzip, deflate, br", true), ("br;q=1, gzip;q=0.5", true), ("*", true), ("identity", false), ("gzip;q=0", false)]
        {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, value.parse().unwrap());
            assert_eq!(accepts_gzip(&headers), expected, "{value}");
        }
        assert!(accepts_gzip(&HeaderMap::new()));
    }
}

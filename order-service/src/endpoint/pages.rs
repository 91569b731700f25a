//! What people open in a browser.

use axum::{
    Router,
    http::{HeaderMap, header},
    response::{Html, IntoResponse, Redirect},
};
use graphql_transport::{GraphiqlOptions, GraphiqlTab, graphiql_router};

use super::EndpointOptions;

/// Whom GraphiQL and the start page's examples speak as.
#[derive(Debug, Clone)]
pub struct DemoUser {
    /// The token's subject.
    pub name: String,
    /// A signed token.
    pub token: String,
}

const ACCOUNT: (&str, &str) = (
    "1. An account with some money. Running it again changes nothing, thanks to the idempotency keys.",
    "mutation Account {
  createAccount(
    input: {
      currencyCode: EUR
      idempotencyKey: \"first-account\"
    }
  ) {
    account { id }
    userErrors { code message }
  }
  topUpAccount(
    input: {
      amount: {
        amount: \"100.00\"
        currencyCode: EUR
      }
      idempotencyKey: \"first-top-up\"
    }
  ) {
    account { balance { amount currencyCode } }
    userErrors { code message }
  }
}
",
);

const LIVE: (&str, &str) = (
    "2. Start it, then order in the next tab: it goes on listening, at the bottom right.",
    "subscription Live {
  orderEvents {
    status
    rejectionReason
    order {
      number
      description
      total { amount currencyCode }
    }
  }
}
",
);

const ORDER: (&str, &str) = (
    "3. Answers once the order is durable; the payment follows. Order again until the money is spent.",
    "mutation Order {
  createOrder(
    input: {
      total: {
        amount: \"12.50\"
        currencyCode: EUR
      }
      description: \"A book\"
    }
  ) {
    order { id number status }
    userErrors { code message }
  }
}
",
);

const ME: (&str, &str) = (
    "4. One request over both services: accounts live in Payments, orders in Order Service.",
    "query Me {
  me {
    id
    account {
      balance { amount currencyCode }
      entries(first: 5) {
        nodes {
          kind
          amount { amount }
          order { number }
        }
      }
    }
    orders(first: 5) {
      nodes {
        number
        status
        rejectionReason
        total { amount currencyCode }
        payment { decidedAt }
      }
    }
  }
}
",
);

pub(super) fn graphiql(options: &EndpointOptions) -> Router {
    graphiql_router(GraphiqlOptions {
        title: "Tandem".to_owned(),
        endpoint: "/graphql".to_owned(),
        token: options.demo_user.as_ref().map(|user| user.token.clone()),
        user: options.demo_user.as_ref().map(|user| user.name.clone()),
        default_tabs: [ACCOUNT, LIVE, ORDER, ME].map(GraphiqlTab::from).into(),
    })
}

/// `/docs` leads to GraphiQL, whose documentation explorer is the API's documentation.
pub(super) async fn docs() -> Redirect {
    Redirect::temporary("/graphiql")
}

/// `/schema.graphql`, as text: browsers would only download the type that GraphQL documents have.
pub(super) fn schema(sdl: &str) -> ([(header::HeaderName, &'static str); 1], String) {
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], sdl.to_owned())
}

/// `/`: where to go from here. Plain HTML that needs nothing else.
#[derive(Clone)]
pub(super) struct StartPage {
    links: String,
    token: String,
}

/// The page carries a token, and loads nothing.
const START_PAGE_HEADERS: [(header::HeaderName, &str); 4] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
];

/// For whoever comes without a usable `Host`.
const DEFAULT_HOST: &str = "localhost:8000";

impl StartPage {
    pub(super) fn new(options: &EndpointOptions) -> Self {
        let link = |href: &str, name: &str, text: &str| {
            format!("<li><a href=\"{href}\"><b>{name}</b></a> <span>{}</span></li>", escape(text))
        };
        let mut links = String::new();
        if options.graphiql {
            let signed_in =
                options.demo_user.as_ref().map(|user| format!(" You are signed in as {}.", user.name)).unwrap_or_default();
            let text = format!("Try the API, read its documentation, watch orders being paid.{signed_in}");
            links += &link("/graphiql", "GraphiQL", &text);
        }
        if options.introspection {
            links += &link("/schema.graphql", "Schema", "For code generators.");
        }
        links += &link("/health/ready", "Health", "What is ready, and what it waits for.");
        let token = options.demo_user.as_ref().map_or("<a token for you>", |user| &user.token);
        Self { links, token: escape(token) }
    }

    /// The commands name the host that the reader's browser used.
    pub(super) fn render(&self, headers: &HeaderMap) -> impl IntoResponse + use<> {
        let page = include_str!("start_page.html").replace("{links}", &self.links).replace("{token}", &self.token);
        (START_PAGE_HEADERS, Html(page.replace("{base}", &base(headers))))
    }
}

/// Where this server is, seen from the reader.
fn base(headers: &HeaderMap) -> String {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    // The page puts it into a command for a shell: only what names of hosts are made of, so that it means nothing else there.
    let is_plain =
        |host: &&str| !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte));
    let host = text("host").filter(is_plain).unwrap_or(DEFAULT_HOST);
    let scheme = if text("x-forwarded-proto") == Some("https") { "https" } else { "http" };
    format!("{scheme}://{}", escape(host))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use axum::{body::to_bytes, http::HeaderValue};

    use super::*;

    async fn page(demo_user: Option<DemoUser>, headers: &[(&'static str, &'static str)]) -> String {
        let options = EndpointOptions { graphiql: true, introspection: true, demo_user, ..EndpointOptions::default() };
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect();
        let response = StartPage::new(&options).render(&headers).into_response();
        String::from_utf8(to_bytes(response.into_body(), 1 << 20).await.unwrap().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn the_commands_name_the_host_that_was_asked() {
        for (headers, base) in [
            (vec![("host", "127.0.0.1:8123")], "http://127.0.0.1:8123/graphql"),
            (vec![("host", "[::1]:8123")], "http://[::1]:8123/graphql"),
            (vec![("host", "shop.example"), ("x-forwarded-proto", "https")], "https://shop.example/graphql"),
            (vec![], "http://localhost:8000/graphql"),
        ] {
            assert!(page(None, &headers).await.contains(base), "{base}");
        }
    }

    #[tokio::test]
    async fn a_strange_host_reaches_neither_the_page_nor_the_readers_shell() {
        for host in ["x$(reboot)", "a;reboot", "a'b", "<script>alert(1)</script>", "user@evil", "{token}", ""] {
            let page = page(None, &[("host", host), ("x-forwarded-proto", "javascript")]).await;
            assert!(page.contains("http://localhost:8000/graphql"), "{host}");
            assert!(!page.contains("reboot") && !page.contains("<script") && !page.contains("evil"), "{host}");
        }
    }

    #[tokio::test]
    async fn names_and_tokens_are_text() {
        let demo_user = DemoUser { name: "<b>\"ada\"</b>".to_owned(), token: "a<b>&'c'".to_owned() };
        let page = page(Some(demo_user), &[]).await;
        assert!(page.contains("&lt;b&gt;&quot;ada&quot;&lt;/b&gt;") && page.contains("a&lt;b&gt;&amp;&#39;c&#39;"), "{page}");
    }

    #[test]
    fn nothing_is_offered_that_is_switched_off() {
        let links = StartPage::new(&EndpointOptions::default()).links;
        assert!(!links.contains("/graphiql") && !links.contains("/schema.graphql") && links.contains("/health/ready"), "{links}");
    }
}

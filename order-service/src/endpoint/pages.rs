//! What people open in a browser.

use axum::{
    Router,
    http::{HeaderMap, header, uri::Authority},
    response::{Html, Redirect},
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

const ME: (&str, &str) = (
    "One request over both services: the account lives in Payments, the orders in Order Service.",
    "query Me {
  me {
    id
    account {
      balance { amount currencyCode }
      entries(first: 5) { nodes { kind amount { amount } order { number } } }
    }
    orders(first: 5) { nodes { number status rejectionReason total { amount currencyCode } description } }
  }
}
",
);

const ACCOUNT: (&str, &str) = (
    "An account with some money. Running it again changes nothing, because the calls carry idempotency keys.",
    "mutation Account {
  createAccount(input: { currencyCode: EUR, idempotencyKey: \"first-account\" }) {
    account { id }
    userErrors { code message }
  }
  topUpAccount(input: { amount: { amount: \"100.00\", currencyCode: EUR }, idempotencyKey: \"first-top-up\" }) {
    account { balance { amount currencyCode } }
    userErrors { code message }
  }
}
",
);

const LIVE: (&str, &str) = (
    "Leave it open: every change of your orders appears here.",
    "subscription Live {
  orderEvents {
    status
    rejectionReason
    occurredAt
    order { number description total { amount currencyCode } }
  }
}
",
);

const ORDER: (&str, &str) = (
    "Start the tab Live first, then order here and watch it being paid there.",
    "mutation Order {
  createOrder(input: { total: { amount: \"12.50\", currencyCode: EUR }, description: \"A book\" }) {
    order { id number status }
    userErrors { code message }
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

/// `/schema.graphql`.
pub(super) fn schema(sdl: &str) -> ([(header::HeaderName, &'static str); 1], String) {
    ([(header::CONTENT_TYPE, "application/graphql; charset=utf-8")], sdl.to_owned())
}

/// `/`: where to go from here.
#[derive(Clone)]
pub(super) struct StartPage {
    links: String,
    token: Option<String>,
}

impl StartPage {
    pub(super) fn new(options: &EndpointOptions) -> Self {
        let link = |shown: bool, href: &str, text: &str| {
            if shown { format!("<li><a href=\"{href}\">{href}</a> {text}</li>") } else { String::new() }
        };
        let links = [
            link(options.graphiql, "/graphiql", "try the API, with its documentation and live subscriptions"),
            link(options.introspection, "/schema.graphql", "the schema, for code generators"),
            link(true, "/health/ready", "what is ready"),
        ];
        Self { links: links.concat(), token: options.demo_user.as_ref().map(|user| user.token.clone()) }
    }

    /// The curl line names the host that the reader's browser used.
    pub(super) fn render(&self, headers: &HeaderMap) -> Html<String> {
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).and_then(|host| host.parse::<Authority>().ok());
        let host = host.map_or_else(|| "localhost:8000".to_owned(), |host| host.to_string());
        let token = self.token.as_deref().unwrap_or("$TOKEN");
        Html(format!(include_str!("start_page.html"), links = self.links, host = host, token = token))
    }
}

//! The public HTTP server: `/graphql` over both services, GraphiQL, the schema, and a start page.

mod authenticator;
mod guard;
pub(crate) mod internal;
mod late;
mod pages;

use std::sync::Arc;

use axum::{Router, http::HeaderMap, middleware, routing::get};
use gateway::{Caller, Gateway, GatewayError, HttpSubgraph, HttpSubgraphOptions, Limits, LocalSubgraph, Subgraph, SubgraphError};
use graphql_transport::{OriginPattern, TransportOptions};
use runtime::{auth::TokenVerifier, settings::SettingError, traces::traced};
use tower_http::{cors::CorsLayer, trace::TraceLayer};

use self::authenticator::BearerTokens;
pub use self::{late::LateRouter, pages::DemoUser};
use crate::graphql::{self, OrdersSchema, Viewer};

/// Composed from both subgraphs by `make schema`.
pub const SUPERGRAPH: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../schema/graphql/supergraph.graphql"));
/// Names of the subgraphs in the supergraph.
const ORDERS: &str = "orders";
const PAYMENTS: &str = "payments";

/// What the public endpoint offers, and to whom.
#[derive(Debug, Clone, Default)]
pub struct EndpointOptions {
    /// Serves GraphiQL at `/graphiql`.
    pub graphiql: bool,
    /// Answers `__schema` and `__type`, and serves `/schema.graphql`.
    pub introspection: bool,
    /// Browser origins that may call; pages of other origins get no answer.
    pub cors_origins: Vec<OriginPattern>,
    /// When set, requests must be meant for this machine: their `Host` is a loopback name. Keeps web pages from reaching a server on the
    /// reader's own machine through a DNS name that resolves to it.
    pub loopback_only: bool,
    /// GraphiQL is signed in as this user.
    pub demo_user: Option<DemoUser>,
}

/// What the endpoint is built from.
pub struct EndpointParts {
    /// The orders subgraph, in process.
    pub schema: OrdersSchema,
    /// For the orders subgraph's loaders.
    pub database: database::Database,
    /// Where Payments' subgraph answers.
    pub payments_url: String,
    /// Checks tokens.
    pub verifier: TokenVerifier,
    /// Bounds, and the signal to drain.
    pub transport: TransportOptions,
}

/// Why there is no endpoint.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The supergraph that is compiled in does not fit this build.
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    /// The URL of Payments is none.
    #[error(
        "PAYMENTS_URL is {url:?}, but must be the payments subgraph, for example http://payment-service:8001/graphql: {source}"
    )]
    PaymentsUrl {
        /// What was read.
        url: String,
        /// What is wrong with it.
        source: SubgraphError,
    },
}

/// The gateway over both subgraphs.
///
/// # Errors
/// [`EndpointError`].
fn gateway(parts: &EndpointParts, introspection: bool) -> Result<Gateway, EndpointError> {
    let database = parts.database.clone();
    let orders = LocalSubgraph::new(parts.schema.clone(), move |request, caller: &Caller| {
        let viewer = caller.extensions.get::<Viewer>().cloned().unwrap_or_default();
        graphql::prepare(request, viewer, &database)
    });
    let limits = Limits { introspection, ..Limits::default() };
    over(Arc::new(orders), &parts.payments_url, limits)
}

fn over(orders: Arc<dyn Subgraph>, payments_url: &str, limits: Limits) -> Result<Gateway, EndpointError> {
    runtime::install_tls_provider();
    let payments = HttpSubgraph::new(payments_url, HttpSubgraphOptions::default())
        .map_err(|source| EndpointError::PaymentsUrl { url: payments_url.to_owned(), source })?;
    Ok(Gateway::new(SUPERGRAPH, vec![(ORDERS.to_owned(), orders), (PAYMENTS.to_owned(), Arc::new(payments))], limits)?)
}

/// The public schema, as clients see it; asks no subgraph.
///
/// # Errors
/// [`EndpointError`].
pub fn public_sdl() -> Result<String, EndpointError> {
    runtime::install_tls_provider();
    let nowhere = "http://localhost/graphql";
    let orders = HttpSubgraph::new(nowhere, HttpSubgraphOptions::default())
        .map_err(|source| EndpointError::PaymentsUrl { url: nowhere.to_owned(), source })?;
    Ok(over(Arc::new(orders), nowhere, Limits::default())?.public_sdl().to_owned())
}

/// All public routes.
///
/// # Errors
/// [`EndpointError`].
pub fn router(parts: EndpointParts, options: &EndpointOptions) -> Result<Router, EndpointError> {
    let gateway = gateway(&parts, options.introspection)?;
    let authenticator = Arc::new(BearerTokens { verifier: parts.verifier.clone() });
    let start_page = pages::StartPage::new(options);
    let mut router = Router::new().route("/", get(async move |headers: HeaderMap| start_page.render(&headers)));
    if options.introspection {
        let sdl: Arc<str> = gateway.public_sdl().into();
        router = router.route("/schema.graphql", get(async move || pages::schema(&sdl)));
    }
    if options.graphiql {
        router = router.merge(pages::graphiql(options)).route("/docs", get(pages::docs));
    }
    let transport = TransportOptions { allowed_origins: Some(options.cors_origins.clone()), ..parts.transport };
    router = router.merge(traced(graphql_transport::router(gateway, authenticator, transport)));
    router = router.layer(cors(&options.cors_origins));
    if options.loopback_only {
        router = router.layer(middleware::from_fn(guard::require_loopback_host));
    }
    Ok(router.layer(TraceLayer::new_for_http()))
}

/// As the setting `CORS_ORIGINS` has them: separated by commas, none when empty.
///
/// # Errors
/// When one of them is no origin.
pub fn cors_origins(text: &str) -> Result<Vec<OriginPattern>, SettingError> {
    let allowed = |error| format!("origins such as https://shop.example, separated by commas ({error})");
    OriginPattern::parse_list(text).map_err(|error| SettingError::invalid("CORS_ORIGINS", text, allowed(error)))
}

/// Lets pages of the allowed origins call with a token. Tokens travel in a header, never in a cookie, so no credentials are allowed.
fn cors(origins: &[OriginPattern]) -> CorsLayer {
    use axum::http::{HeaderName, Method, header};
    let origins = origins.to_vec();
    CorsLayer::new()
        .allow_origin(tower_http::cors::AllowOrigin::predicate(move |origin, _| {
            origin.to_str().is_ok_and(|origin| origins.iter().any(|pattern| pattern.matches(origin)))
        }))
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([header::AUTHORIZATION, header::CONTENT_TYPE, header::ACCEPT, HeaderName::from_static("traceparent")])
}

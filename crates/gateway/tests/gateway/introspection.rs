//! Introspection and the public schema: what clients see, and nothing of how it is put together.

use async_graphql::Request;
use gateway::Limits;
use serde_json::{Value, json};

use crate::support::World;

/// What GraphiQL asks.
const FULL: &str = "query IntrospectionQuery { __schema { queryType { name } mutationType { name } subscriptionType { name }
    types { ...FullType } directives { name description locations args { ...InputValue } } } }
    fragment FullType on __Type { kind name description specifiedByURL
      fields(includeDeprecated: true) { name description args { ...InputValue } type { ...TypeRef } isDeprecated deprecationReason }
      inputFields { ...InputValue } interfaces { ...TypeRef } enumValues(includeDeprecated: true) { name description isDeprecated deprecationReason }
      possibleTypes { ...TypeRef } }
    fragment InputValue on __InputValue { name description type { ...TypeRef } defaultValue }
    fragment TypeRef on __Type { kind name ofType { kind name ofType { kind name ofType { kind name ofType { kind name
      ofType { kind name ofType { kind name ofType { kind name ofType { kind name ofType { kind name } } } } } } } } } }";

#[tokio::test]
async fn the_whole_schema_is_answered_without_any_subgraph_and_shows_nothing_of_federation() {
    let world = World::start().await;
    let answer = world.ask(FULL).await;
    let text = answer.ok();
    for hidden in ["join__", "link", "_Any", "_Entity", "_service", "secret", "HIDDEN", "inaccessible"] {
        assert!(!text.contains(hidden), "{hidden}");
    }
    let schema: Value = serde_json::from_str(&text).unwrap();
    let types = schema["__schema"]["types"].as_array().unwrap();
    let named = |name: &str| types.iter().find(|ty| ty["name"] == name).unwrap();
    assert_eq!(named("Isbn")["specifiedByURL"], "https://www.isbn-international.org/");
    let pages = named("Book")["fields"].as_array().unwrap().iter().find(|field| field["name"] == "pages").unwrap();
    assert_eq!(pages["deprecationReason"], "count words");
    assert_eq!(named("Book")["description"], "A printed work.");
    assert!(world.books.calls().is_empty() && world.reviews.calls().is_empty());
}

#[tokio::test]
async fn introspection_stands_beside_other_fields_in_the_order_of_the_query() {
    let world = World::start().await;
    let query = "query($name: String!, $no: Boolean!) { a: book(id: \"b1\") { id } t: __type(name: $name) { name fields { name @skip(if: $no) } }
        __typename none: __type(name: \"join__Graph\") { name } ...S } fragment S on Query { __schema { queryType { name } } b: nothing { id } }";
    let answer = world.ask_with(query, json!({ "name": "Magazine", "no": false })).await;
    assert_eq!(
        answer.ok(),
        r#"{"a":{"id":"b1"},"t":{"name":"Magazine","fields":[{"name":"id"},{"name":"issue"}]},"__typename":"Query","none":null,"__schema":{"queryType":{"name":"Query"}},"b":null}"#
    );
}

#[tokio::test]
async fn introspection_that_is_switched_off_is_refused_clearly_and_typename_stays() {
    let limits = Limits { introspection: false, ..Limits::default() };
    let world = World::with_limits(limits).await;
    let refused = world.ask("{ book(id: \"b1\") { id } ... { __schema { queryType { name } } } }").await;
    assert_eq!(refused.rejected(), "GRAPHQL_VALIDATION_FAILED");
    assert!(refused.errors()[0].contains("introspection is switched off"));
    assert_eq!(
        world.ask("{ __typename book(id: \"b1\") { __typename } }").await.ok(),
        r#"{"__typename":"Query","book":{"__typename":"Book"}}"#
    );

    let world = World::start().await;
    let request = Request::new("{ __type(name: \"Book\") { name } }").disable_introspection();
    assert_eq!(world.send(request).await.rejected(), "GRAPHQL_VALIDATION_FAILED");
}

#[tokio::test]
async fn introspection_that_would_grow_with_each_level_is_refused() {
    let world = World::start().await;
    let query = "{ __schema { types { fields { type { fields { type { fields { type { name } } } } } } } } }";
    assert_eq!(world.ask(query).await.rejected(), "LIMIT_EXCEEDED");
    let deep = format!("{{ __type(name: \"Book\") {{ {} name {} }} }}", "ofType { ".repeat(30), "} ".repeat(30));
    assert_eq!(world.ask(&deep).await.rejected(), "LIMIT_EXCEEDED");
}

#[tokio::test]
async fn the_public_schema_is_what_clients_may_rely_on() {
    let world = World::start().await;
    let sdl = world.gateway.public_sdl();
    let expected = include_str!("../fixtures/public.graphql");
    if std::env::var_os("UPDATE_FIXTURES").is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/public.graphql"), sdl).unwrap();
    } else {
        assert_eq!(sdl, expected);
    }
    assert!(sdl.contains("@specifiedBy(url: \"https://www.isbn-international.org/\")"));
    assert!(sdl.contains("@deprecated(reason: \"count words\")"));
    assert!(async_graphql::parser::parse_schema(sdl).is_ok());
}

//! The fixtures are what the subgraphs of the tests export.

use std::path::Path;

use async_graphql::SDLExportOptions;

use crate::support::{books, reviews};

/// `tests/fixtures/README.md` says how to make them again.
fn check(name: &str, actual: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    if std::env::var_os("UPDATE_FIXTURES").is_some() {
        std::fs::write(&path, actual).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap_or_default(), actual, "{name} is out of date");
}

fn options() -> SDLExportOptions {
    SDLExportOptions::new().federation().include_specified_by().sorted_fields().sorted_arguments().sorted_enum_items()
}

#[test]
fn the_supergraph_is_not_composed_from_other_subgraphs_than_those_tested() {
    check("books.graphql", &books::schema(std::sync::Arc::default()).sdl_with_options(options()));
    check("reviews.graphql", &reviews::schema().sdl_with_options(options()));
}

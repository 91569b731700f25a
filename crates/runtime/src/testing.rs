//! What tests of the services' settings read (feature `testing`): the names that a program knows, that the documentation explains, and that
//! a deployment uses.

use std::collections::BTreeSet;

/// The environment variables in the text of `--help`.
pub fn names_in_help(help: &str) -> BTreeSet<String> {
    help.split("[env: ").skip(1).map(leading_name).collect()
}

/// The names in code quotes in the first column of the tables of a Markdown text.
pub fn names_in_tables(markdown: &str) -> BTreeSet<String> {
    let cells = markdown.lines().filter_map(|line| line.strip_prefix("| `")?.split(" |").next());
    cells.flat_map(|cell| cell.split("`, `").map(leading_name)).collect()
}

/// The names below `environment:` of one service of a Compose file, or of the anchor that it is made from.
pub fn names_in_compose(compose: &str, service: &str) -> BTreeSet<String> {
    let mut lines = compose.lines().skip_while(|line| !line.trim_start().starts_with(&format!("{service}:")));
    let environment = lines.by_ref().skip_while(|line| line.trim() != "environment:").skip(1);
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut environment = environment.peekable();
    let depth = environment.peek().map_or(0, |line| indent(line));
    environment.take_while(|line| indent(line) == depth).map(|line| leading_name(line.trim_start())).collect()
}

fn leading_name(text: &str) -> String {
    text.chars().take_while(|c| c.is_ascii_uppercase() || *c == '_').collect()
}

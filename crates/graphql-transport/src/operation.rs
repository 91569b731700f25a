//! Which kind of operation a document asks for, without parsing it.
//!
//! A mutation must be known before it is executed: it may not come over GET, and it must survive its client. A full parse costs
//! more than the rest of the transport, and parsers behind us differ in what they accept. This scan looks only at the top
//! level: on a valid document it is exact, and for anything else the executor's own parser has the last word, while
//! [`Outline::kind`] leans to the careful side. It does not recurse, and it refuses nesting that could exhaust the stack of a
//! recursive parser.

/// More brackets inside each other than any sensible document has; recursive parsers overflow the stack in the thousands.
const MAX_NESTING: usize = 256;

/// The three kinds of operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OperationKind {
    Query,
    Mutation,
    Subscription,
}

impl OperationKind {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::Mutation => "mutation",
            Self::Subscription => "subscription",
        }
    }
}

/// Brackets are nested deeper than [`MAX_NESTING`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the document is nested deeper than {MAX_NESTING} levels")]
pub(crate) struct TooDeep;

/// What the top level of a document shows.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Outline {
    selected: Option<OperationKind>,
    has_mutation: bool,
}

impl Outline {
    /// The kind to prepare for. When the selection is unclear (the executor will refuse it), a mutation anywhere counts.
    pub(crate) fn kind(&self) -> OperationKind {
        match self.selected {
            Some(kind) => kind,
            None if self.has_mutation => OperationKind::Mutation,
            None => OperationKind::Query,
        }
    }
}

/// Scans `document` for its operations and picks the one called `operation_name`, or the only one.
pub(crate) fn outline(document: &str, operation_name: Option<&str>) -> Result<Outline, TooDeep> {
    let mut scan = Scan { tokens: Tokens(document.as_bytes()), operations: 0, matches: 0, outline: Outline::default() };
    scan.run(operation_name)?;
    let Scan { operations, matches, mut outline, .. } = scan;
    let candidates = if operation_name.is_some() { matches } else { operations };
    if candidates != 1 {
        outline.selected = None;
    }
    Ok(outline)
}

struct Scan<'a> {
    tokens: Tokens<'a>,
    operations: usize,
    matches: usize,
    outline: Outline,
}

impl Scan<'_> {
    fn run(&mut self, wanted: Option<&str>) -> Result<(), TooDeep> {
        // The operation whose head we are in, with its name once it is known.
        let mut head: Option<OperationKind> = None;
        let mut in_head = false;
        let mut just_after_keyword = false;
        let mut depth = 0_usize;
        while let Some(token) = self.tokens.next() {
            let after_keyword = std::mem::take(&mut just_after_keyword);
            match token {
                Token::Open(bracket) => {
                    if depth == 0 && bracket == b'{' {
                        if !in_head {
                            self.operation(OperationKind::Query, None, wanted);
                        } else if let Some(kind) = head.take() {
                            self.operation(kind, None, wanted);
                        }
                        in_head = false;
                    }
                    depth += 1;
                    if depth > MAX_NESTING {
                        return Err(TooDeep);
                    }
                }
                Token::Close => depth = depth.saturating_sub(1),
                Token::Name(name) if depth == 0 && !in_head => {
                    in_head = true;
                    head = match name {
                        b"query" => Some(OperationKind::Query),
                        b"mutation" => Some(OperationKind::Mutation),
                        b"subscription" => Some(OperationKind::Subscription),
                        _ => None,
                    };
                    just_after_keyword = head.is_some();
                }
                Token::Name(name) if after_keyword => {
                    if let Some(kind) = head.take() {
                        self.operation(kind, Some(name), wanted);
                    }
                }
                Token::Name(_) | Token::Other => {}
            }
        }
        // A head without a selection set: not valid, but a mutation is a mutation.
        if let Some(kind) = head {
            self.operation(kind, None, wanted);
        }
        Ok(())
    }

    fn operation(&mut self, kind: OperationKind, name: Option<&[u8]>, wanted: Option<&str>) {
        self.operations += 1;
        self.outline.has_mutation |= kind == OperationKind::Mutation;
        let matches = wanted.is_some_and(|wanted| name == Some(wanted.as_bytes()));
        self.matches += usize::from(matches);
        if matches || wanted.is_none() {
            self.outline.selected = Some(kind);
        }
    }
}

enum Token<'a> {
    Name(&'a [u8]),
    Open(u8),
    Close,
    Other,
}

struct Tokens<'a>(&'a [u8]);

impl<'a> Tokens<'a> {
    fn next(&mut self) -> Option<Token<'a>> {
        loop {
            let (&first, rest) = self.0.split_first()?;
            match first {
                b'#' => {
                    let end = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')).unwrap_or(rest.len());
                    self.0 = &rest[end..];
                }
                b'"' => {
                    self.string();
                    return Some(Token::Other);
                }
                b'{' | b'(' | b'[' => {
                    self.0 = rest;
                    return Some(Token::Open(first));
                }
                b'}' | b')' | b']' => {
                    self.0 = rest;
                    return Some(Token::Close);
                }
                b'_' | b'a'..=b'z' | b'A'..=b'Z' => {
                    let is_name = |byte: &u8| *byte == b'_' || byte.is_ascii_alphanumeric();
                    let end = self.0.iter().position(|byte| !is_name(byte)).unwrap_or(self.0.len());
                    let (name, rest) = self.0.split_at(end);
                    self.0 = rest;
                    return Some(Token::Name(name));
                }
                // White space, commas and the byte order mark mean nothing in GraphQL.
                b' ' | b'\t' | b'\n' | b'\r' | b',' | 0xEF | 0xBB | 0xBF => self.0 = rest,
                _ => {
                    self.0 = rest;
                    return Some(Token::Other);
                }
            }
        }
    }

    /// Skips a string or block string; one that does not end takes the rest of the document with it.
    fn string(&mut self) {
        if let Some(mut rest) = self.0.strip_prefix(b"\"\"\"") {
            while !rest.is_empty() {
                if let Some(after) = rest.strip_prefix(b"\\\"\"\"") {
                    rest = after;
                } else if let Some(after) = rest.strip_prefix(b"\"\"\"") {
                    self.0 = after;
                    return;
                } else {
                    rest = &rest[1..];
                }
            }
            self.0 = rest;
            return;
        }
        let mut rest = &self.0[1..];
        while let Some((&byte, after)) = rest.split_first() {
            rest = after;
            match byte {
                b'\\' => rest = rest.get(1..).unwrap_or_default(),
                // A line end closes it too: the string is broken, but what follows must not hide inside it.
                b'"' | b'\n' | b'\r' => break,
                _ => {}
            }
        }
        self.0 = rest;
    }
}

#[cfg(test)]
mod tests {
    use async_graphql::parser::types::OperationType;

    use super::*;

    fn kind(document: &str, name: Option<&str>) -> OperationKind {
        outline(document, name).unwrap().kind()
    }

    #[test]
    fn the_scan_agrees_with_the_parser_on_valid_documents() {
        let documents = [
            "{ a }",
            "query { a }",
            "query A { a } mutation B { b } subscription C { c }",
            "mutation B { b } query A { a }",
            "# mutation X { x }\nquery A { a }",
            "query A($x: In = {mutation: [\"}\", \"mutation\"]}) @skip(if: false) { mutation(a: \"{\") { query } }",
            "fragment mutation on Query { a } query A { ...mutation }",
            "fragment F on Query { a } mutation B { ...F }",
            "query mutation { a }",
            "mutation query { a }",
            "query A { a(s: \"\"\"mutation { \\\"\"\" } \"\"\") } mutation B { b }",
            "\u{feff},,mutation,B,{b}",
            "query A{a(s:\"\\\"{\")}mutation B{b}",
            "subscription @live { a }",
        ];
        for document in documents {
            let parsed = async_graphql::parser::parse_query(document).unwrap_or_else(|error| panic!("{document}: {error}"));
            let mut operations = 0;
            for (name, operation) in parsed.operations.iter() {
                operations += 1;
                let expected = match operation.node.ty {
                    OperationType::Query => OperationKind::Query,
                    OperationType::Mutation => OperationKind::Mutation,
                    OperationType::Subscription => OperationKind::Subscription,
                };
                assert_eq!(kind(document, name.map(async_graphql::Name::as_str)), expected, "{document} / {name:?}");
            }
            assert!(operations > 0);
        }
    }

    #[test]
    fn a_mutation_cannot_hide_in_a_document_that_is_unclear() {
        assert_eq!(kind("query A { a } mutation B { b }", None), OperationKind::Mutation);
        assert_eq!(kind("query A { a } mutation B { b }", Some("C")), OperationKind::Mutation);
        assert_eq!(kind("query A { a(s: \"broken\n) } mutation B { b }", Some("B")), OperationKind::Mutation);
        assert_eq!(kind("query A { a } mutation A { b }", Some("A")), OperationKind::Mutation);
        assert_eq!(kind("mutation", None), OperationKind::Mutation);
        assert_eq!(kind("}}} mutation { a }", None), OperationKind::Mutation);
    }

    #[test]
    fn the_other_operations_of_a_document_do_not_matter() {
        assert_eq!(kind("query A { a } mutation B { b }", Some("A")), OperationKind::Query);
        assert_eq!(kind("query A { a } subscription C { c }", Some("C")), OperationKind::Subscription);
    }

    #[test]
    fn nesting_that_would_exhaust_a_parser_is_refused() {
        assert_eq!(outline(&"{a".repeat(MAX_NESTING + 1), None), Err(TooDeep));
        assert_eq!(outline(&format!("{{a(x:{})}}", "[".repeat(100_000)), None), Err(TooDeep));
        assert!(outline(&"{a".repeat(MAX_NESTING), None).is_ok());
    }

    #[test]
    fn a_parser_survives_the_deepest_document_that_is_let_through() {
        // On the stack of a worker thread; an overflow would abort the process.
        let document = format!("{}{}", "{a".repeat(MAX_NESTING), "}".repeat(MAX_NESTING));
        let list = format!("{{a(x:{}{})}}", "[".repeat(MAX_NESTING - 2), "]".repeat(MAX_NESTING - 2));
        std::thread::Builder::new()
            .stack_size(2 * 1024 * 1024)
            .spawn(move || {
                let _ = async_graphql::parser::parse_query(document);
                let _ = async_graphql::parser::parse_query(list);
            })
            .unwrap()
            .join()
            .unwrap();
    }
}

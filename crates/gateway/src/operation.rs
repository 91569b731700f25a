//! From a document's text to an operation that may be planned.
//!
//! Order: length, tokens and nesting (while parsing), cost ([`limits`]), validation against the public schema.
//! Everything here depends on the document alone, so its result is kept per document.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};

use apollo_compiler::ast::DirectiveList;
use apollo_compiler::executable::{self, Selection, SelectionSet};
use apollo_compiler::parser::Parser;
use apollo_compiler::response::GraphQLError;
use apollo_compiler::validation::{DiagnosticList, Valid};
use apollo_compiler::{ExecutableDocument, Name, Node, ast, introspection};
use async_graphql::Pos;

use crate::error::{ErrorCode, Rejection};
use crate::limits::{self, Limits};
use crate::plan::REPRESENTATIONS;
use crate::subgraph::OperationKind;
use crate::supergraph::{ALIAS_PREFIX, Supergraph};

/// A valid document with all its operations.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) executable: Valid<ExecutableDocument>,
    operations: Vec<Operation>,
    /// How much room it takes in a cache, in entries of ordinary size.
    pub(crate) weight: u32,
}

/// One operation of a document.
#[derive(Debug)]
pub(crate) struct Operation {
    /// Different for every operation that was ever parsed: plans are kept under it.
    pub(crate) id: u64,
    pub(crate) kind: OperationKind,
    pub(crate) definition: Node<executable::Operation>,
    /// The variables that decide about `@skip` and `@include`, in order of appearance.
    pub(crate) conditions: Vec<Name>,
    /// Whether a root field is `__schema` or `__type`.
    pub(crate) introspects: bool,
}

impl Document {
    /// Parses and validates. Takes time in proportion to the length of `text`, which the caller has bounded.
    pub(crate) fn parse(text: &str, supergraph: &Supergraph, limits: &Limits) -> Result<Self, Rejection> {
        let mut parser = Parser::new().recursion_limit(limits.max_recursion).token_limit(limits.max_tokens);
        let parsed = parser.parse_ast(text, "operation.graphql");
        if parser.tokens_reached() > limits.max_tokens {
            return Err(too_much("tokens", limits.max_tokens));
        }
        if parser.recursion_reached() > limits.max_recursion {
            return Err(too_much("nested levels", limits.max_recursion));
        }
        let ast = parsed.map_err(|failure| rejection(ErrorCode::GraphqlParseFailed, &failure.errors))?;
        limits::check(&ast, limits)?;
        refuse_reserved_names(&ast)?;
        let executable = ast
            .to_executable_validate(&supergraph.public)
            .map_err(|failure| rejection(ErrorCode::GraphqlValidationFailed, &failure.errors))?;
        let mut operations = Vec::with_capacity(executable.operations.len());
        for definition in executable.operations.iter() {
            operations.push(Operation::new(definition, &executable, limits)?);
        }
        let weight = 1 + u32::try_from(text.len() / BYTES_PER_WEIGHT).unwrap_or(u32::MAX - 1);
        Ok(Self { executable, operations, weight })
    }

    /// The operation with this id, which is one of this document's.
    pub(crate) fn operation_by_id(&self, id: u64) -> Result<&Operation, Rejection> {
        let found = self.operations.iter().find(|operation| operation.id == id);
        found.ok_or_else(|| Rejection::new(ErrorCode::InternalServerError, "the operation cannot be planned"))
    }

    /// The operation to run: the one of that name, or the only one.
    pub(crate) fn operation(&self, name: Option<&str>) -> Result<&Operation, Rejection> {
        // Clients send an empty name when there is none.
        let name = name.filter(|name| !name.is_empty());
        let found = match name {
            Some(name) => self.operations.iter().find(|operation| operation.name() == Some(name)),
            None if self.operations.len() == 1 => self.operations.first(),
            None => None,
        };
        found.ok_or_else(|| {
            let message = match name {
                Some(name) => format!("the document has no operation named `{name}`"),
                None if self.operations.is_empty() => "the document has no operation".to_owned(),
                None => "the document has several operations: say which one with `operationName`".to_owned(),
            };
            Rejection::new(ErrorCode::BadUserInput, message)
        })
    }
}

/// Text of this length counts as one more entry of a cache. 2 KiB: an ordinary operation.
const BYTES_PER_WEIGHT: usize = 2 * 1024;

fn too_much(what: &str, limit: usize) -> Rejection {
    Rejection::new(ErrorCode::LimitExceeded, format!("the document must not have more than {limit} {what}"))
}

fn rejection(code: ErrorCode, errors: &DiagnosticList) -> Rejection {
    Rejection::from_messages(code, errors.iter().map(|diagnostic| message(diagnostic.to_json())))
}

fn message(error: GraphQLError) -> (String, Vec<Pos>) {
    let locations = error.locations.iter().map(|at| Pos { line: at.line, column: at.column }).collect();
    (error.message, locations)
}

/// In front of names that the gateway and the planner make for themselves. The specification reserves two underscores for it.
const RESERVED: [&str; 3] = ["__", "_internal_", ALIAS_PREFIX];

/// `__typename` under any name is harmless: it is answered here, and compilers of clients ask for it as `__isNode`.
fn refuse_reserved_names(document: &ast::Document) -> Result<(), Rejection> {
    fn check(selections: &[ast::Selection]) -> Result<(), Rejection> {
        for selection in selections {
            match selection {
                ast::Selection::Field(field) => {
                    if let Some(alias) = &field.alias
                        && field.name != "__typename"
                        && RESERVED.iter().any(|prefix| alias.starts_with(prefix))
                    {
                        return Err(reserved("alias", alias));
                    }
                    check(&field.selection_set)?;
                }
                ast::Selection::InlineFragment(fragment) => check(&fragment.selection_set)?,
                ast::Selection::FragmentSpread(_) => {}
            }
        }
        Ok(())
    }
    for definition in &document.definitions {
        match definition {
            ast::Definition::OperationDefinition(operation) => {
                if operation.variables.iter().any(|variable| variable.name == REPRESENTATIONS) {
                    return Err(reserved("variable", REPRESENTATIONS));
                }
                check(&operation.selection_set)?;
            }
            ast::Definition::FragmentDefinition(fragment) => check(&fragment.selection_set)?,
            _ => {}
        }
    }
    Ok(())
}

fn reserved(what: &str, name: &str) -> Rejection {
    Rejection::new(ErrorCode::GraphqlValidationFailed, format!("the {what} `{name}` is reserved"))
}

impl Operation {
    fn new(
        definition: &Node<executable::Operation>,
        document: &Valid<ExecutableDocument>,
        limits: &Limits,
    ) -> Result<Self, Rejection> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        let kind = match definition.operation_type {
            ast::OperationType::Query => OperationKind::Query,
            ast::OperationType::Mutation => OperationKind::Mutation,
            ast::OperationType::Subscription => OperationKind::Subscription,
        };
        let introspects = definition.root_fields(document).any(|field| matches!(field.name.as_str(), "__schema" | "__type"));
        if introspects {
            introspection::check_max_depth(document, definition)
                .map_err(|error| Rejection::new(ErrorCode::LimitExceeded, error.message().to_string()))?;
        }
        let conditions = conditions(definition, document);
        if conditions.len() > limits.max_conditions {
            return Err(too_much("variables in `@skip` and `@include`", limits.max_conditions));
        }
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        Ok(Self { id, kind, definition: definition.clone(), conditions, introspects })
    }

    /// The operation's name, if it has one.
    pub(crate) fn name(&self) -> Option<&str> {
        self.definition.name.as_ref().map(Name::as_str)
    }
}

fn conditions(operation: &executable::Operation, document: &ExecutableDocument) -> Vec<Name> {
    struct Search<'d> {
        document: &'d ExecutableDocument,
        seen: HashSet<&'d Name>,
        found: Vec<Name>,
    }
    impl<'d> Search<'d> {
        fn directives(&mut self, directives: &'d DirectiveList) {
            for directive in &directives.0 {
                if let ("skip" | "include", Some(value)) = (directive.name.as_str(), directive.specified_argument_by_name("if"))
                    && let ast::Value::Variable(name) = value.as_ref()
                    && !self.found.contains(name)
                {
                    self.found.push(name.clone());
                }
            }
        }

        fn selections(&mut self, set: &'d SelectionSet) {
            for selection in &set.selections {
                self.directives(selection.directives());
                match selection {
                    Selection::Field(field) => self.selections(&field.selection_set),
                    Selection::InlineFragment(fragment) => self.selections(&fragment.selection_set),
                    Selection::FragmentSpread(spread) => {
                        if self.seen.insert(&spread.fragment_name)
                            && let Some(fragment) = spread.fragment_def(self.document)
                        {
                            self.selections(&fragment.selection_set);
                        }
                    }
                }
            }
        }
    }
    let mut search = Search { document, seen: HashSet::new(), found: Vec::new() };
    search.selections(&operation.selection_set);
    search.found
}

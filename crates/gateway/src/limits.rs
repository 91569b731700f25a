//! What one public document may cost.
//!
//! The public document never reaches a subgraph whole, so the limits of the subgraphs do not protect the gateway. Everything
//! here is counted on the syntax tree before validation: each fragment is costed once and its cost is added at every spread,
//! so that a document of nested fragments whose expansion would be astronomic is refused in linear time.

use std::collections::HashMap;
use std::time::Duration;

use apollo_compiler::Name;
use apollo_compiler::ast::{Definition, Document, FragmentDefinition, Selection};

use crate::error::{ErrorCode, Rejection};

/// The bounds of one gateway. Every field has a default that the documented reason stands for.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Length of the document in bytes. 64 KiB: generated clients' largest documents stay below half of it.
    pub max_document_bytes: usize,
    /// Lexical tokens of the document. 10,000: what 64 KiB of ordinary GraphQL hold; bounds the work of the parser.
    pub max_tokens: usize,
    /// Nesting while parsing (selection sets, lists, input objects). 64: far beyond [`max_depth`](Self::max_depth), far below what
    /// overflows a stack.
    pub max_recursion: usize,
    /// Levels of fields, root fields being the first. 15: lists in lists in lists multiply with each level.
    pub max_depth: usize,
    /// Levels of fields below and including `__schema` and `__type`. 20: GraphiQL asks for 14.
    pub max_introspection_depth: usize,
    /// Root fields of an operation, fragments expanded. 20: each may be a request to a subgraph of its own.
    pub max_root_fields: usize,
    /// Aliases of an operation, fragments expanded. 50: aliases ask for the same field many times.
    pub max_aliases: usize,
    /// Fields of an operation, fragments expanded. 1,000: bounds validation, planning and the shape of the answer.
    pub max_fields: usize,
    /// Directives of an operation, fragments expanded. 100: each is evaluated per selection.
    pub max_directives: usize,
    /// Variables that decide about `@skip` and `@include`. 16: every combination of their values is a plan of its own.
    pub max_conditions: usize,
    /// Whether `__schema` and `__type` are answered.
    pub introspection: bool,
    /// Documents kept parsed, and plans kept, each. 1,024: an API has some hundred distinct operations. Large operations
    /// count for several.
    pub plan_cache_entries: u64,
    /// How long one operation may be planned. 2 s: ordinary plans take less than 5 ms.
    pub planning_timeout: Duration,
    /// Operations planned at the same time; others wait for at most [`planning_timeout`](Self::planning_timeout). 2: planning
    /// burns a whole core, and the cores are needed for execution.
    pub max_concurrent_plans: usize,
    /// Entities asked for in one call of a subgraph. 100: a page of a connection; keeps each call's answer bounded.
    pub entities_per_call: usize,
    /// Different entities of one fetch; a fetch that needs more is not made. 10,000: a page of pages. Bounds how many calls one
    /// small operation over nested lists can cause.
    pub max_entities_per_fetch: usize,
    /// Values that one operation may have more than once, because an entity stands at several places. 200,000: a page of pages of the same
    /// entity. Bounds the memory of small operations that go round in circles.
    pub max_repeated_values: usize,
    /// Entity calls of one fetch that are under way at the same time. 4: enough to hide latency without a stampede.
    pub concurrent_entity_calls: usize,
    /// Errors of one answer; later ones are left out. 200: enough to see what is wrong.
    pub max_response_errors: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_document_bytes: 64 * 1024,
            max_tokens: 10_000,
            max_recursion: 64,
            max_depth: 15,
            max_introspection_depth: 20,
            max_root_fields: 20,
            max_aliases: 50,
            max_fields: 1_000,
            max_directives: 100,
            max_conditions: 16,
            introspection: true,
            plan_cache_entries: 1_024,
            planning_timeout: Duration::from_secs(2),
            max_concurrent_plans: 2,
            entities_per_call: 100,
            max_entities_per_fetch: 10_000,
            max_repeated_values: 200_000,
            concurrent_entity_calls: 4,
            max_response_errors: 200,
        }
    }
}

/// What a selection set costs with all fragments expanded. Counts saturate.
#[derive(Debug, Clone, Copy, Default)]
struct Cost {
    fields: usize,
    /// Fields directly in this set, through fragments.
    direct_fields: usize,
    aliases: usize,
    directives: usize,
    depth: usize,
    introspection_depth: usize,
}

impl Cost {
    /// Adds a selection of the same set.
    fn beside(&mut self, other: Self) {
        self.fields = self.fields.saturating_add(other.fields);
        self.direct_fields = self.direct_fields.saturating_add(other.direct_fields);
        self.aliases = self.aliases.saturating_add(other.aliases);
        self.directives = self.directives.saturating_add(other.directives);
        self.depth = self.depth.max(other.depth);
        self.introspection_depth = self.introspection_depth.max(other.introspection_depth);
    }
}

struct Costing<'d> {
    fragments: HashMap<&'d Name, &'d FragmentDefinition>,
    /// `None` while the fragment is being costed: a spread that meets it closes a cycle, which validation refuses later.
    costs: HashMap<&'d Name, Option<Cost>>,
}

impl<'d> Costing<'d> {
    fn of_selections(&mut self, selections: &'d [Selection]) -> Cost {
        let mut total = Cost::default();
        for selection in selections {
            let cost = match selection {
                Selection::Field(field) => {
                    let below = self.of_selections(&field.selection_set);
                    let introspection = matches!(field.name.as_str(), "__schema" | "__type");
                    Cost {
                        fields: below.fields.saturating_add(1),
                        direct_fields: 1,
                        aliases: below.aliases.saturating_add(usize::from(field.alias.is_some())),
                        directives: below.directives.saturating_add(field.directives.len()),
                        // The two kinds of depth exclude each other, because introspection nests as deep as types do.
                        depth: if introspection { 1 } else { below.depth + 1 },
                        introspection_depth: if introspection { below.depth + 1 } else { below.introspection_depth },
                    }
                }
                Selection::InlineFragment(fragment) => {
                    let mut cost = self.of_selections(&fragment.selection_set);
                    cost.directives = cost.directives.saturating_add(fragment.directives.len());
                    cost
                }
                Selection::FragmentSpread(spread) => {
                    let mut cost = self.of_fragment(&spread.fragment_name);
                    cost.directives = cost.directives.saturating_add(spread.directives.len());
                    cost
                }
            };
            total.beside(cost);
        }
        total
    }

    fn of_fragment(&mut self, name: &'d Name) -> Cost {
        if let Some(known) = self.costs.get(name) {
            return known.unwrap_or_default();
        }
        let Some(fragment) = self.fragments.get(name).copied() else { return Cost::default() };
        self.costs.insert(name, None);
        let cost = self.of_selections(&fragment.selection_set);
        self.costs.insert(name, Some(cost));
        cost
    }
}

/// Refuses a document that costs too much, whichever of its operations is asked for.
pub(crate) fn check(document: &Document, limits: &Limits) -> Result<(), Rejection> {
    let mut costing = Costing { fragments: HashMap::new(), costs: HashMap::new() };
    for definition in &document.definitions {
        if let Definition::FragmentDefinition(fragment) = definition {
            costing.fragments.insert(&fragment.name, fragment);
        }
    }
    for definition in &document.definitions {
        if let Definition::OperationDefinition(operation) = definition {
            let cost = costing.of_selections(&operation.selection_set);
            let directives = cost.directives.saturating_add(operation.directives.len());
            within("depth", cost.depth, limits.max_depth)?;
            within("introspection depth", cost.introspection_depth, limits.max_introspection_depth)?;
            within("number of root fields", cost.direct_fields, limits.max_root_fields)?;
            within("number of aliases", cost.aliases, limits.max_aliases)?;
            within("number of directives", directives, limits.max_directives)?;
            within("number of fields, fragments expanded,", cost.fields, limits.max_fields)?;
        }
    }
    // A fragment that no operation uses is still validated.
    let unused: Vec<&Name> = costing.fragments.keys().copied().collect();
    for name in unused {
        let cost = costing.of_fragment(name);
        within("number of fields, fragments expanded,", cost.fields, limits.max_fields)?;
        within("depth", cost.depth, limits.max_introspection_depth)?;
    }
    Ok(())
}

fn within(what: &str, actual: usize, limit: usize) -> Result<(), Rejection> {
    if actual <= limit {
        return Ok(());
    }
    Err(Rejection::new(ErrorCode::LimitExceeded, format!("the {what} must not exceed {limit}")))
}

#[cfg(test)]
mod tests {
    use apollo_compiler::ast::Document;

    use super::*;

    fn cost_is_within(query: &str, limits: &Limits) -> bool {
        check(&Document::parse(query, "test.graphql").unwrap(), limits).is_ok()
    }

    #[test]
    fn a_fragment_costs_what_it_holds_at_every_spread() {
        let limits = |max_fields| Limits { max_fields, ..Limits::default() };
        let query = "{ a { ...F } b { ...F ... { c } } } fragment F on T { x { y } }";
        assert!(cost_is_within(query, &limits(7)));
        assert!(!cost_is_within(query, &limits(6)));
    }

    #[test]
    fn root_fields_are_counted_through_fragments_and_apart_from_what_is_below() {
        let limits = |max_root_fields| Limits { max_root_fields, ..Limits::default() };
        let query = "{ a { x y z } ...F ...F } fragment F on Query { b c }";
        assert!(cost_is_within(query, &limits(5)));
        assert!(!cost_is_within(query, &limits(4)));
    }

    #[test]
    fn counts_saturate_instead_of_overflowing() {
        let mut query = String::from("{ ...F0 }");
        for index in 0..200 {
            query.push_str(&format!(" fragment F{index} on T {{ ...F{next} ...F{next} }}", next = index + 1));
        }
        query.push_str(" fragment F200 on T { a @d b: c }");
        let limits = Limits {
            max_fields: usize::MAX - 1,
            max_root_fields: usize::MAX,
            max_aliases: usize::MAX,
            max_directives: usize::MAX,
            ..Limits::default()
        };
        assert!(!cost_is_within(&query, &limits));
    }

    #[test]
    fn a_cycle_ends() {
        assert!(cost_is_within("{ ...A } fragment A on T { a ...B } fragment B on T { b ...A }", &Limits::default()));
    }
}

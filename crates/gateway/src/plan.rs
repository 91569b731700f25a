//! A plan: which subgraph is asked what, in which order, and the shape of the answer.
//!
//! The planner's tree is translated once into the form that execution wants: names shared, variables listed, paths compiled.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_graphql::Name;
use hive_router_query_planner::ast::normalization::normalize_operation;
use hive_router_query_planner::ast::operation::SubgraphFetchOperation;
use hive_router_query_planner::ast::selection_item::SelectionItem;
use hive_router_query_planner::ast::selection_set::SelectionSet;
use hive_router_query_planner::planner::PlannerError;
use hive_router_query_planner::planner::plan_nodes::{
    BatchFetchNode, FetchNode, FetchNodePathSegment, FetchRewrite, FlattenNodePath, FlattenNodePathSegment, PlanNode,
};
use hive_router_query_planner::utils::cancellation::CancellationToken;
use hive_router_query_planner::utils::parsing::safe_parse_operation;

use crate::condition::Conditions;
use crate::error::{ErrorCode, Rejection};
use crate::operation::{Document, Operation};
use crate::shape::{self, Fields};
use crate::subgraph::{OperationKind, SubgraphOperation};
use crate::supergraph::Supergraph;
use crate::text;

/// The variable in which the planner's operations take entities; no variable of a client's is called so.
pub(crate) const REPRESENTATIONS: &str = "representations";

/// How one combination of an operation and its conditions is executed.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Where a subscription's events come from; `None` for queries and mutations.
    pub(crate) source: Option<RootFetch>,
    /// `None` when nothing (more) has to be fetched.
    pub(crate) root: Option<Step>,
    pub(crate) shape: Arc<Fields>,
    /// How much room it takes in a cache, in entries of ordinary size.
    pub(crate) weight: u32,
}

/// One step of a plan.
#[derive(Debug)]
pub(crate) enum Step {
    Root(RootFetch),
    Entities(EntityFetch),
    Sequence(Vec<Step>),
    Parallel(Vec<Step>),
}

/// A fetch from the root of the data.
#[derive(Debug)]
pub(crate) struct RootFetch {
    pub(crate) fetch: Fetch,
    pub(crate) output_rewrites: Vec<Rewrite>,
    /// The keys that its answer has at the root.
    pub(crate) keys: Vec<String>,
}

/// What all fetches have.
#[derive(Debug)]
pub(crate) struct Fetch {
    /// Index of the subgraph in the gateway's list.
    pub(crate) subgraph: usize,
    pub(crate) operation: Arc<SubgraphOperation>,
    /// The variables of the public operation that it uses.
    pub(crate) variables: Vec<Name>,
    /// Its place in the plan: errors are reported in this order.
    pub(crate) order: usize,
}

/// A fetch of entities for objects that are in the data already.
#[derive(Debug)]
pub(crate) struct EntityFetch {
    pub(crate) fetch: Fetch,
    pub(crate) inputs: Vec<EntityInput>,
    pub(crate) outputs: Vec<EntityOutput>,
}

/// Which entities are asked for.
#[derive(Debug)]
pub(crate) struct EntityInput {
    /// The variable that takes the representations.
    pub(crate) variable: Name,
    pub(crate) paths: Vec<DataPath>,
    pub(crate) requires: Vec<Requirement>,
    pub(crate) rewrites: Vec<Rewrite>,
}

/// What is asked of them.
#[derive(Debug)]
pub(crate) struct EntityOutput {
    /// The key of the list in the answer.
    pub(crate) key: Name,
    /// Index of the input whose entities the list has, in the same order.
    pub(crate) input: usize,
    pub(crate) rewrites: Vec<Rewrite>,
    /// The keys that its entities have.
    pub(crate) keys: Vec<String>,
}

/// A path into the data. Lists are entered wherever they are met.
#[derive(Debug, Clone)]
pub(crate) struct DataPath(pub(crate) Vec<DataSegment>);

#[derive(Debug, Clone)]
pub(crate) enum DataSegment {
    Key(Name),
    /// Only objects of these types.
    Types(BTreeSet<String>),
}

/// A part of a representation.
#[derive(Debug)]
pub(crate) enum Requirement {
    /// What the data has under `from` is sent as `field`.
    Field {
        from: Name,
        field: Name,
        below: Vec<Requirement>,
    },
    On {
        condition: String,
        below: Vec<Requirement>,
    },
}

/// A change to a representation or to an answer.
#[derive(Debug)]
pub(crate) enum Rewrite {
    Rename { path: Vec<DataSegment>, to: Name },
    Set { path: Vec<DataSegment>, value: String },
}

impl Plan {
    /// Plans one operation. Takes up to milliseconds of computing; `cancel` ends it early.
    pub(crate) fn make(
        supergraph: &Supergraph,
        subgraphs: &[String],
        document: &Document,
        operation: &Operation,
        bits: u32,
        cancel: &CancellationToken,
    ) -> Result<Self, Rejection> {
        let conditions = Conditions { names: &operation.conditions, bits };
        let shape = shape::build(operation, &document.executable, supergraph, conditions)?;
        let text = text::for_planner(operation, &document.executable, supergraph, conditions)?;
        let weight = 1 + text.as_ref().map_or(0, |text| u32::try_from(text.len() / BYTES_PER_WEIGHT).unwrap_or(u32::MAX - 1));
        let mut plan = Self { source: None, root: None, shape, weight };
        let Some(text) = text else { return Ok(plan) };

        let parsed = safe_parse_operation(&text).map_err(|error| internal("the planner cannot read the operation", &error))?;
        let normalized = normalize_operation(&supergraph.planner.supergraph, &parsed, None)
            .map_err(|error| internal("the planner cannot normalize the operation", &error))?;
        let planned = supergraph
            .planner
            // Without progressive overrides: the default context has none.
            .plan_from_normalized_operation(normalized.executable_operation(), Default::default(), cancel)
            .map_err(|error| planner_failed(&error))?;
        let mut translation = Translation { subgraphs, next_order: 0 };
        if let Some(node) = &planned.node {
            plan.root = translation.step(node, &mut plan.source)?;
        }
        if operation.kind == OperationKind::Subscription && plan.source.is_none() {
            return Err(internal("the plan of a subscription has no source", &""));
        }
        Ok(plan)
    }
}

/// Text of this length counts as one more entry of a cache. 512 bytes: an ordinary operation, fragments expanded.
const BYTES_PER_WEIGHT: usize = 512;

fn internal(what: &'static str, error: &dyn std::fmt::Display) -> Rejection {
    tracing::error!(%error, "{what}");
    Rejection::new(ErrorCode::InternalServerError, "the operation cannot be planned")
}

fn planner_failed(error: &PlannerError) -> Rejection {
    // The planner wraps cancellation in the error of each of its stages; only its text is the same everywhere.
    let text = error.to_string();
    if text.ends_with("timed out") || text.ends_with("cancelled") {
        return Rejection::new(ErrorCode::LimitExceeded, "the operation is too complex to be planned in time");
    }
    internal("the planner failed", &text)
}

struct Translation<'s> {
    subgraphs: &'s [String],
    next_order: usize,
}

impl Translation<'_> {
    /// `None` for a subscription's source, which is put aside.
    fn step(&mut self, node: &PlanNode, source: &mut Option<RootFetch>) -> Result<Option<Step>, Rejection> {
        Ok(match node {
            PlanNode::Fetch(node) => Some(Step::Root(self.root(node)?)),
            PlanNode::Subscription(node) => {
                *source = Some(self.root(&node.primary)?);
                None
            }
            PlanNode::Flatten(node) => match node.node.as_ref() {
                PlanNode::Fetch(fetch) => Some(Step::Entities(self.entities(fetch, &node.path)?)),
                _ => return Err(internal("the plan has a flattened step that is no fetch", &"")),
            },
            PlanNode::BatchFetch(node) => Some(Step::Entities(self.batch(node)?)),
            PlanNode::Sequence(node) => self.steps(&node.nodes, source)?.map(Step::Sequence),
            PlanNode::Parallel(node) => self.steps(&node.nodes, source)?.map(Step::Parallel),
            // Conditions are decided before planning, and the public schema has no `@defer`.
            PlanNode::Condition(_) | PlanNode::Defer(_) => return Err(internal("the plan has a step of an unknown kind", &"")),
        })
    }

    fn steps(&mut self, nodes: &[PlanNode], source: &mut Option<RootFetch>) -> Result<Option<Vec<Step>>, Rejection> {
        let mut steps = Vec::with_capacity(nodes.len());
        for node in nodes {
            steps.extend(self.step(node, source)?);
        }
        Ok((!steps.is_empty()).then_some(steps))
    }

    fn fetch(&mut self, service: &str, operation: &SubgraphFetchOperation, representations: &[&str]) -> Result<Fetch, Rejection> {
        let subgraph = self.subgraphs.iter().position(|name| name == service);
        let subgraph = subgraph.ok_or_else(|| internal("the plan names an unknown subgraph", &service))?;
        let definition = &operation.document.operation;
        let kind = match definition.operation_kind.as_ref().map(ToString::to_string).as_deref() {
            Some("mutation") => OperationKind::Mutation,
            Some("subscription") => OperationKind::Subscription,
            _ => OperationKind::Query,
        };
        let variables = definition.variable_definitions.iter().flatten();
        let variables = variables
            .filter(|variable| !representations.contains(&variable.name.as_str()))
            .map(|variable| Name::new(&variable.name));
        let order = self.next_order;
        self.next_order += 1;
        Ok(Fetch {
            subgraph,
            variables: variables.collect(),
            operation: Arc::new(SubgraphOperation::new(operation.document_str.clone(), kind)),
            order,
        })
    }

    fn root(&mut self, node: &FetchNode) -> Result<RootFetch, Rejection> {
        let fetch = self.fetch(&node.service_name, &node.operation, &[])?;
        let output_rewrites = rewrites(node.output_rewrites.as_deref());
        let mut keys = Vec::new();
        response_keys(&node.operation, &node.operation.document.operation.selection_set, &mut keys);
        Ok(RootFetch { fetch, keys: renamed(keys, &output_rewrites), output_rewrites })
    }

    fn entities(&mut self, node: &FetchNode, path: &FlattenNodePath) -> Result<EntityFetch, Rejection> {
        const KEY: &str = "_entities";
        let Some(requires) = &node.requires else { return Err(internal("an entity fetch requires nothing", &"")) };
        let fetch = self.fetch(&node.service_name, &node.operation, &[REPRESENTATIONS])?;
        let rewrites_of_output = rewrites(node.output_rewrites.as_deref());
        let input = EntityInput {
            variable: Name::new(REPRESENTATIONS),
            paths: vec![data_path(path)],
            requires: requirements(requires),
            rewrites: rewrites(node.input_rewrites.as_deref()),
        };
        let output = EntityOutput {
            key: Name::new(KEY),
            input: 0,
            keys: renamed(entity_keys(&node.operation, KEY), &rewrites_of_output),
            rewrites: rewrites_of_output,
        };
        Ok(EntityFetch { fetch, inputs: vec![input], outputs: vec![output] })
    }

    fn batch(&mut self, node: &BatchFetchNode) -> Result<EntityFetch, Rejection> {
        let aliases = &node.entity_batch.aliases;
        let variables: Vec<&str> = aliases.iter().map(|alias| alias.representations_variable_name.as_str()).collect();
        let fetch = self.fetch(&node.service_name, &node.operation, &variables)?;
        let mut inputs: Vec<EntityInput> = Vec::new();
        let mut outputs = Vec::with_capacity(aliases.len());
        for alias in aliases {
            let variable = Name::new(&alias.representations_variable_name);
            // Aliases with the same variable have the same paths and requirements.
            let input = inputs.iter().position(|input| input.variable == variable).unwrap_or_else(|| {
                inputs.push(EntityInput {
                    variable,
                    paths: alias.merge_paths.iter().map(data_path).collect(),
                    requires: requirements(&alias.requires),
                    rewrites: rewrites(alias.input_rewrites.as_deref()),
                });
                inputs.len() - 1
            });
            let rewrites = rewrites(alias.output_rewrites.as_deref());
            outputs.push(EntityOutput {
                key: Name::new(&alias.alias),
                input,
                keys: renamed(entity_keys(&node.operation, &alias.alias), &rewrites),
                rewrites,
            });
        }
        Ok(EntityFetch { fetch, inputs, outputs })
    }
}

/// The keys of a selection set's own objects, through fragments.
fn response_keys(operation: &SubgraphFetchOperation, set: &SelectionSet, keys: &mut Vec<String>) {
    for item in &set.items {
        match item {
            SelectionItem::Field(field) => {
                let key = field.selection_identifier();
                if !keys.iter().any(|known| known == key) {
                    keys.push(key.to_owned());
                }
            }
            SelectionItem::InlineFragment(fragment) => response_keys(operation, &fragment.selections, keys),
            SelectionItem::FragmentSpread(name) => {
                if let Some(fragment) = operation.document.fragments.iter().find(|fragment| fragment.name == *name) {
                    response_keys(operation, &fragment.selection_set, keys);
                }
            }
        }
    }
}

fn entity_keys(operation: &SubgraphFetchOperation, key: &str) -> Vec<String> {
    let mut keys = Vec::new();
    for item in &operation.document.operation.selection_set.items {
        if let SelectionItem::Field(field) = item
            && field.selection_identifier() == key
        {
            response_keys(operation, &field.selections, &mut keys);
        }
    }
    keys
}

/// The keys after the rewrites that rename keys of the object itself.
fn renamed(mut keys: Vec<String>, rewrites: &[Rewrite]) -> Vec<String> {
    for rewrite in rewrites {
        let Rewrite::Rename { path, to } = rewrite else { continue };
        let own: Vec<&Name> =
            path.iter().filter_map(|segment| if let DataSegment::Key(key) = segment { Some(key) } else { None }).collect();
        if let [from] = own.as_slice()
            && keys.iter().any(|key| *key == from.as_str())
            && !keys.iter().any(|key| key == to.as_str())
        {
            keys.push(to.to_string());
        }
    }
    keys
}

fn data_path(path: &FlattenNodePath) -> DataPath {
    let segments = path.as_slice().iter().filter_map(|segment| match segment {
        FlattenNodePathSegment::Field(key) => Some(DataSegment::Key(Name::new(key))),
        FlattenNodePathSegment::TypeCondition(types) => Some(DataSegment::Types(types.clone())),
        FlattenNodePathSegment::List => None,
    });
    DataPath(segments.collect())
}

fn requirements(set: &SelectionSet) -> Vec<Requirement> {
    let requirement = |item: &SelectionItem| match item {
        SelectionItem::Field(field) => Some(Requirement::Field {
            // The planner writes it the other way round: the field's name is where an internal alias put the value.
            from: Name::new(&field.name),
            field: Name::new(field.selection_identifier()),
            below: requirements(&field.selections),
        }),
        SelectionItem::InlineFragment(fragment) => {
            Some(Requirement::On { condition: fragment.type_condition.clone(), below: requirements(&fragment.selections) })
        }
        // Only operations are written with named fragments.
        SelectionItem::FragmentSpread(_) => None,
    };
    set.items.iter().filter_map(requirement).collect()
}

fn rewrites(rewrites: Option<&[FetchRewrite]>) -> Vec<Rewrite> {
    let path = |segments: &[FetchNodePathSegment]| {
        let segment = |segment: &FetchNodePathSegment| match segment {
            FetchNodePathSegment::Key(key) => DataSegment::Key(Name::new(key)),
            FetchNodePathSegment::TypenameEquals(types) => DataSegment::Types(types.clone()),
        };
        segments.iter().map(segment).collect()
    };
    let rewrite = |rewrite: &FetchRewrite| match rewrite {
        FetchRewrite::KeyRenamer(rename) => Rewrite::Rename { path: path(&rename.path), to: Name::new(&rename.rename_key_to) },
        FetchRewrite::ValueSetter(set) => Rewrite::Set { path: path(&set.path), value: set.set_value_to.clone() },
    };
    rewrites.unwrap_or_default().iter().map(rewrite).collect()
}

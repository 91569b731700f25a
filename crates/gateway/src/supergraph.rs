//! The supergraph: what the planner sees, and the public schema that clients see.
//!
//! The public schema is the supergraph without federation's own elements (types, directives and applications of `join`, `link`
//! and the like) and without everything that is `@inaccessible`. Descriptions, `@deprecated` and `@specifiedBy` stay.

use std::collections::{HashMap, HashSet};

use apollo_compiler::collections::HashMap as ApolloMap;
use apollo_compiler::schema::{Component, DirectiveList, ExtendedType, Implementers};
use apollo_compiler::validation::{DiagnosticList, Valid};
use apollo_compiler::{Name, Node, Schema, ast};
use hive_router_query_planner::planner::{Planner, QueryPlannerOptions};
use hive_router_query_planner::utils::parsing::safe_parse_schema;

use crate::error::GatewayError;

/// In front of an alias that is the name of some field, while data is gathered; clients' own aliases do not begin so.
pub(crate) const ALIAS_PREFIX: &str = "_alias_";

/// Directives that mean something to a client; all others describe the supergraph to gateways.
const PUBLIC_DIRECTIVES: [&str; 3] = ["deprecated", "specifiedBy", "oneOf"];

/// Executable directives that every schema has.
const BUILT_IN_DIRECTIVES: [&str; 5] = ["skip", "include", "deprecated", "specifiedBy", "oneOf"];

/// A parsed supergraph, ready to validate and plan operations.
pub(crate) struct Supergraph {
    pub(crate) public: Valid<Schema>,
    pub(crate) public_sdl: String,
    pub(crate) implementers: ApolloMap<Name, Implementers>,
    pub(crate) planner: Planner,
    pub(crate) types: TypeRelations,
    /// The non-null fields of each type, also of those that clients do not see.
    non_null_fields: HashMap<String, HashSet<String>>,
    /// The names of all fields of all types.
    field_names: HashSet<String>,
}

impl Supergraph {
    pub(crate) fn parse(sdl: &str) -> Result<Self, GatewayError> {
        let full = Schema::parse_and_validate(sdl, "supergraph.graphql")
            .map_err(|failure| GatewayError::Supergraph(first_message(&failure.errors)))?;
        let document = safe_parse_schema(sdl).map_err(|error| GatewayError::Supergraph(error.to_string()))?;
        let planner = Planner::new_from_supergraph(&document, QueryPlannerOptions::default())
            .map_err(|error| GatewayError::Planner(error.to_string()))?;
        let types = TypeRelations::new(&full);
        let non_null_fields = non_null_fields(&full);
        let field_names = fields(&full).map(|(_, field)| field.name.to_string()).collect();
        let public = public_schema(full.into_inner())
            .validate()
            .map_err(|failure| GatewayError::PublicSchema(first_message(&failure.errors)))?;
        let public_sdl = print(&public);
        let implementers = public.implementers_map();
        Ok(Self { public, public_sdl, implementers, planner, types, non_null_fields, field_names })
    }

    /// Whether a field, which clients may not see, never is null.
    pub(crate) fn is_non_null(&self, type_name: &str, field: &str) -> bool {
        self.non_null_fields.get(type_name).is_some_and(|fields| fields.contains(field))
    }

    /// The key under which a field's value is kept while data is gathered.
    ///
    /// That is the key in the answer, unless the client's alias is the name of some field: then the planner, which adds fields of its
    /// own (`id`, for example, to name an entity), would take the aliased value for that field's and ask for the wrong entity.
    pub(crate) fn data_key(&self, field: &str, alias: Option<&str>) -> String {
        match alias {
            Some(alias) if alias != field && self.field_names.contains(alias) => format!("{ALIAS_PREFIX}{alias}"),
            Some(alias) => alias.to_owned(),
            None => field.to_owned(),
        }
    }

    /// The names of the subgraphs, as `join__graph(name:)` has them.
    pub(crate) fn subgraph_names(&self) -> impl Iterator<Item = &str> {
        self.planner.supergraph.known_subgraphs.values().map(String::as_str)
    }
}

fn first_message(errors: &DiagnosticList) -> String {
    errors.iter().next().map_or_else(|| "unknown error".to_owned(), |diagnostic| diagnostic.to_json().message)
}

fn fields(schema: &Schema) -> impl Iterator<Item = (&Name, &Component<ast::FieldDefinition>)> {
    schema
        .types
        .iter()
        .filter_map(|(name, ty)| match ty {
            ExtendedType::Object(object) => Some((name, &object.fields)),
            ExtendedType::Interface(interface) => Some((name, &interface.fields)),
            _ => None,
        })
        .flat_map(|(name, fields)| fields.values().map(move |field| (name, field)))
}

fn non_null_fields(schema: &Schema) -> HashMap<String, HashSet<String>> {
    let mut found: HashMap<String, HashSet<String>> = HashMap::new();
    for (type_name, field) in fields(schema).filter(|(_, field)| field.ty.is_non_null()) {
        found.entry(type_name.to_string()).or_default().insert(field.name.to_string());
    }
    found
}

/// Which concrete types are members of which abstract ones.
#[derive(Debug, Default)]
pub(crate) struct TypeRelations(HashMap<String, HashSet<String>>);

impl TypeRelations {
    fn new(schema: &Schema) -> Self {
        let mut members: HashMap<String, HashSet<String>> = HashMap::new();
        for (name, ty) in &schema.types {
            match ty {
                ExtendedType::Union(union) => {
                    members.entry(name.to_string()).or_default().extend(union.members.iter().map(ToString::to_string));
                }
                ExtendedType::Object(object) => {
                    for interface in &object.implements_interfaces {
                        members.entry(interface.to_string()).or_default().insert(name.to_string());
                    }
                }
                _ => {}
            }
        }
        Self(members)
    }

    /// Whether an object of type `concrete` satisfies the type condition `condition`.
    pub(crate) fn satisfies(&self, concrete: &str, condition: &str) -> bool {
        concrete == condition || self.0.get(condition).is_some_and(|members| members.contains(concrete))
    }
}

/// Takes federation's own elements and everything inaccessible away.
fn public_schema(mut schema: Schema) -> Schema {
    let hidden: HashSet<Name> = schema
        .types
        .iter()
        .filter(|(name, ty)| !ty.is_built_in() && (is_federation_name(name) || ty.directives().has("inaccessible")))
        .map(|(name, _)| name.clone())
        .collect();
    schema.types.retain(|name, _| !hidden.contains(name));
    for ty in schema.types.values_mut() {
        if !ty.is_built_in() {
            strip_type(ty, &hidden);
        }
    }
    // A type whose fields or members are all hidden cannot be shown; composition refuses such supergraphs.
    schema.directive_definitions.retain(|name, definition| {
        BUILT_IN_DIRECTIVES.contains(&name.as_str())
            || (!is_federation_name(name) && definition.locations.iter().all(|location| is_executable(*location)))
    });
    // Subgraphs may define the built-in ones too; clients get the specification's own.
    for (name, definition) in Schema::new().directive_definitions {
        schema.directive_definitions.insert(name, definition);
    }
    let definition = schema.schema_definition.make_mut();
    definition.directives = DirectiveList::default();
    for root in [&mut definition.query, &mut definition.mutation, &mut definition.subscription] {
        if root.as_ref().is_some_and(|name| hidden.contains(&name.name)) {
            *root = None;
        }
    }
    schema
}

fn is_federation_name(name: &str) -> bool {
    const SPECIFICATIONS: [&str; 6] = ["join__", "link__", "core__", "federation__", "context__", "policy__"];
    SPECIFICATIONS.iter().any(|prefix| name.starts_with(prefix))
}

fn is_executable(location: ast::DirectiveLocation) -> bool {
    use ast::DirectiveLocation as L;
    matches!(
        location,
        L::Query
            | L::Mutation
            | L::Subscription
            | L::Field
            | L::FragmentDefinition
            | L::FragmentSpread
            | L::InlineFragment
            | L::VariableDefinition
    )
}

fn strip_type(ty: &mut ExtendedType, hidden: &HashSet<Name>) {
    match ty {
        ExtendedType::Scalar(node) => strip_directives(&mut node.make_mut().directives),
        ExtendedType::Object(node) => {
            let object = node.make_mut();
            strip_directives(&mut object.directives);
            object.implements_interfaces.retain(|name| !hidden.contains(&name.name));
            object.fields.retain(|_, field| field_is_visible(field, hidden));
            object.fields.values_mut().for_each(|field| strip_field(field, hidden));
        }
        ExtendedType::Interface(node) => {
            let interface = node.make_mut();
            strip_directives(&mut interface.directives);
            interface.implements_interfaces.retain(|name| !hidden.contains(&name.name));
            interface.fields.retain(|_, field| field_is_visible(field, hidden));
            interface.fields.values_mut().for_each(|field| strip_field(field, hidden));
        }
        ExtendedType::Union(node) => {
            let union = node.make_mut();
            strip_directives(&mut union.directives);
            union.members.retain(|name| !hidden.contains(&name.name));
        }
        ExtendedType::Enum(node) => {
            let enumeration = node.make_mut();
            strip_directives(&mut enumeration.directives);
            enumeration.values.retain(|_, value| !value.directives.has("inaccessible"));
            enumeration.values.values_mut().for_each(|value| strip_ast_directives(&mut value.make_mut().directives));
        }
        ExtendedType::InputObject(node) => {
            let input = node.make_mut();
            strip_directives(&mut input.directives);
            input.fields.retain(|_, field| input_is_visible(field, hidden));
            input.fields.values_mut().for_each(|field| strip_ast_directives(&mut field.make_mut().directives));
        }
    }
}

fn field_is_visible(field: &Node<ast::FieldDefinition>, hidden: &HashSet<Name>) -> bool {
    !field.directives.has("inaccessible") && !hidden.contains(field.ty.inner_named_type())
}

fn input_is_visible(input: &Node<ast::InputValueDefinition>, hidden: &HashSet<Name>) -> bool {
    !input.directives.has("inaccessible") && !hidden.contains(input.ty.inner_named_type())
}

fn strip_field(field: &mut Component<ast::FieldDefinition>, hidden: &HashSet<Name>) {
    let field = field.make_mut();
    strip_ast_directives(&mut field.directives);
    field.arguments.retain(|argument| input_is_visible(argument, hidden));
    field.arguments.iter_mut().for_each(|argument| strip_ast_directives(&mut argument.make_mut().directives));
}

fn strip_directives(directives: &mut DirectiveList) {
    directives.0.retain(|directive| PUBLIC_DIRECTIVES.contains(&directive.name.as_str()));
}

fn strip_ast_directives(directives: &mut ast::DirectiveList) {
    directives.0.retain(|directive| PUBLIC_DIRECTIVES.contains(&directive.name.as_str()));
}

/// Prints types and directives by name, fields in the order in which composition put them, so that the same supergraph always
/// gives the same text.
fn print(schema: &Schema) -> String {
    let mut sorted = schema.clone();
    sorted.types.sort_unstable_keys();
    sorted.directive_definitions.sort_unstable_keys();
    sorted.to_string()
}

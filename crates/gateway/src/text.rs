//! The operation as the planner gets it: one operation without fragments, conditions, introspection and unused parts.
//!
//! Wherever the type is abstract `__typename` is asked for, because the shape of the answer depends on it; elsewhere it is known
//! and not asked for.

use std::fmt::Write;

use apollo_compiler::ExecutableDocument;
use apollo_compiler::ast::{OperationType, Value};
use apollo_compiler::executable::{Field, Selection, SelectionSet};

use crate::condition::Conditions;
use crate::error::{ErrorCode, Rejection};
use crate::operation::Operation;
use crate::supergraph::Supergraph;

/// Writes the operation. `None` when nothing of it needs a subgraph.
pub(crate) fn for_planner(
    operation: &Operation,
    document: &ExecutableDocument,
    supergraph: &Supergraph,
    conditions: Conditions<'_>,
) -> Result<Option<String>, Rejection> {
    let mut writer = Writer { document, supergraph, conditions, text: String::new() };
    writer.text.push_str(match operation.definition.operation_type {
        OperationType::Query => "query",
        OperationType::Mutation => "mutation",
        OperationType::Subscription => "subscription",
    });
    writer.variables(operation)?;
    writer.text.push('{');
    let written = writer.selections(&operation.definition.selection_set, &operation.definition.selection_set.ty)?;
    writer.text.push('}');
    Ok(written.then_some(writer.text))
}

struct Writer<'d> {
    document: &'d ExecutableDocument,
    supergraph: &'d Supergraph,
    conditions: Conditions<'d>,
    text: String,
}

impl<'d> Writer<'d> {
    fn variables(&mut self, operation: &Operation) -> Result<(), Rejection> {
        if operation.definition.variables.is_empty() {
            return Ok(());
        }
        self.text.push('(');
        for definition in &operation.definition.variables {
            self.push(format_args!("${}:{}", definition.name, definition.ty));
            if let Some(default) = &definition.default_value {
                self.text.push('=');
                self.value(default)?;
            }
            self.text.push(' ');
        }
        self.text.push(')');
        Ok(())
    }

    /// Whether anything was written.
    fn selections(&mut self, set: &'d SelectionSet, parent: &str) -> Result<bool, Rejection> {
        let mut written = false;
        for selection in &set.selections {
            if !self.conditions.includes(selection.directives()) {
                continue;
            }
            written |= match selection {
                Selection::Field(field) => self.field(field)?,
                Selection::InlineFragment(fragment) => self.fragment(&fragment.selection_set, parent)?,
                Selection::FragmentSpread(spread) => match spread.fragment_def(self.document) {
                    Some(fragment) => self.fragment(&fragment.selection_set, parent)?,
                    None => false,
                },
            };
        }
        Ok(written)
    }

    fn fragment(&mut self, set: &'d SelectionSet, parent: &str) -> Result<bool, Rejection> {
        if set.ty == parent {
            return self.selections(set, parent);
        }
        let before = self.text.len();
        self.push(format_args!("...on {}{{", set.ty));
        let written = self.selections(set, &set.ty)?;
        if written {
            self.text.push('}');
        } else {
            self.text.truncate(before);
        }
        Ok(written)
    }

    fn field(&mut self, field: &'d Field) -> Result<bool, Rejection> {
        if field.name.starts_with("__") {
            return Ok(false);
        }
        let key = self.supergraph.data_key(&field.name, field.alias.as_deref());
        if key != field.name.as_str() {
            self.push(format_args!("{key}:"));
        }
        self.text.push_str(&field.name);
        if !field.arguments.is_empty() {
            self.text.push('(');
            for argument in &field.arguments {
                self.push(format_args!("{}:", argument.name));
                self.value(&argument.value)?;
                self.text.push(' ');
            }
            self.text.push(')');
        }
        if field.selection_set.is_empty() {
            self.text.push(' ');
            return Ok(true);
        }
        self.text.push('{');
        let ty = &field.selection_set.ty;
        let is_abstract = self.supergraph.public.types.get(ty).is_some_and(|ty| ty.is_interface() || ty.is_union());
        if is_abstract {
            self.text.push_str("__typename ");
        }
        if !self.selections(&field.selection_set, ty)? && !is_abstract {
            // Whether the object exists is all that is asked.
            self.text.push_str("__typename");
        }
        self.text.push('}');
        Ok(true)
    }

    fn value(&mut self, value: &Value) -> Result<(), Rejection> {
        refuse_unplannable(value)?;
        self.push(format_args!("{}", value.serialize().no_indent()));
        Ok(())
    }

    fn push(&mut self, arguments: std::fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = self.text.write_fmt(arguments);
    }
}

/// The planner keeps integers in 64 bits and floats in a double, and gives up on others. In a variable they may be of any size.
fn refuse_unplannable(value: &Value) -> Result<(), Rejection> {
    let fits = match value {
        Value::Int(int) => int.as_str().parse::<i64>().is_ok(),
        Value::Float(float) => float.try_to_f64().is_ok_and(f64::is_finite),
        Value::List(items) => return items.iter().try_for_each(|item| refuse_unplannable(item)),
        Value::Object(fields) => return fields.iter().try_for_each(|(_, field)| refuse_unplannable(field)),
        _ => true,
    };
    if fits {
        return Ok(());
    }
    Err(Rejection::new(ErrorCode::GraphqlValidationFailed, "a number in the document is too large: send it in a variable"))
}

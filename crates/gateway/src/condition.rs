//! `@skip` and `@include`, decided before planning: a plan belongs to one combination of their values.

use apollo_compiler::Name;
use apollo_compiler::ast::{DirectiveList, Value};

/// The values of an operation's conditions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Conditions<'o> {
    pub(crate) names: &'o [Name],
    /// The value of `names[i]` is bit `i`.
    pub(crate) bits: u32,
}

impl Conditions<'_> {
    /// Whether a selection with these directives is part of the operation.
    pub(crate) fn includes(&self, directives: &DirectiveList) -> bool {
        directives.0.iter().all(|directive| {
            let wanted = match directive.name.as_str() {
                "skip" => false,
                "include" => true,
                _ => return true,
            };
            directive.specified_argument_by_name("if").is_none_or(|value| self.value(value) == wanted)
        })
    }

    fn value(&self, value: &Value) -> bool {
        match value {
            Value::Boolean(boolean) => *boolean,
            Value::Variable(name) => {
                self.names.iter().position(|known| known == name).is_some_and(|index| self.bits & (1 << index) != 0)
            }
            _ => false,
        }
    }
}

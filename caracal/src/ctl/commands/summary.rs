//! What is said at the end of a command that handled several objects.

use super::console::{complain, line};
use crate::ctl::client::metadata;
use crate::ctl::error::{Error, identifier};
use crate::ctl::input::Object;

/// A verb in the forms that sentences need.
#[derive(Debug, Clone, Copy)]
pub(super) struct Verb {
    pub(super) plain: &'static str,
    pub(super) past: &'static str,
}

pub(super) const CREATE: Verb = Verb { plain: "create", past: "created" };
pub(super) const APPLY: Verb = Verb { plain: "apply", past: "applied" };
pub(super) const REPLACE: Verb = Verb { plain: "replace", past: "replaced" };
pub(super) const VALIDATE: Verb = Verb { plain: "validate", past: "validated" };
pub(super) const DELETE: Verb = Verb { plain: "delete", past: "deleted" };

/// How far a command came.
#[derive(Debug)]
pub(super) struct Tally {
    /// The kind, if all objects are of one.
    kind: Option<&'static str>,
    total: usize,
    done: usize,
    errors: Vec<String>,
}

impl Tally {
    pub(super) fn new(objects: &[Object]) -> Tally {
        let first = objects.first().map(|o| o.kind.name);
        let kind = first.filter(|kind| objects.iter().all(|o| o.kind.name == *kind));
        Tally { kind, total: objects.len(), done: 0, errors: Vec::new() }
    }

    /// Counts one object.
    pub(super) fn count(&mut self, object: &Object, result: Result<(), Error>) {
        match result {
            Ok(()) => self.done += 1,
            Err(error) => self.errors.push(about(object, &error)),
        }
    }

    fn of_kind(&self) -> String {
        self.kind.map_or_else(String::new, |kind| format!(" '{kind}'"))
    }

    fn success(&self, verb: Verb) -> String {
        format!("Successfully {} {}{} resource(s)", verb.past, self.done, self.of_kind())
    }

    /// Tells how it went; false if anything failed.
    pub(super) fn tell(&self, verb: Verb) -> bool {
        let errors = self.errors.join(", ");
        let kind = self.of_kind();
        match (self.errors.len(), self.done) {
            (0, _) => line(self.success(verb)),
            (_, 0) if self.total == 1 => {
                complain(format!("failed to {}{kind} resource: [{errors}]", verb.plain));
            }
            (_, 0) => complain(format!("failed to {} any{kind} resources: [{errors}]", verb.plain)),
            (_, done) => {
                line(format!(
                    "Partial success: {} the first {done} out of {}{kind} resources:",
                    verb.past, self.total
                ));
                complain(format!("hit error: [{errors}]"));
            }
        }
        self.errors.is_empty()
    }

    /// The same for deletions, which tell each failure on a line of its own.
    pub(super) fn tell_deletions(&self) -> bool {
        if self.done > 0 {
            line(self.success(DELETE));
        }
        for error in &self.errors {
            complain(format!("Failed to delete{} resource: {error}", self.of_kind()));
        }
        self.errors.is_empty()
    }
}

/// The error, with the object's name if it does not say that itself.
fn about(object: &Object, error: &Error) -> String {
    let text = error.to_string();
    let name = metadata(&object.value, "name");
    let said = [format!("({name})"), format!("/{name})")].iter().any(|id| text.contains(id));
    if said || (name.is_empty() && !matches!(error, Error::Invalid(_))) {
        return text;
    }
    format!("{}: {text}", identifier(object.kind.name, metadata(&object.value, "namespace"), name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::input::kind_by_name;
    use crate::ctl::kinds::by_kind;

    #[test]
    fn errors_name_their_object() {
        let object = kind_by_name(by_kind("IPPool").unwrap(), "north");
        let field = Error::field("spec.cidr", "x", "no prefix");
        assert_eq!(about(&object, &field), "IPPool(north): error with field spec.cidr = 'x' (no prefix)");
        let exists = Error::AlreadyExists("IPPool(north)".to_owned());
        assert_eq!(about(&object, &exists), exists.to_string());
    }

    #[test]
    fn kinds_are_named_only_if_all_are_one() {
        let pool = kind_by_name(by_kind("IPPool").unwrap(), "a");
        let node = kind_by_name(by_kind("Node").unwrap(), "a");
        let mut tally = Tally::new(&[pool.clone(), pool.clone()]);
        tally.count(&pool, Ok(()));
        assert_eq!(tally.success(CREATE), "Successfully created 1 'IPPool' resource(s)");
        assert_eq!(Tally::new(&[pool, node]).success(APPLY), "Successfully applied 0 resource(s)");
    }
}

//! Changes of some fields of a document. Every engine applies them within the atomic write, so that none is lost.

use serde_json::{Number, Value};

use super::document;
use super::edit::Edit;
use super::fields::Fields;
use super::query;
use crate::error::{Error, FieldError, Result};

/// Changes of some fields, each named by its path (see [`query`]).
///
/// A change creates the objects on its path that are missing. The other fields keep their order. Two patches are
/// refused: one with a path through a value that is no object, and one in which a path contains another.
#[derive(Clone, Debug, Default)]
pub struct Patch {
    operations: Vec<(String, Operation)>,
}

/// What happens to one field.
#[derive(Clone, Debug)]
enum Operation {
    Set(Value),
    Unset,
    Add(Number),
    Append(Value),
    Remove(Value),
}

impl Patch {
    /// A patch that changes nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the value at a path.
    pub fn set(self, path: impl Into<String>, value: impl Into<Value>) -> Self {
        self.operation(path, Operation::Set(value.into()))
    }

    /// Removes the field at a path, if there is one.
    pub fn unset(self, path: impl Into<String>) -> Self {
        self.operation(path, Operation::Unset)
    }

    /// Adds to the number at a path; a missing one counts as 0. Two integers stay an integer. Applying it fails with
    /// `BadRequest` where there is another value, and where the sum is out of range.
    pub fn add(self, path: impl Into<String>, number: impl Into<Number>) -> Self {
        self.operation(path, Operation::Add(number.into()))
    }

    /// Appends a value to the array at a path; a missing one counts as empty. Applying it fails with `BadRequest` where
    /// there is another value.
    pub fn append(self, path: impl Into<String>, value: impl Into<Value>) -> Self {
        self.operation(path, Operation::Append(value.into()))
    }

    /// Removes every element of the array at a path that equals this value (`1` equals `1.0`, as in a filter); a missing array stays missing. Applying it fails
    /// with `BadRequest` where there is another value.
    pub fn remove(self, path: impl Into<String>, value: impl Into<Value>) -> Self {
        self.operation(path, Operation::Remove(value.into()))
    }

    /// What a partial update says of the field at a path: nothing, to remove it, or to set it.
    pub fn edit(self, path: impl Into<String>, edit: Edit<impl Into<Value>>) -> Self {
        match edit {
            Edit::Keep => self,
            Edit::Null => self.unset(path),
            Edit::Value(value) => self.set(path, value),
        }
    }

    fn operation(mut self, path: impl Into<String>, operation: Operation) -> Self {
        self.operations.push((path.into(), operation));
        self
    }

    /// `BadRequest` when a path is invalid, when a path contains another, or when a value cannot be stored: that error
    /// has its JSON pointer.
    pub fn check(&self) -> Result<()> {
        for (path, operation) in &self.operations {
            query::check_path(path)?;
            if let Operation::Set(value) | Operation::Append(value) = operation {
                document::check_at(path, value)?;
            }
        }
        query::check_disjoint(self.operations.iter().map(|(path, _)| path.as_str()))
    }

    /// The fields after the patch.
    pub(super) fn apply(self, fields: &Fields) -> Result<Fields> {
        let mut fields = fields.clone();
        for (path, operation) in self.operations {
            let (parents, leaf) =
                path.rsplit_once('.').map_or((None, path.as_str()), |(up, leaf)| (Some(up), leaf));
            let creates = !matches!(operation, Operation::Unset | Operation::Remove(_));
            let mut object = Some(&mut fields);
            for segment in parents.into_iter().flat_map(|parents| parents.split('.')) {
                let Some(parent) = object else { break };
                object = match (parent.contains_key(segment), creates) {
                    (false, false) => None,
                    _ => match parent.entry(segment).or_insert_with(|| Value::Object(Fields::new())) {
                        Value::Object(child) => Some(child),
                        _ => return Err(Error::bad_request("Field Path Through A Value")),
                    },
                };
            }
            if let Some(object) = object {
                operation.apply(&path, object, leaf)?;
            }
        }
        document::check(&fields)?;
        Ok(fields)
    }
}

impl Operation {
    fn apply(self, path: &str, object: &mut Fields, leaf: &str) -> Result<()> {
        let wrong = |what: &str| Err(not_applicable(path, what));
        match (self, object.get_mut(leaf)) {
            (Self::Set(value), _) => drop(object.insert(leaf.to_owned(), value)),
            // `remove` would move the last field to the position of this one.
            (Self::Unset, _) => drop(object.shift_remove(leaf)),
            (Self::Add(number), None) => drop(object.insert(leaf.to_owned(), number.into())),
            (Self::Add(number), Some(Value::Number(sum))) => match added(sum, &number) {
                Some(new) => *sum = new,
                None => return wrong("the sum is out of range"),
            },
            (Self::Add(_), Some(_)) => return wrong("is not a number"),
            (Self::Append(value), None) => drop(object.insert(leaf.to_owned(), vec![value].into())),
            (Self::Append(value), Some(Value::Array(array))) => array.push(value),
            (Self::Remove(value), Some(Value::Array(array))) => {
                array.retain(|element| !query::equal(element, &value));
            }
            (Self::Remove(_), None) => {}
            (Self::Append(_) | Self::Remove(_), Some(_)) => return wrong("is not an array"),
        }
        Ok(())
    }
}

/// The sum of two numbers: an integer where both are and it is in range; `None` where there is none.
fn added(one: &Number, other: &Number) -> Option<Number> {
    let integer = |number: &Number| number.as_i128();
    if let (Some(one), Some(other)) = (integer(one), integer(other)) {
        return Number::from_i128(one + other).filter(|sum| !sum.is_f64());
    }
    Number::from_f64(one.as_f64()? + other.as_f64()?)
}

/// 400 for a patch that the stored document does not allow.
fn not_applicable(path: &str, what: &str) -> Error {
    let mut pointer = String::new();
    for segment in path.split('.') {
        crate::json::push_segment(&mut pointer, segment);
    }
    Error::bad_request("Patch Not Applicable")
        .with_errors(vec![FieldError { pointer, message: what.to_owned() }])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fields(value: Value) -> Fields {
        serde_json::from_value(value).unwrap()
    }

    fn patched(patch: Patch, value: Value) -> String {
        serde_json::to_string(&patch.apply(&fields(value)).unwrap()).unwrap()
    }

    #[test]
    fn a_patch_keeps_the_order_of_the_other_fields() {
        let before = json!({"a": 1, "b": {"x": 1, "y": 2, "z": 3}, "c": 3});
        let patch = Patch::new().set("a", 9).unset("b.x").set("d.e.f", "new").unset("nothing.here");
        assert_eq!(patched(patch, before), r#"{"a":9,"b":{"y":2,"z":3},"c":3,"d":{"e":{"f":"new"}}}"#);
    }

    #[test]
    fn a_path_through_a_value_is_refused() {
        let error = Patch::new().set("a.b", 1).apply(&fields(json!({"a": [1]}))).unwrap_err();
        assert_eq!(error.reason(), "Field Path Through A Value");
    }

    #[test]
    fn paths_that_contain_one_another_are_refused() {
        assert!(Patch::new().set("a", 1).unset("a.b").check().is_err());
        assert!(Patch::new().set("a.b", 1).set("a-x", 1).unset("a").check().is_err());
        assert!(Patch::new().set("a", 1).add("a", 2).check().is_err());
        assert!(Patch::new().set("a", 1).set("ab", 2).unset("b.a").check().is_ok());
        assert!(Patch::new().set("a..b", 1).check().is_err());
    }

    #[test]
    fn numbers_are_added_and_stay_integers_where_both_are() {
        let sums = |number: Number, to: Value| patched(Patch::new().add("n", number), to);
        assert_eq!(sums(2.into(), json!({})), r#"{"n":2}"#);
        assert_eq!(sums(2.into(), json!({"n": -5})), r#"{"n":-3}"#);
        assert_eq!(sums(1.into(), json!({"n": u64::MAX - 1})), format!(r#"{{"n":{}}}"#, u64::MAX));
        assert_eq!(sums((-1).into(), json!({"n": u64::MAX})), format!(r#"{{"n":{}}}"#, u64::MAX - 1));
        assert_eq!(sums(Number::from_f64(0.5).unwrap(), json!({"n": 1})), r#"{"n":1.5}"#);
        assert_eq!(patched(Patch::new().add("a.b", 1), json!({})), r#"{"a":{"b":1}}"#);
        for wrong in [json!({"n": "1"}), json!({"n": null}), json!({"n": u64::MAX}), json!({"n": f64::MAX})] {
            let number = if wrong["n"].is_f64() { Number::from_f64(f64::MAX).unwrap() } else { 1.into() };
            let error = Patch::new().add("n", number).apply(&fields(wrong.clone())).unwrap_err();
            assert_eq!(
                (error.reason(), &*error.errors()[0].pointer),
                ("Patch Not Applicable", "/n"),
                "{wrong}"
            );
        }
    }

    #[test]
    fn arrays_are_appended_to_and_removed_from() {
        let before = json!({"a": [1, "x", 1, {"b": 1}]});
        assert_eq!(patched(Patch::new().append("a", "y"), before.clone()), r#"{"a":[1,"x",1,{"b":1},"y"]}"#);
        assert_eq!(patched(Patch::new().append("b.c", 1), json!({})), r#"{"b":{"c":[1]}}"#);
        assert_eq!(patched(Patch::new().remove("a", 1), before.clone()), r#"{"a":["x",{"b":1}]}"#);
        assert_eq!(
            patched(Patch::new().remove("a", json!({"b": 1.0})), before.clone()),
            r#"{"a":[1,"x",1]}"#
        );
        assert_eq!(patched(Patch::new().remove("a", 1.0), before.clone()), r#"{"a":["x",{"b":1}]}"#);
        let lists = json!({"a": [[1, 2], [1], [2, 1], {"b": 1, "c": 1}]});
        let left = r#"{"a":[[1],[2,1],{"b":1,"c":1}]}"#;
        assert_eq!(patched(Patch::new().remove("a", json!([1.0, 2])), lists), left);
        assert_eq!(patched(Patch::new().remove("none.here", 1), json!({})), "{}");
        for patch in [Patch::new().append("n", 1), Patch::new().remove("n", 1)] {
            let error = patch.apply(&fields(json!({"n": 1}))).unwrap_err();
            assert_eq!(error.errors()[0].message, "is not an array");
        }
    }
}

//! The body of a PATCH as a JSON Merge Patch (RFC 7396): the fields to change, and null for those that go.

use std::marker::PhantomData;

use axum::extract::{FromRequest, Request};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{document, invalid, type_error};
use crate::error::{Error, Result};
use crate::http::request::context::{self, Context};

/// The changes of a PATCH to a `T`, as a JSON Merge Patch has them (RFC 7396). Objects are merged, every other value is
/// replaced, null removes a field. The content type is ignored, as that of [`Json`](crate::http::Json) is.
///
/// ```no_run
/// # use platform::error::{Error, Result};
/// # use platform::http::{Changed, MergePatch, Path, Precondition};
/// # use platform::store::{Dao, Entity};
/// # #[derive(serde::Deserialize, serde::Serialize)] struct Task {}
/// # impl Entity for Task { const COLLECTION: &'static str = "tasks"; }
/// async fn change(
///     tasks: Dao<Task>,
///     Path(id): Path<String>,
///     precondition: Precondition,
///     patch: MergePatch<Task>,
/// ) -> Result<Changed> {
///     let changed = tasks.modify_if(&id, precondition.expected(), |task| patch.apply(task)).await;
///     let task = precondition.apply(changed)?.ok_or_else(|| Error::not_found("No Such Task"))?;
///     Ok(Changed::to(task.version))
/// }
/// ```
///
/// # Errors
///
/// 400 `Invalid JSON body` for a body that is no JSON object, 408 and 413 for one that is too slow or too large. Whether the
/// changes are right is known when they meet the value, see [`MergePatch::apply`].
pub struct MergePatch<T> {
    changes: Map<String, Value>,
    /// The schema of the route is that of the whole value, not of the changes.
    context: Context,
    value: PhantomData<fn(T)>,
}

impl<T, S: Sync> FromRequest<S> for MergePatch<T> {
    type Rejection = Error;

    async fn from_request(request: Request, _: &S) -> Result<Self> {
        let (parts, document) = document(request).await?;
        let Value::Object(changes) = document else {
            return Err(invalid(String::new(), "expected an object with the fields to change".to_owned()));
        };
        let context = context::of(&parts)?.clone();
        Ok(Self { changes, context, value: PhantomData })
    }
}

impl<T: Serialize + DeserializeOwned> MergePatch<T> {
    /// Changes a value.
    ///
    /// # Errors
    ///
    /// 400, as for a whole value in [`Json`](crate::http::Json), when the value would not fit the schema of the route or would not be
    /// a `T`: a field that is unknown, of another type, or required and removed. The value is unchanged then.
    pub fn apply(&self, value: &mut T) -> Result<()> {
        let mut document = serde_json::to_value(&*value).map_err(Error::internal)?;
        merge(&mut document, &self.changes);
        if let Some(schema) = self.context.schema() {
            schema.check(&document)?;
        }
        *value = serde_path_to_error::deserialize(document).map_err(|error| type_error(&error))?;
        Ok(())
    }
}

/// The algorithm of RFC 7396, section 2. The recursion ends: a body is no deeper than `json::MAX_DEPTH`.
fn merge(target: &mut Value, changes: &Map<String, Value>) {
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else { return };
    for (name, change) in changes {
        match change {
            // `remove` would move the last field to the position of this one.
            Value::Null => drop(target.shift_remove(name)),
            Value::Object(changes) => merge(target.entry(name.clone()).or_insert(Value::Null), changes),
            value => drop(target.insert(name.clone(), value.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The examples of RFC 7396, appendix A, but those whose patch is no object: they are refused.
    #[test]
    fn a_patch_changes_what_the_examples_of_the_rfc_say() {
        for (mut target, patch, result) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ] {
            let Value::Object(changes) = &patch else { unreachable!() };
            let before = target.clone();
            merge(&mut target, changes);
            assert_eq!(target, result, "{before} with {patch}");
        }
    }
}

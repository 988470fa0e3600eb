//! What a partial update says of one field.

use serde::{Deserialize, Deserializer};

/// What a partial update says of one field: nothing, null, or a value.
///
/// It tells a field that was not sent from one that was sent as null, which `Option` cannot. The struct needs
/// `#[serde(default)]`, so that a field that was not sent is [`Edit::Keep`]:
///
/// ```
/// use platform::store::{Edit, Patch};
/// use serde::Deserialize;
///
/// #[derive(Default, Deserialize)]
/// #[serde(default, deny_unknown_fields)]
/// struct TaskEdits {
///     title: Edit<String>,
///     due_date: Edit<u64>,
/// }
///
/// let edits: TaskEdits = serde_json::from_str(r#"{"due_date": null}"#)?;
/// assert_eq!((edits.title, edits.due_date), (Edit::Keep, Edit::Null));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Edit<T> {
    /// It was not sent: the field stays as it is.
    #[default]
    Keep,
    /// It was sent as null: the field goes.
    Null,
    /// It was sent: the field has this value now.
    Value(T),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Edit<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::deserialize(deserializer)?.map_or(Self::Null, Self::Value))
    }
}

impl<T> Edit<T> {
    /// Applies it to a field of an entity. Null makes it `None`.
    pub fn apply(self, field: &mut Option<T>) {
        match self {
            Self::Keep => {}
            Self::Null => *field = None,
            Self::Value(value) => *field = Some(value),
        }
    }
}

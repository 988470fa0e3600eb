//! What serde says of a value that does not fit, in the words of JSON, and where the value is.

use std::fmt::Display;

use serde_path_to_error::{Error, Path, Segment};

use crate::error::FieldError;
use crate::json;

/// Where the value is, and what is wrong with it. A field that is missing is named itself, and not what it is missing in.
pub(crate) fn of_serde(error: &Error<impl Display>) -> FieldError {
    let (mut pointer, message) = (pointer_of(error.path()), error.inner().to_string());
    let missing = message.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`'));
    if let Some(field) = missing {
        json::push_segment(&mut pointer, field);
    }
    FieldError { pointer, message: json::in_words(message) }
}

/// The JSON pointer of a path.
fn pointer_of(path: &Path) -> String {
    let mut pointer = String::new();
    for segment in path {
        match segment {
            // It displays as `[0]`, which is no segment of a pointer.
            Segment::Seq { index } => json::push_segment(&mut pointer, &index.to_string()),
            segment => json::push_segment(&mut pointer, &segment.to_string()),
        }
    }
    pointer
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    use super::*;

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only what cannot be read is of interest")]
    struct Order {
        user: User,
        items: Vec<u8>,
    }

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only what cannot be read is of interest")]
    struct User {
        email: String,
        kind: Option<Kind>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        Person,
    }

    #[derive(Debug, Deserialize)]
    #[serde(untagged)]
    #[expect(dead_code, reason = "only what cannot be read is of interest")]
    enum Either {
        One(u8),
        Other(bool),
    }

    fn wrong<T: DeserializeOwned + std::fmt::Debug>(value: Value) -> (String, String) {
        let error = serde_path_to_error::deserialize::<_, T>(value).unwrap_err();
        let FieldError { pointer, message } = of_serde(&error);
        (pointer, message)
    }

    #[test]
    fn a_message_has_the_words_of_json_and_the_pointer_of_the_field() {
        let user = json!({"email": "a"});
        for (value, pointer, message) in [
            (json!({}), "/user", "missing field `user`"),
            (json!({"user": {}}), "/user/email", "missing field `email`"),
            (json!([]), "", "invalid type: array, expected an object"),
            (json!("x"), "", "invalid type: string \"x\", expected an object"),
            (json!({"user": [1, 2, 3]}), "/user/0", "invalid type: integer `1`, expected a string"),
            (json!({"user": {"email": {}}}), "/user/email", "invalid type: object, expected a string"),
            (json!({"user": user, "items": {}}), "/items", "invalid type: object, expected an array"),
            (
                json!({"user": user, "items": [300]}),
                "/items/0",
                "invalid value: integer `300`, expected a whole number from 0 to 255",
            ),
            (
                json!({"user": {"email": "a", "kind": 1}}),
                "/user/kind",
                "invalid type: integer `1`, expected a string or an object",
            ),
            (
                json!({"user": {"email": "a", "kind": "x, expected struct Y"}}),
                "/user/kind",
                "unknown variant `x, expected struct Y`, expected `person`",
            ),
        ] {
            let what = value.to_string();
            assert_eq!(wrong::<Order>(value), (pointer.to_owned(), message.to_owned()), "{what}");
        }
        assert_eq!(wrong::<Either>(json!("x")).1, "is none of the forms that are taken here");
        assert!(wrong::<i64>(json!(1.5)).1.ends_with(", expected a whole number"));
    }
}

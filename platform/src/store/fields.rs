//! The fields of a document, and how a value is read from them.

use serde::de::{Deserializer, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::{Map, Value};

/// The fields of a document, in the order in which they were sent.
pub type Fields = Map<String, Value>;

/// Reads a value from borrowed fields as if they were a `Value`. `serde_json` reads a `Map` only into a map or a
/// struct, and refuses a newtype such as `struct Address(Fields)`.
pub(super) struct FieldsDeserializer<'de>(pub(super) &'de Fields);

impl<'de> Deserializer<'de> for FieldsDeserializer<'de> {
    type Error = serde_json::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        self.0.deserialize_any(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_some(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        self.0.deserialize_enum(name, variants, visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq
        tuple tuple_struct map struct identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fmt::Debug;

    use super::*;
    use serde::{Deserialize, Serialize};

    #[derive(Debug, Deserialize, PartialEq, Serialize)]
    struct Plain {
        a: Option<u64>,
        b: Vec<String>,
    }

    #[derive(Debug, Deserialize, PartialEq, Serialize)]
    struct Wrapped(Plain);

    #[derive(Debug, Deserialize, PartialEq, Serialize)]
    #[serde(tag = "kind")]
    enum Tagged {
        Circle { radius: f64 },
    }

    #[derive(Debug, Deserialize, PartialEq, Serialize)]
    enum Outside {
        Circle { radius: f64 },
    }

    fn round_trip<T: for<'de> Deserialize<'de> + Serialize + PartialEq + Debug>(value: T) {
        let Value::Object(fields) = serde_json::to_value(&value).unwrap() else { panic!("not an object") };
        assert_eq!(T::deserialize(FieldsDeserializer(&fields)).unwrap(), value);
    }

    #[test]
    fn every_type_that_is_an_object_in_json_can_be_read_back() {
        let plain = || Plain { a: Some(1), b: vec!["x".to_owned()] };
        round_trip(plain());
        round_trip(Wrapped(plain()));
        round_trip(Some(plain()));
        round_trip(Tagged::Circle { radius: 0.5 });
        round_trip(Outside::Circle { radius: 0.5 });
        round_trip(BTreeMap::from([("a".to_owned(), 1)]));
        round_trip(serde_json::json!({"a": [1, {"b": null}]}));
    }
}

//! A JSON Schema (draft-07) for request bodies.
//!
//! Schemas are compiled at the start, so an invalid schema stops the start and not a request. This file knows no HTTP.

use jsonschema::error::ValidationErrorKind;
use serde_json::Value;

use super::error::{Error, FieldError, Result, StartError};
use super::json;

/// The most field errors in one error. Enough to correct a body, and a bound on the response to a hostile one.
const MAX_ERRORS: usize = 100;

/// A compiled schema.
pub struct Schema {
    validator: jsonschema::Validator,
}

impl Schema {
    /// Compiles the text of a schema; errors call it `name`.
    pub fn parse(name: &str, text: &str) -> Result<Self, StartError> {
        let failed = |why: String| StartError::failed(format!("schema {name}: {why}"));
        let schema = json::parse(text.as_bytes()).map_err(|invalid| failed(invalid.to_string()))?;
        let validator = jsonschema::draft7::options()
            .should_validate_formats(true)
            .build(&schema)
            .map_err(|error| failed(error.to_string()))?;
        Ok(Self { validator })
    }

    /// Checks a document. The error lists every wrong field with its JSON pointer. The messages are masked: they say
    /// what was expected and do not repeat values of the document.
    pub fn check(&self, document: &Value) -> Result<()> {
        // Most documents are valid, and `is_valid` is many times faster than `iter_errors`.
        if self.validator.is_valid(document) {
            return Ok(());
        }
        let errors = self
            .validator
            .iter_errors(document)
            .take(MAX_ERRORS)
            .map(|error| {
                let mut pointer = error.instance_path().as_str().to_owned();
                // A field that is missing is named itself, and not what it is missing in.
                if let ValidationErrorKind::Required { property: Value::String(field) } = error.kind() {
                    json::push_segment(&mut pointer, field);
                }
                FieldError { pointer, message: error.masked().to_string() }
            })
            .collect();
        Err(Error::bad_request("JSON Schema validation failed").with_errors(errors))
    }
}

impl std::fmt::Debug for Schema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Schema")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_wrong_field_is_named_at_once() {
        let text = r#"{"properties": {"a": {"type": "string"}, "b": {"type": "number"}}, "required": ["c"]}"#;
        let schema = Schema::parse("test", text).unwrap();
        let error = schema.check(&json!({"a": 1, "b": "x"})).unwrap_err();
        let mut pointers: Vec<_> = error.errors().iter().map(|e| e.pointer.as_str()).collect();
        pointers.sort_unstable();
        assert_eq!(pointers, ["/a", "/b", "/c"]);
        assert_eq!(error.reason(), "JSON Schema validation failed");
    }

    #[test]
    fn a_message_does_not_repeat_the_value() {
        let schema = Schema::parse("test", r#"{"type": "number"}"#).unwrap();
        let error = schema.check(&json!("my password")).unwrap_err();
        assert!(!error.errors()[0].message.contains("password"), "{}", error.errors()[0].message);
    }

    #[test]
    fn an_invalid_schema_is_refused_by_name() {
        let error = Schema::parse("todo.json", r#"{"type": "strnig"}"#).unwrap_err();
        assert!(error.to_string().starts_with("schema todo.json: "), "{error}");
        let error = Schema::parse("todo.json", r#"{"type": "string", "type": "number"}"#).unwrap_err();
        assert!(error.to_string().starts_with("schema todo.json: /type: duplicate field"), "{error}");
    }
}

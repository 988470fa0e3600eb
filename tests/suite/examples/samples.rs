//! Sample documents, and the schema that they must match.

use std::fs;
use std::path::Path;

use platform::schema::Schema;
use serde_json::{Value, json};

/// The documents of a folder of the project.
pub fn samples(folder: &str) -> Vec<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let files = fs::read_dir(folder).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap());
    files.map(|text| serde_json::from_slice(&text).unwrap()).collect()
}

/// Checks that the documents match the schema, and that a document of another shape does not.
pub fn assert_samples_meet(schema: &str, samples: &[Value]) {
    let schema = Schema::parse("of the samples", schema).unwrap();
    assert!(samples.len() >= 2);
    for sample in samples {
        schema.check(sample).unwrap();
    }
    assert!(schema.check(&json!({"a key": "that no schema has"})).is_err());
}

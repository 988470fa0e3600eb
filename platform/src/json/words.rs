//! The words of JSON for what serde says in those of Rust: its own messages name the types of Rust.

/// A message of serde without types of Rust.
pub fn in_words(message: String) -> String {
    if message.starts_with("data did not match any variant of untagged enum") {
        return "is none of the forms that are taken here".to_owned();
    }
    // The last one: what stands before it may quote the value.
    let Some((found, expected)) = message.rsplit_once(", expected ") else { return message };
    let expected = type_name(expected);
    let found = match found {
        "invalid type: map" => "invalid type: object",
        "invalid type: sequence" => "invalid type: array",
        found if found.starts_with("invalid length ") && expected == "an object" => "invalid type: array",
        found => found,
    };
    format!("{found}, expected {expected}")
}

/// A type of Rust, or what serde calls it, as a reader of JSON knows it.
pub fn type_name(of_rust: &str) -> String {
    let range = |low: i64, high: i64| format!("a whole number from {low} to {high}");
    let words = match of_rust.split(' ').next().unwrap_or_default() {
        "u8" => return range(0, u8::MAX.into()),
        "u16" => return range(0, u16::MAX.into()),
        "u32" => return range(0, u32::MAX.into()),
        "i8" => return range(i8::MIN.into(), i8::MAX.into()),
        "i16" => return range(i16::MIN.into(), i16::MAX.into()),
        "i32" => return range(i32::MIN.into(), i32::MAX.into()),
        "i64" | "isize" => "a whole number",
        "u64" | "usize" => "a whole number of at least 0",
        "f32" | "f64" => "a number",
        "bool" => "true or false",
        "char" => "one character",
        "String" | "enum" | "variant" => "a string",
        "struct" | "map" => "an object",
        "tuple" => "an array",
        "unit" => "null",
        _ if of_rust == "string or map" => "a string or an object",
        _ if of_rust == "a map" => "an object",
        _ if of_rust == "a sequence" || of_rust.starts_with("a tuple") => "an array",
        _ => of_rust,
    };
    words.to_owned()
}

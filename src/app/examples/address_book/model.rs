//! An entry of the address book, as `schema/address-book-v1.0.json` describes it.
//!
//! An entry comes back as it was sent: a missing field stays missing, and a number stays a number.

use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};

use platform::store::Entity;

/// A person and how to reach them.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    pub full_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub addresses: Option<Vec<Address>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phone_numbers: Option<Vec<Phone>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fax_numbers: Option<Vec<Phone>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub emails: Option<Vec<Email>>,
}

impl Entity for Entry {
    const COLLECTION: &'static str = "addresses";
    const INDEXES: &'static [&'static str] = &["full_name"];
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Home,
    Work,
}

/// A house number or a post code: `12` or `"12b"`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "Value", untagged)]
pub enum NumberOrText {
    Number(Number),
    Text(String),
}

// With a derived `Deserialize`, the error would not say what is expected.
impl TryFrom<Value> for NumberOrText {
    type Error = &'static str;

    fn try_from(value: Value) -> Result<Self, Self::Error> {
        match value {
            Value::Number(number) => Ok(Self::Number(number)),
            Value::String(text) => Ok(Self::Text(text)),
            _ => Err("neither a number nor a text"),
        }
    }
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Address {
    pub kind: Kind,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub building_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit_number: Option<Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub street_number: Option<NumberOrText>,
    pub street_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locality: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub city: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub province: Option<String>,
    pub pincode: NumberOrText,
    pub country: String,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Phone {
    pub kind: Kind,
    pub country_code: Number,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub area_code: Option<Number>,
    pub local_number: Number,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Email {
    pub kind: Kind,
    pub email: String,
}

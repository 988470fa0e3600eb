//! The bounds of a histogram's buckets, by the name of the histogram.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// `metrics.buckets`.
pub(super) type Buckets = BTreeMap<Name, Bounds>;

/// The name of a figure, as Prometheus allows it.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "String")]
pub struct Name(pub(super) String);

impl TryFrom<String> for Name {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':';
        if name.bytes().all(allowed) && name.bytes().next().is_some_and(|first| !first.is_ascii_digit()) {
            Ok(Self(name))
        } else {
            Err(format!("'{name}' is not the name of a figure, expected letters, digits, '_' and ':'"))
        }
    }
}

/// Upper bounds, each above the one before.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(try_from = "Vec<f64>")]
pub struct Bounds(pub(super) Vec<f64>);

impl TryFrom<Vec<f64>> for Bounds {
    type Error = String;

    fn try_from(bounds: Vec<f64>) -> Result<Self, String> {
        if bounds.is_empty() {
            return Err("expected at least one upper bound".to_owned());
        }
        match bounds.windows(2).find(|pair| pair[0] >= pair[1]) {
            Some(pair) => Err(format!("{} comes after {}, expected ascending bounds", pair[1], pair[0])),
            None => Ok(Self(bounds)),
        }
    }
}

//! The id of a request: the client's `X-Request-Id` if it is well formed, else a generated one.

use axum::http::{HeaderName, HeaderValue};
use uuid::Uuid;

/// The header that carries the request id, in requests and in responses.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest request id that is accepted from a client, in bytes. Ids of the common tracing systems have at most 64.
const MAX_LENGTH: usize = 128;

/// The id of one request.
pub(crate) enum RequestId {
    /// Sent by the client.
    FromClient(HeaderValue),
    /// Generated: 32 hexadecimal digits. They are stored inline, so that there is no allocation before the header is
    /// made.
    Generated([u8; 32]),
}

impl RequestId {
    /// The client's id if it is well formed, else a new one.
    pub(crate) fn new(from_client: Option<&HeaderValue>) -> Self {
        match from_client.filter(|id| is_well_formed(id)) {
            Some(id) => Self::FromClient(id.clone()),
            None => Self::generate(),
        }
    }

    fn generate() -> Self {
        let mut digits = [0; 32];
        Uuid::from_u128(fastrand::u128(..)).simple().encode_lower(&mut digits);
        Self::Generated(digits)
    }

    /// The id as text.
    pub(crate) fn as_str(&self) -> &str {
        let bytes = match self {
            Self::FromClient(id) => id.as_bytes(),
            Self::Generated(id) => id,
        };
        // Both variants are ASCII.
        str::from_utf8(bytes).unwrap_or_default()
    }

    /// The id as the value of a header.
    pub(crate) fn to_header(&self) -> HeaderValue {
        match self {
            Self::FromClient(id) => id.clone(),
            Self::Generated(id) => HeaderValue::from_bytes(id).unwrap_or(HeaderValue::from_static("none")),
        }
    }
}

/// Whether the id has only letters, digits and the punctuation that request ids of other systems have. None of these
/// characters can end a field of a log line.
fn is_well_formed(id: &HeaderValue) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+@".contains(byte);
    (1..=MAX_LENGTH).contains(&id.len()) && id.as_bytes().iter().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_could_forge_a_log_line_is_not_accepted() {
        for bad in ["", "a b", "a\tb", "a\"b", "a=b", &"x".repeat(129)] {
            assert!(!is_well_formed(&HeaderValue::try_from(bad).unwrap()), "{bad:?}");
        }
        for good in [
            "a",
            "0f8fad5b-d9cb-469f-a165-70867728950e",
            "1-67891233-abcdef012345678912345678",
            &"x".repeat(128),
        ] {
            assert!(is_well_formed(&HeaderValue::try_from(good).unwrap()), "{good:?}");
        }
    }

    #[test]
    fn generated_ids_are_32_hexadecimal_digits_and_differ() {
        let [one, other] = [RequestId::new(None), RequestId::new(None)].map(|id| id.to_header());
        assert_ne!(one, other);
        assert!(one.len() == 32 && one.as_bytes().iter().all(u8::is_ascii_hexdigit), "{one:?}");
    }
}

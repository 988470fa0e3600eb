//! The address under which the users of a server find it.

use axum::http::Uri;
use serde::{Deserialize, Serialize};

/// The origin of a server as its users have it: `https://shop.example`. Empty where it is not set.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(try_from = "String")]
pub struct PublicUrl(String);

impl TryFrom<String> for PublicUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let uri = text.parse::<Uri>().ok();
        let is_origin = uri.is_some_and(|uri| {
            let authority = uri.authority().map_or("", |authority| authority.as_str());
            let origin = format!("{}://{authority}", uri.scheme_str().unwrap_or_default());
            matches!(uri.scheme_str(), Some("http" | "https"))
                && !authority.contains('@')
                && (text == origin || text.strip_suffix('/') == Some(&origin))
        });
        if text.is_empty() || is_origin {
            return Ok(Self(text.trim_end_matches('/').to_owned()));
        }
        Err(format!("'{text}' is not the start of a URL such as https://shop.example, without a path"))
    }
}

impl PublicUrl {
    /// `https://shop.example`, without a slash at its end; nothing where it is not set.
    pub fn origin(&self) -> Option<&str> {
        (!self.0.is_empty()).then_some(&self.0)
    }

    /// Whether a header `Origin` names it. Browsers write the host in lower case.
    pub(crate) fn is_origin(&self, header: &[u8]) -> bool {
        self.origin().is_some_and(|origin| header.eq_ignore_ascii_case(origin.as_bytes()))
    }

    /// Whether it is HTTPS; nothing where it is not set.
    pub fn is_secure(&self) -> Option<bool> {
        self.origin().map(|origin| origin.starts_with("https://"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_start_of_a_url_is_taken() {
        let parse = |text: &str| PublicUrl::try_from(text.to_owned());
        for text in ["https://shop.example", "http://localhost:5000/", "https://[::1]:8443"] {
            let url = parse(text).unwrap();
            assert_eq!(url.origin(), Some(text.trim_end_matches('/')));
            assert_eq!(url.is_secure(), Some(text.starts_with("https")));
        }
        assert_eq!(parse("").unwrap().origin(), None);
        for text in
            ["shop.example", "ftp://a", "https://a/b", "https://a?b", "https://u@a", "https://", "a b"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}

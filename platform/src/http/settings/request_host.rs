//! The host that a request is for: read once, from its target or from `Host`.

use axum::http::uri::Authority;
use axum::http::{HeaderValue, Uri};

/// A host, with its port where there is one (RFC 9110, section 7.2).
#[derive(Clone, Debug)]
pub(crate) struct RequestHost {
    /// Only characters of a host and its port, so it is ASCII.
    value: HeaderValue,
    /// How many bytes of it are the name.
    name: usize,
}

impl RequestHost {
    /// What is none: a user before an `@`, a port that is no number, an address without its brackets.
    pub(crate) fn parse(value: HeaderValue) -> Option<Self> {
        let bytes = value.as_bytes();
        let is_literal = bytes.first() == Some(&b'[');
        let end = bytes.iter().position(|byte| *byte == if is_literal { b']' } else { b':' });
        let name = end.map_or(bytes.len(), |end| end + usize::from(is_literal));
        let (host, port) = bytes.split_at(name);
        let is_name = match host.strip_prefix(b"[") {
            Some(address) => {
                address.strip_suffix(b"]").is_some_and(|it| it.iter().copied().all(is_ip_literal_byte))
            }
            None => host.iter().copied().all(is_host_byte),
        };
        let is_port = port.is_empty() || port[0] == b':' && port[1..].iter().all(u8::is_ascii_digit);
        (is_name && is_port).then_some(Self { value, name })
    }

    /// The host in a target, which is `:authority` in HTTP/2. What stands before an `@` is a user, and says nothing about
    /// the host.
    pub(crate) fn of_target(target: &Uri) -> Option<&str> {
        let whole = target.authority().map(Authority::as_str)?;
        Some(whole.rsplit_once('@').map_or(whole, |(_, host)| host))
    }

    /// The host with its port.
    pub(crate) fn as_str(&self) -> &str {
        self.value.to_str().unwrap_or_default()
    }

    /// The host with its port.
    pub(crate) fn value(&self) -> &HeaderValue {
        &self.value
    }

    /// The host without its port; an address of IPv6 in its brackets.
    pub(crate) fn name(&self) -> &str {
        &self.as_str()[..self.name]
    }

    /// Whether the text is the same host and port. `scheme` has the port that need not be named.
    pub(crate) fn is(&self, other: &str, scheme: Option<&str>) -> bool {
        bare(self.as_str(), scheme).eq_ignore_ascii_case(bare(other, scheme))
    }
}

/// Without the port that the scheme has anyway.
fn bare<'a>(host: &'a str, scheme: Option<&str>) -> &'a str {
    let port = match scheme {
        Some("http") => ":80",
        Some("https") => ":443",
        _ => return host,
    };
    host.strip_suffix(port).unwrap_or(host)
}

/// An address of IPv6, or of a later version (RFC 3986, section 3.2.2).
fn is_ip_literal_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b':' | b'.' | b'%')
}

/// Whether the name of a host may contain this byte (RFC 3986, section 3.2.2).
fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<RequestHost> {
        RequestHost::parse(HeaderValue::from_str(text).unwrap())
    }

    #[test]
    fn the_name_is_what_stands_before_the_port() {
        for (text, name) in [
            ("a", "a"),
            ("a:80", "a"),
            ("a:", "a"),
            ("[::1]", "[::1]"),
            ("[::1]:80", "[::1]"),
            ("", ""),
            (":80", ""),
        ] {
            assert_eq!(parse(text).unwrap().name(), name, "{text}");
        }
        for text in ["a@b", "a:b", "a:80:80", "[::1", "[::1]80", "::1", "a b", "a/b", "a\\b"] {
            assert!(parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_user_in_a_target_is_no_host() {
        for (target, expected) in [
            ("http://b/", Some("b")),
            ("http://user:pw@b:81/", Some("b:81")),
            ("http://a:x@b/", Some("b")),
            ("http://[::1]:80/", Some("[::1]:80")),
            ("/", None),
        ] {
            assert_eq!(RequestHost::of_target(&target.parse().unwrap()), expected, "{target}");
        }
    }

    #[test]
    fn the_case_and_the_port_of_the_scheme_make_no_difference() {
        for (one, other, scheme, same) in [
            ("a", "A", None, true),
            ("a:80", "a", Some("http"), true),
            ("a", "a:443", Some("https"), true),
            ("a:80", "a", Some("https"), false),
            ("a:80", "a", None, false),
            ("a:81", "a", Some("http"), false),
            ("a", "b", Some("http"), false),
        ] {
            assert_eq!(parse(one).unwrap().is(other, scheme), same, "{one} {other} {scheme:?}");
        }
    }
}

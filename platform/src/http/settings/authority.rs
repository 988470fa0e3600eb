//! The host that a request is for, and when two names mean the same one.

use axum::extract::Request;
use axum::http::header::HOST;
use axum::http::uri::Authority;
use axum::http::{HeaderValue, Uri};

/// The host of a request, with its port where there is one: that of its target (RFC 9112, section 3.2.2), which is `:authority`
/// in HTTP/2 (RFC 9113, section 8.3.1), else `Host`.
pub(crate) fn of(request: &Request) -> Option<&str> {
    let header = || request.headers().get(HOST).map(HeaderValue::as_bytes);
    of_target(request.uri()).or_else(|| str::from_utf8(header()?).ok())
}

/// The host in a target, without what stands before an `@`: that is a user, and says nothing about the host.
pub(crate) fn of_target(target: &Uri) -> Option<&str> {
    let whole = target.authority().map(Authority::as_str)?;
    Some(whole.rsplit_once('@').map_or(whole, |(_, host)| host))
}

/// Whether both are the same host and port. `scheme` has the port that need not be named.
pub(crate) fn is_same(one: &str, other: &str, scheme: Option<&str>) -> bool {
    bare(one, scheme).eq_ignore_ascii_case(bare(other, scheme))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_wins_over_the_header_and_its_user_is_no_host() {
        for (target, header, expected) in [
            ("/", Some("a:80"), Some("a:80")),
            ("http://b/", Some("a"), Some("b")),
            ("http://user:pw@b:81/", Some("a"), Some("b:81")),
            ("http://a:x@b/", None, Some("b")),
            ("http://[::1]:80/", None, Some("[::1]:80")),
            ("/", None, None),
        ] {
            let mut request = Request::builder().uri(target);
            if let Some(header) = header {
                request = request.header(HOST, header);
            }
            assert_eq!(of(&request.body(axum::body::Body::empty()).unwrap()), expected, "{target}");
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
            assert_eq!(is_same(one, other, scheme), same, "{one} {other} {scheme:?}");
        }
    }
}

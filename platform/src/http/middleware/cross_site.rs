//! Protects every route from cross-site request forgery (CSRF): a page of another site makes a browser send a request, with
//! the cookies of the user.
//!
//! The rule is that of Go's `http.CrossOriginProtection` and tower-http's `CsrfLayer`. A browser sends the origin of a
//! request in `Sec-Fetch-Site`, or at least in `Origin`; a request with neither header does not come from a browser.

use axum::http::header::{AUTHORIZATION, COOKIE, ORIGIN, UPGRADE};
use axum::http::{HeaderMap, Method};

use crate::http::routing::cors::Cors;
use crate::http::settings::request_host::RequestHost;
use crate::setting::PublicUrl;

/// What becomes of a request.
#[derive(Debug, PartialEq)]
pub(crate) enum Verdict {
    /// It changes nothing, comes from no page, from one of this origin, or from one that CORS lets send cookies.
    Pass,
    /// CORS lets the page call the route, but not with credentials. A browser sends them with a form all the same.
    WithoutCredentials,
    /// It may be forged.
    Refuse,
}

/// The origins whose pages are trusted on every route.
pub(crate) struct Own<'a> {
    /// The host that the request is for.
    pub(crate) host: Option<&'a RequestHost>,
    /// `server.public_url`: where a proxy names another host than its users do.
    pub(crate) public_url: &'a PublicUrl,
    /// `http.trusted_origins`.
    pub(crate) trusted: &'a [PublicUrl],
}

/// Judges a request for a route with these rules. An upgrade is a GET, but it counts as a change: browsers send cookies with
/// it, and CORS does not apply to WebSockets.
pub(crate) fn judge(method: &Method, own: &Own<'_>, headers: &HeaderMap, cors: Option<&Cors>) -> Verdict {
    let safe = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    if (safe && !headers.contains_key(UPGRADE)) || !is_of_another_origin(own, headers) {
        return Verdict::Pass;
    }
    match cors.zip(headers.get(ORIGIN)) {
        Some((cors, origin)) if cors.trusts(origin) => Verdict::Pass,
        Some((cors, origin)) if cors.allows(origin) => Verdict::WithoutCredentials,
        _ => Verdict::Refuse,
    }
}

/// Removes what a browser adds to a request by itself: cookies, and the user and password that it was once given for a site.
pub(crate) fn remove_credentials(headers: &mut HeaderMap) {
    headers.remove(COOKIE);
    let scheme = headers.get(AUTHORIZATION).and_then(|value| value.as_bytes().get(..5));
    if scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"basic")) {
        headers.remove(AUTHORIZATION);
    }
}

fn is_of_another_origin(own: &Own<'_>, headers: &HeaderMap) -> bool {
    let is = |known: &PublicUrl| headers.get(ORIGIN).is_some_and(|origin| known.is_origin(origin.as_bytes()));
    if own.trusted.iter().any(is) {
        return false;
    }
    if let Some(site) = headers.get("sec-fetch-site") {
        return site != "same-origin" && site != "none";
    }
    if is(own.public_url) {
        return false;
    }
    let Some(origin) = headers.get(ORIGIN) else { return false };
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    let is_same = |(scheme, origin)| own.host.is_some_and(|host| host.is(origin, Some(scheme)));
    !origin.is_some_and(is_same)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderName, HeaderValue};

    fn judge_at(host: &'static str, headers: &HeaderMap, cors: Option<&Cors>) -> Verdict {
        let host = RequestHost::parse(HeaderValue::from_static(host));
        judge_own(&Method::POST, host.as_ref(), headers, cors)
    }

    fn judge_own(
        method: &Method,
        host: Option<&RequestHost>,
        headers: &HeaderMap,
        cors: Option<&Cors>,
    ) -> Verdict {
        judge(method, &Own { host, public_url: &PublicUrl::default(), trusted: &[] }, headers, cors)
    }

    fn is_forged_at(host: &'static str, headers: &HeaderMap) -> bool {
        judge_at(host, headers, None) == Verdict::Refuse
    }

    const HOST: &str = "good.example";

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(k, v)| (HeaderName::from_static(k), HeaderValue::from_static(v))).collect()
    }

    #[test]
    fn a_form_of_another_origin_is_refused_and_the_others_pass() {
        let forged: [&[_]; 4] = [
            &[("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "same-site")],
            &[("origin", "https://evil.example")],
            &[("origin", "null")],
        ];
        for pairs in forged {
            assert!(is_forged_at(HOST, &headers(pairs)), "{pairs:?}");
            assert_eq!(judge_own(&Method::GET, None, &headers(pairs), None), Verdict::Pass, "{pairs:?}");
        }
        // One that comes to a host that nobody knows.
        let own = headers(&[("origin", "https://good.example")]);
        assert_eq!(judge_own(&Method::POST, None, &own, None), Verdict::Refuse);
        // The port of the scheme need not be named, and that of another scheme is another one.
        assert!(!is_forged_at("Good.example:443", &own));
        assert!(is_forged_at("good.example:80", &own));
        let allowed: [&[_]; 4] = [
            &[],
            &[("sec-fetch-site", "same-origin")],
            &[("sec-fetch-site", "none")],
            &[("origin", "https://good.example")],
        ];
        for pairs in allowed {
            assert!(!is_forged_at(HOST, &headers(pairs)), "{pairs:?}");
        }
    }

    #[test]
    fn a_page_of_the_public_url_passes_behind_a_proxy_and_one_of_a_trusted_origin_always() {
        let host = RequestHost::parse(HeaderValue::from_static("10.0.0.7:5000"));
        let url = |text: &str| PublicUrl::try_from(text.to_owned()).unwrap();
        let (public_url, trusted) = (url("https://Good.example"), [url("https://admin.example")]);
        let own = Own { host: host.as_ref(), public_url: &public_url, trusted: &trusted };
        let from = |pairs: &[_]| judge(&Method::POST, &own, &headers(pairs), None);
        for (origin, alone, cross_site) in [
            ("https://good.example", Verdict::Pass, Verdict::Refuse),
            ("https://admin.example", Verdict::Pass, Verdict::Pass),
            ("http://admin.example", Verdict::Refuse, Verdict::Refuse),
            ("https://admin.example.evil.example", Verdict::Refuse, Verdict::Refuse),
            ("null", Verdict::Refuse, Verdict::Refuse),
        ] {
            assert_eq!(from(&[("origin", origin)]), alone, "{origin}");
            let verdict = from(&[("origin", origin), ("sec-fetch-site", "cross-site")]);
            assert_eq!(verdict, cross_site, "{origin}");
        }
        // Without them, both are of another origin: the control.
        assert!(is_forged_at("10.0.0.7:5000", &headers(&[("origin", "https://good.example")])));
        assert!(is_forged_at("10.0.0.7:5000", &headers(&[("origin", "https://admin.example")])));
    }

    #[test]
    fn a_page_of_an_origin_that_cors_trusts_with_cookies_passes_and_others_do_not() {
        let good = HeaderValue::from_static("https://app.example");
        let from = |origin| headers(&[("sec-fetch-site", "cross-site"), ("origin", origin)]);
        let trusting = Cors::origins([good.clone()]).with_credentials();
        assert_eq!(judge_at(HOST, &from("https://app.example"), Some(&trusting)), Verdict::Pass);
        assert_eq!(judge_at(HOST, &from("https://evil.example"), Some(&trusting)), Verdict::Refuse);
        // An origin that is allowed without cookies gets in without them.
        for cors in [Cors::origins([good]), Cors::any().with_credentials()] {
            let verdict = judge_at(HOST, &from("https://app.example"), Some(&cors));
            assert_eq!(verdict, Verdict::WithoutCredentials, "{cors:?}");
        }
    }
}

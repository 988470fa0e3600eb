//! The headers that hold for one connection only, and are not passed on (RFC 9110, section 7.6.1).

use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
    EXPECT, FORWARDED, HOST, MAX_FORWARDS, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, SET_COOKIE, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE, VIA,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use http_body::Frame;

/// Of one connection whether `Connection` names them or not. `Expect` is here because this server has answered it itself
/// (100 Continue), the two of a proxy because they are between the client and this server.
const OF_THE_CONNECTION: [HeaderName; 11] = [
    CONNECTION,
    EXPECT,
    HeaderName::from_static("http2-settings"),
    HeaderName::from_static("keep-alive"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-authentication-info"),
    HeaderName::from_static("proxy-connection"),
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// No trailers: who merges them into the headers would frame, route or read the message anew (RFC 9110, section 6.5.1).
/// hyper drops them from HTTP/1.1 only.
const NO_TRAILERS: [HeaderName; 10] = [
    AUTHORIZATION,
    CACHE_CONTROL,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_RANGE,
    CONTENT_TYPE,
    HOST,
    MAX_FORWARDS,
    SET_COOKIE,
    TRAILER,
];

/// A piece of a body. What must not be in trailers is taken out of them; HTTP/2 would break off the stream.
pub(super) fn without_forbidden_trailers(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            for name in OF_THE_CONNECTION.iter().chain(&NO_TRAILERS) {
                trailers.remove(name);
            }
            Frame::trailers(trailers)
        }
        Err(data) => data,
    }
}

/// Takes them away where a request arrives, before a layer of the app sets what a client might have named in `Connection`. A
/// WebSocket stays one.
pub(crate) fn remove_on_arrival(headers: &mut HeaderMap) {
    let websocket = asks_for_websocket(headers);
    remove(headers);
    if websocket {
        set_websocket(headers);
    }
}

/// Removes them, with those that `Connection` names. What says who the client is stays: this server has set it, and it is not
/// up to the client.
pub(super) fn remove(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = options(headers)
        .filter_map(|name| HeaderName::try_from(name).ok())
        .filter(|name| *name != VIA && *name != FORWARDED && !name.as_str().starts_with("x-forwarded-"))
        .collect();
    for name in named.iter().chain(&OF_THE_CONNECTION) {
        headers.remove(name);
    }
}

/// The protocol that a message asks for or switches to, where it is a WebSocket. No other one is passed on: `h2c` would
/// lead requests past all that this server checks.
pub(super) fn asks_for_websocket(headers: &HeaderMap) -> bool {
    let mut upgrades = headers.get_all(UPGRADE).iter();
    let websocket = upgrades.next().is_some_and(|name| name.as_bytes().eq_ignore_ascii_case(b"websocket"));
    websocket
        && upgrades.next().is_none()
        && options(headers).any(|name| name.eq_ignore_ascii_case("upgrade"))
}

/// Asks for a WebSocket, or switches to it.
pub(super) fn set_websocket(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
}

/// The names in all lines of `Connection`.
fn options(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(CONNECTION).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let line = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        lines.iter().map(line).collect()
    }

    #[test]
    fn the_headers_of_the_connection_go_and_the_others_stay_in_their_order() {
        let mut message = headers(&[
            ("connection", "close, X-Secret, X-Forwarded-For, Via"),
            ("connection", "keep-alive ,, x-other"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("trailer", "x-sum"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("proxy-authorization", "Basic x"),
            ("x-secret", "1"),
            ("x-other", "2"),
            ("x-forwarded-for", "192.0.2.1"),
            ("via", "1.1 server"),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
        ]);
        remove(&mut message);
        let left = [
            ("trailer", "x-sum"),
            ("x-forwarded-for", "192.0.2.1"),
            ("via", "1.1 server"),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
        ];
        assert_eq!(message, headers(&left));
    }

    #[test]
    fn only_a_websocket_is_an_upgrade() {
        for (connection, upgrade, expected) in [
            ("Upgrade", "websocket", true),
            ("keep-alive, Upgrade", "WebSocket", true),
            ("keep-alive", "websocket", false),
            ("upgrade, http2-settings", "h2c", false),
            ("upgrade", "websocket, h2c", false),
        ] {
            let message = headers(&[("connection", connection), ("upgrade", upgrade)]);
            assert_eq!(asks_for_websocket(&message), expected, "{connection}: {upgrade}");
        }
    }
}

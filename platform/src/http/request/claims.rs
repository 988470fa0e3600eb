//! What a client says of its connection and of itself, in a request that is passed on. It is taken away where the request
//! arrives: what a layer of the app sets after that stays.

use axum::http::{HeaderMap, HeaderName};

use crate::connector::remove_on_arrival;

/// Removes the headers of the connection, and what a client claims about itself that is no trusted proxy.
pub(crate) fn remove(headers: &mut HeaderMap, is_trusted: bool) {
    remove_on_arrival(headers);
    if is_trusted {
        return;
    }
    let claims = |name: &&HeaderName| {
        // CGI takes both for one.
        let name = name.as_str().replace('_', "-");
        name.starts_with("x-forwarded-") || name == "forwarded" || name == "x-real-ip"
    };
    let claimed: Vec<HeaderName> = headers.keys().filter(claims).cloned().collect();
    for name in claimed {
        headers.remove(name);
    }
}

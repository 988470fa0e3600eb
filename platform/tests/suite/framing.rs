//! Requests whose end is ambiguous, malformed, or hidden (RFC 9112): each has one response or ends the connection, and what
//! stands in its body is never taken for a request.

use axum::body::Bytes;
use platform::http::{Route, Routes};
use platform::testing::{Connection, TestApp, client};

/// A vector, and the statuses of all responses: that of the vector, and 404 where the request behind it is answered too.
type Vector = (&'static str, &'static [u16]);

/// What hides in a body: 33 bytes.
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n";
/// What follows on the connection.
const NEXT: &str = "GET /next HTTP/1.1\r\nHost: a\r\n\r\n";

/// `P` stands for `POST /length HTTP/1.1\r\nHost: a\r\n`, `H` for the hidden request.
const VECTORS: &[Vector] = &[
    // Controls.
    ("{P}Content-Length: 2\r\n\r\nab", &[200, 404]),
    ("{P}Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", &[200, 404]),
    ("{P}Content-Length: 33\r\n\r\n{H}", &[200, 404]),
    ("{P}Transfer-Encoding: chunked\r\n\r\n21\r\n{H}\r\n0\r\n\r\n", &[200, 404]),
    ("{P}\r\n", &[200, 404]),
    // Content-Length.
    ("{P}Content-Length: -1\r\n\r\n", &[400]),
    ("{P}Content-Length: +2\r\n\r\nab", &[400]),
    ("{P}Content-Length: 0x2\r\n\r\nab", &[400]),
    ("{P}Content-Length: 2 2\r\n\r\nab", &[400]),
    ("{P}Content-Length: 2,3\r\n\r\nabc", &[400]),
    ("{P}Content-Length: \r\n\r\n", &[400]),
    ("{P}Content-Length: abc\r\n\r\n", &[400]),
    ("{P}Content-Length: 1e1\r\n\r\n", &[400]),
    ("{P}Content-Length: 18446744073709551616\r\n\r\n", &[400]),
    ("{P}Content-Length: 99999999999999999999999\r\n\r\n", &[400]),
    ("{P}Content-Length: 2\r\nContent-Length: 3\r\n\r\nabc", &[400]),
    ("{P}Content-Length: 0\r\nContent-Length: 33\r\n\r\n{H}", &[400]),
    ("{P}Content-Length: 2\r\nContent-Length: 2\r\n\r\nab", &[200, 404]),
    ("{P}Content-Length: 002\r\n\r\nab", &[200, 404]),
    // Both: the chunks count, and the connection is closed (RFC 9112, section 6.1).
    ("{P}Content-Length: 33\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", &[200]),
    ("{P}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", &[200]),
    // Transfer-Encoding.
    ("{P}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", &[400]),
    ("{P}Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", &[400]),
    ("{P}Transfer-Encoding: identity\r\n\r\n", &[400]),
    ("{P}Transfer-Encoding: gzip\r\n\r\n", &[400]),
    ("{P}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", &[400]),
    ("{P}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", &[400]),
    ("{P}Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", &[400]),
    ("{P}Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n", &[400]),
    ("{P}Transfer-Encoding:\r\n\r\n", &[400]),
    ("{P}Transfer-Encoding: \u{b}chunked\r\n\r\n0\r\n\r\n", &[400]),
    ("{P}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", &[400]),
    ("POST /length HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", &[400]),
    // Chunks.
    ("{P}Transfer-Encoding: chunked\r\n\r\nx\r\n", &[400]),
    ("{P}Transfer-Encoding: chunked\r\n\r\n-1\r\na\r\n0\r\n\r\n", &[400]),
    ("{P}Transfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n", &[400]),
    ("{P}Transfer-Encoding: chunked\r\n\r\n+1\r\na\r\n0\r\n\r\n", &[400]),
    ("{P}Transfer-Encoding: chunked\r\n\r\n\r\n0\r\n\r\n", &[400]),
    ("{P}Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\na\r\n0\r\n\r\n", &[400]),
    ("{P}Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\na\r\n0\r\n\r\n", &[400]),
    ("{P}Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n", &[400]),
    ("{P}Transfer-Encoding: chunked\r\n\r\n1\na\n0\n\n", &[400]),
    ("{P}Transfer-Encoding: chunked\r\n\r\n1;a=b\r\na\r\n0\r\n\r\n", &[200, 404]),
    ("{P}Transfer-Encoding: chunked\r\n\r\n1;\na\r\n0\r\n\r\n", &[400]),
    ("{P}Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Trailer: 1\r\n\r\n", &[200, 404]),
    (
        "{P}Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nContent-Length: 33\r\nHost: b\r\n\r\n",
        &[200, 404],
    ),
    ("{P}Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n X: 1\r\n\r\n", &[400]),
    // Lines and names.
    ("{P}Content-Length : 34\r\n\r\n{H}", &[400]),
    ("{P}X: a\r\n b\r\n\r\n", &[400]),
    ("{P} Content-Length: 33\r\n\r\n{H}", &[400]),
    ("{P}X: a\rContent-Length: 33\r\n\r\n", &[400]),
    ("{P}X: a\0b\r\n\r\n", &[400]),
    ("{P}X\0: a\r\n\r\n", &[400]),
    ("{P}X(: a\r\n\r\n", &[400]),
    ("{P}: a\r\n\r\n", &[400]),
    ("{P}no colon\r\n\r\n", &[400]),
    ("GET /ping\0 HTTP/1.1\r\nHost: a\r\n\r\n", &[400]),
    ("GET  /ping HTTP/1.1\r\nHost: a\r\n\r\n", &[400]),
    ("GET /ping HTTP/1.1 \r\nHost: a\r\n\r\n", &[400]),
    ("GET /ping HTTP/1.2\r\nHost: a\r\n\r\n", &[400]),
    ("GET /ping\r\n\r\n", &[400]),
    ("GET ping HTTP/1.1\r\nHost: a\r\n\r\n", &[400, 404]),
    ("G@T /ping HTTP/1.1\r\nHost: a\r\n\r\n", &[400]),
    ("\r\nGET /ping HTTP/1.1\r\nHost: a\r\n\r\n", &[200, 404]),
    ("GET /ping HTTP/1.1\nHost: a\n\n", &[200, 404]),
    // Host and target.
    ("GET /ping HTTP/1.1\r\n\r\n", &[400, 404]),
    ("GET /ping HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", &[400, 404]),
    ("GET /ping HTTP/1.1\r\nHost: a:b:c\r\n\r\n", &[400, 404]),
    ("GET /ping HTTP/1.1\r\nHost: a:80x\r\n\r\n", &[400, 404]),
    ("GET /ping HTTP/1.1\r\nHost: [::1\r\n\r\n", &[400, 404]),
    ("GET /ping HTTP/1.1\r\nHost: [::1]x\r\n\r\n", &[400, 404]),
    ("GET /ping HTTP/1.1\r\nHost: a/b\r\n\r\n", &[400, 404]),
    ("GET /ping HTTP/1.1\r\nHost: u@a\r\n\r\n", &[400, 404]),
    ("GET /ping HTTP/1.1\r\nHost: a, b\r\n\r\n", &[400, 404]),
    ("GET /ping HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", &[200, 404]),
    ("GET /ping HTTP/1.1\r\nHost: \r\n\r\n", &[200, 404]),
    ("GET http://a/ping HTTP/1.1\r\nHost: a\r\n\r\n", &[200, 404]),
    ("GET http://b/ping HTTP/1.1\r\nHost: a\r\n\r\n", &[400, 404]),
    ("GET http://u@a/ping HTTP/1.1\r\nHost: a\r\n\r\n", &[200, 404]),
];

/// The statuses in what came over a connection: no body of a response here has such a line.
fn statuses(received: &str) -> Vec<u16> {
    let lines = received.split("HTTP/1.").skip(1);
    lines.map(|rest| rest[2..5].parse().unwrap()).collect()
}

#[tokio::test]
async fn no_request_has_two_responses_and_none_hides_in_another() {
    let length = async |body: Bytes| body.len().to_string();
    let routes =
        Routes::new().route(Route::at("/length").post(length)).merge(platform::http::health::routes());
    let app = TestApp::with_routes(routes, &[]).await;
    let server = app.listen().await.0;
    let wrong = client(move || {
        let mut wrong = Vec::new();
        for (vector, expected) in VECTORS {
            let sent =
                vector.replace("{P}", "POST /length HTTP/1.1\r\nHost: a\r\n").replace("{H}", HIDDEN) + NEXT;
            let mut connection = Connection::open(server);
            connection.try_send(&sent);
            let received = connection.close_sending_side().read_to_end();
            if statuses(&received) != *expected {
                wrong.push(format!("{vector:?}: {:?}, expected {expected:?}", statuses(&received)));
            }
        }
        wrong
    })
    .await;
    assert!(wrong.is_empty(), "{wrong:#?}");
    let hidden: Vec<_> = app.log().into_iter().filter(|line| line.contains("path=/hidden")).collect();
    assert!(hidden.is_empty(), "{hidden:#?}");
}

//! Request bodies: their size and encoding, the limit after decompression, and keys that must not be interpreted.

use std::io::Write as _;

use axum::body::Body;
use axum::http::{Method, Request};
use bytes::Bytes;
use futures_util::stream;
use platform::http::{Json, Route, Routes};
use platform::services::Services;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::handlers::{echo, length};
use platform::testing::{TestApp, TestResponse};

async fn length_of_bytes(body: Bytes) -> Json<usize> {
    Json(body.len())
}

#[derive(Deserialize, Serialize)]
struct Holder {
    value: Value,
}

/// Responds with the JSON of the request body, through a type that has a field of type `Value`.
async fn hold(Json(body): Json<Holder>) -> Json<Holder> {
    Json(body)
}

fn routes() -> Routes<Services> {
    Routes::new()
        .route(Route::at("/length").post(length))
        .route(Route::at("/bytes").post(length_of_bytes))
        .route(Route::at("/large").post(length).body_limit(10 << 20))
        .route(Route::at("/echo").post(echo))
        .route(Route::at("/hold").post(hold))
}

async fn app() -> TestApp {
    TestApp::with_routes(routes(), &[("SERVER__HTTP__BODY_LIMIT", "1MiB")]).await
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn deflate(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn brotli(plain: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    brotli::CompressorWriter::new(&mut out, 4_096, 5, 22).write_all(plain).unwrap();
    out
}

fn zstd(plain: &[u8]) -> Vec<u8> {
    zstd::encode_all(plain, 0).unwrap()
}

async fn post(app: &TestApp, path: &str, encoding: &str, body: impl Into<Body>) -> TestResponse {
    app.call(Method::POST, path, &[("content-encoding", encoding)], body).await
}

const MIB: usize = 1 << 20;

#[tokio::test]
async fn a_body_up_to_the_limit_is_read_and_one_byte_more_is_413() {
    let app = app().await;
    assert_eq!(app.post("/length", "x".repeat(MIB)).await.json(), MIB);
    let response = app.post("/length", "x".repeat(MIB + 1)).await;
    assert_eq!(response.status_line(), "413 Payload Too Large");
    assert_eq!(response.json()["message"], "The body is larger than the limit of 1048576 bytes");
    assert_eq!(app.post("/large", "x".repeat(MIB + 1)).await.json(), MIB + 1);
}

#[tokio::test]
async fn a_body_without_a_declared_length_has_the_same_limit() {
    let app = app().await;
    for path in ["/length", "/bytes"] {
        let pieces = stream::iter((0..17).map(|_| Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; 1 << 16]))));
        let request = Request::post(path).body(Body::from_stream(pieces)).unwrap();
        let response = app.send(request).await;
        assert_eq!(response.status_line(), "413 Payload Too Large", "{path}");
    }
}

#[tokio::test]
async fn a_compressed_body_is_read() {
    let app = app().await;
    let plain = br#"{"name": "Ada"}"#;
    for (encoding, body) in
        [("gzip", gzip(plain)), ("deflate", deflate(plain)), ("br", brotli(plain)), ("zstd", zstd(plain))]
    {
        let response = post(&app, "/echo", encoding, body).await;
        assert_eq!(response.json()["name"], "Ada", "{encoding}");
    }
    assert_eq!(post(&app, "/echo", "identity", &plain[..]).await.json()["name"], "Ada");
    assert_eq!(post(&app, "/echo", "GZip", gzip(plain)).await.json()["name"], "Ada");
}

#[tokio::test]
async fn the_limit_counts_the_bytes_after_decompression() {
    let app = app().await;
    let bomb = vec![b'x'; 64 * MIB];
    for (encoding, body) in
        [("gzip", gzip(&bomb)), ("deflate", deflate(&bomb)), ("br", brotli(&bomb)), ("zstd", zstd(&bomb))]
    {
        assert!(body.len() < MIB, "{encoding}: the limit would be exceeded before decompression");
        for path in ["/length", "/bytes"] {
            let response = post(&app, path, encoding, body.clone()).await;
            assert_eq!(response.status_line(), "413 Payload Too Large", "{encoding} {path}");
        }
    }
    // The control: a compressed body is read where the limit allows its size after decompression.
    assert_eq!(post(&app, "/large", "gzip", gzip(&vec![b'x'; 2 * MIB])).await.json(), 2 * MIB);
}

#[tokio::test]
async fn a_body_in_an_unknown_encoding_is_415() {
    let app = app().await;
    for encoding in ["compress", "gzip, br", "x"] {
        let response = post(&app, "/length", encoding, "abc").await;
        assert_eq!(response.status_line(), "415 Unsupported Media Type", "{encoding}");
        assert_eq!(response.header("accept-encoding"), Some("gzip, br, zstd, deflate"));
    }
    // Two lines of one header are a list: the first line alone is only a part of it.
    let twice = [("content-encoding", "gzip"), ("content-encoding", "gzip")];
    let response = app.call(Method::POST, "/length", &twice, gzip(&gzip(b"abc"))).await;
    assert_eq!(response.status, 415);
}

#[tokio::test]
async fn a_body_that_is_not_what_its_encoding_says_is_400() {
    let app = app().await;
    let mut truncated = gzip(&[b'x'; 1_000]);
    truncated.truncate(20);
    let garbage = |mut body: Vec<u8>| {
        body.extend_from_slice(b"garbage");
        body
    };
    // A frame that requires a window of 2^(10 + n) bytes (RFC 8878, section 3.1.1.1.2), and an empty last block.
    let window = |n: u8| vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, n << 3, 0x01, 0x00, 0x00];
    // The control: 8 MiB, the largest window that RFC 9659 allows a sender to require.
    assert_eq!(post(&app, "/length", "zstd", window(13)).await.json(), 0);
    for (encoding, body) in [
        ("gzip", b"not gzip".to_vec()),
        ("zstd", b"not zstd".to_vec()),
        ("gzip", truncated),
        ("gzip", garbage(gzip(b"abc"))),
        ("deflate", garbage(deflate(b"abc"))),
        ("br", garbage(brotli(b"abc"))),
        ("zstd", garbage(zstd(b"abc"))),
        ("zstd", window(17)),
    ] {
        let response = post(&app, "/length", encoding, body).await;
        assert_eq!(response.status_line(), "400 Malformed Request Body", "{encoding}");
    }
}

#[tokio::test]
async fn a_gzip_body_of_several_members_is_read_to_its_end() {
    // RFC 1952, section 2.2.
    let (app, body) = (app().await, [gzip(b"abc"), gzip(b"defg")].concat());
    assert_eq!(post(&app, "/length", "gzip", body).await.json(), 7);
}

#[tokio::test]
async fn a_key_that_serde_json_would_interpret_is_refused_with_its_pointer() {
    let app = app().await;
    for name in ["RawValue", "Number"] {
        // Parsed as JSON, this text would lose its first `a`.
        let magic = json!({format!("$serde_json::private::{name}"): r#"{"a":1,"a":2}"#});
        let value = json!([{"~/": magic}]);
        for (path, body, parent) in
            [("/echo", value.clone(), ""), ("/hold", json!({ "value": value }), "/value")]
        {
            let response = app.post(path, &body).await;
            assert_eq!(
                response.status_line(),
                "400 Invalid JSON body",
                "{body} came back as {:?}",
                response.body
            );
            let pointer = format!("{parent}/0/~0~1/$serde_json::private::{name}");
            assert_eq!(response.json()["errors"][0]["pointer"], pointer);
        }
    }
}

#[tokio::test]
async fn keys_that_other_formats_interpret_come_back_as_they_were_sent() {
    let app = app().await;
    for key in [
        // toml, serde_spanned
        "$__toml_private_datetime",
        "$__serde_spanned_private_value",
        // MongoDB's extended JSON
        "$oid",
        "$numberLong",
        "$date",
        "$ref",
        // serde-saphyr, serde_yaml
        "!tag",
        "<<",
        // The control of the test above: almost the key.
        "serde_json::private::RawValue",
        "$serde_json::public::RawValue",
    ] {
        let body = json!({"value": [{key: "1"}, {key: {"a": 1}}]});
        for path in ["/echo", "/hold"] {
            assert_eq!(app.post(path, &body).await.json(), body);
        }
    }
}

//! Compression, `ETag`, security headers, request ids, static files.

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, X_FRAME_OPTIONS};
use axum::http::{HeaderName, Method};
use axum::response::IntoResponse;
use platform::http::{Path, Route, Routes};
use platform::services::Services;

use platform::testing::{TestApp, TestResponse};

async fn text(Path(size): Path<usize>) -> String {
    "a bit of text ".chars().cycle().take(size).collect()
}

async fn picture() -> impl IntoResponse {
    ([(CONTENT_TYPE, "image/png")], vec![7; 10_000])
}

async fn unframed() -> impl IntoResponse {
    [(X_FRAME_OPTIONS, "DENY")]
}

fn routes() -> Routes<Services> {
    Routes::new()
        .route(Route::at("/unframed").get(unframed))
        .route(Route::at("/text/{size}").get(text).post(text))
        .route(Route::at("/picture").get(picture))
}

async fn app() -> TestApp {
    TestApp::with_routes(routes(), &[]).await
}

async fn get(app: &TestApp, path: &str, name: &str, value: &str) -> TestResponse {
    app.call(Method::GET, path, &[(name, value)], Body::empty()).await
}

/// The body without its content encoding.
fn decoded(response: &TestResponse) -> Vec<u8> {
    let mut plain = Vec::new();
    let mut decoder: Box<dyn std::io::Read> = match response.header("content-encoding") {
        None => Box::new(&response.body[..]),
        Some("gzip") => Box::new(flate2::read::GzDecoder::new(&response.body[..])),
        Some("br") => Box::new(brotli::Decompressor::new(&response.body[..], 4_096)),
        Some("zstd") => Box::new(zstd::Decoder::new(&response.body[..]).unwrap()),
        Some(other) => panic!("{other}"),
    };
    decoder.read_to_end(&mut plain).unwrap();
    plain
}

#[tokio::test]
async fn a_response_is_compressed_as_the_client_accepts_it() {
    let app = app().await;
    let plain = app.get("/text/5000").await;
    for (accept, encoding) in [
        ("gzip", Some("gzip")),
        ("br", Some("br")),
        ("zstd", Some("zstd")),
        ("gzip;q=0.5, br;q=1", Some("br")),
        ("gzip;q=0", None),
        ("identity", None),
        ("compress", None),
        ("*;q=0", None),
    ] {
        let response = get(&app, "/text/5000", "accept-encoding", accept).await;
        assert_eq!(response.status, 200, "{accept}");
        assert_eq!(response.header("content-encoding"), encoding, "{accept}");
        assert_eq!(response.header("vary"), Some("accept-encoding"), "{accept}");
        assert_eq!(decoded(&response), plain.body, "{accept}");
        assert!(encoding.is_none() || response.body.len() < 1_000, "{accept}");
    }
}

#[tokio::test]
async fn a_small_body_and_a_picture_are_not_compressed() {
    let app = app().await;
    for path in ["/text/1023", "/picture"] {
        let response = get(&app, path, "accept-encoding", "gzip").await;
        assert_eq!(response.header("content-encoding"), None, "{path}");
        assert_eq!(response.header("vary"), None, "{path}");
    }
    let response = get(&app, "/text/1024", "accept-encoding", "gzip").await;
    assert_eq!(response.header("content-encoding"), Some("gzip"));
}

#[tokio::test]
async fn a_response_that_could_have_been_compressed_has_vary() {
    assert_eq!(app().await.get("/text/5000").await.header("vary"), Some("accept-encoding"));
}

#[tokio::test]
async fn a_client_that_has_the_current_version_gets_304() {
    let app = app().await;
    let first = app.get("/text/5000").await;
    let tag = first.header("etag").unwrap();
    assert!(tag.starts_with('"') && tag.len() == 34, "{tag}");
    let again = get(&app, "/text/5000", "if-none-match", tag).await;
    assert_eq!(again.status, 304);
    assert!(again.body.is_empty());
    assert_eq!(again.header("etag"), Some(tag));
    assert_eq!(again.header("content-length"), None);
    let second_line = [("if-none-match", "\"x\""), ("if-none-match", tag)];
    assert_eq!(app.call(Method::GET, "/text/5000", &second_line, Body::empty()).await.status, 304);
    let other = get(&app, "/text/5001", "if-none-match", tag).await;
    assert_eq!(other.status, 200);
    let head = app.call(Method::HEAD, "/text/5000", &[("if-none-match", tag)], Body::empty()).await;
    assert_eq!(head.status, 304);
}

#[tokio::test]
async fn a_compressed_response_has_a_weak_tag_that_matches_as_well() {
    let app = app().await;
    let compressed = get(&app, "/text/5000", "accept-encoding", "gzip").await;
    let tag = compressed.header("etag").unwrap();
    assert!(tag.starts_with("W/\""), "{tag}");
    assert_eq!(get(&app, "/text/5000", "if-none-match", tag).await.status, 304);
}

#[tokio::test]
async fn a_304_has_the_tag_of_the_200() {
    let own = async || ([("etag", "\"7\"")], "a bit of text ".repeat(500));
    let app = TestApp::with_routes(routes().route(Route::at("/own").get(own)), &[]).await;
    let mut weak = 0;
    for path in ["/text/5000", "/text/10", "/picture", "/own"] {
        for accept in
            ["gzip", "br", "zstd", "identity", "gzip;q=0", "*", "identity, gzip;q=0.5", "br;q=0.1, *;q=0", ""]
        {
            for method in [Method::GET, Method::HEAD] {
                let accept = ("accept-encoding", accept);
                let first = app.call(method.clone(), path, &[accept], Body::empty()).await;
                let tag = first.header("etag").unwrap();
                weak += u8::from(tag.starts_with("W/"));
                let headers = [accept, ("if-none-match", tag)];
                let second = app.call(method.clone(), path, &headers, Body::empty()).await;
                assert_eq!(second.status, 304, "{path} {accept:?}");
                for name in ["etag", "vary"] {
                    assert_eq!(second.header(name), first.header(name), "{method} {path} {accept:?} {name}");
                }
            }
        }
    }
    // Of two paths and two methods, those that are compressed: gzip, br, zstd, * and br;q=0.1.
    assert_eq!(weak, 20);
}

#[tokio::test]
async fn a_304_has_the_vary_of_the_200() {
    let app = app().await;
    for (path, vary) in [("/text/5000", Some("accept-encoding")), ("/text/5", None)] {
        let full = app.get(path).await;
        assert_eq!(full.header("vary"), vary, "{path}");
        let not_modified = get(&app, path, "if-none-match", full.header("etag").unwrap()).await;
        assert_eq!((not_modified.status.as_u16(), not_modified.header("vary")), (304, vary), "{path}");
    }
}

#[tokio::test]
async fn a_response_to_post_has_no_etag() {
    let response = app().await.post("/text/50", "").await;
    assert_eq!(response.status, 200);
    assert_eq!(response.header("etag"), None);
}

/// The security headers of a response. Over TLS there is one more (`https.rs`).
fn security_headers(response: &TestResponse) -> Vec<&str> {
    let others = ["content-type", "content-length", "etag", "vary", "x-request-id"];
    let mut names: Vec<&str> = response.headers.keys().map(HeaderName::as_str).collect();
    names.retain(|name| !others.contains(name));
    names.sort_unstable();
    names
}

#[tokio::test]
async fn a_page_has_the_security_headers_of_helmet_and_other_responses_the_few_that_owasp_names() {
    let page = |content_type: &'static str| async move || ([(CONTENT_TYPE, content_type)], "x");
    let types = ["text/html", "Text/HTML; charset=utf-8", "application/xhtml+xml", "image/svg+xml"];
    let others = ["text/plain", "application/json", "text/htm", "image/png"];
    let path = |index: usize| format!("/{index}");
    let all = types.iter().chain(&others).enumerate();
    let with_pages = all.fold(routes(), |routes, (index, content_type)| {
        routes.route(Route::at(&path(index)).get(page(content_type)))
    });
    let app = TestApp::with_routes(with_pages, &[]).await;
    let helmet = [
        "content-security-policy",
        "cross-origin-opener-policy",
        "cross-origin-resource-policy",
        "origin-agent-cluster",
        "referrer-policy",
        "x-content-type-options",
        "x-dns-prefetch-control",
        "x-download-options",
        "x-frame-options",
        "x-permitted-cross-domain-policies",
        "x-xss-protection",
    ];
    let owasp = ["content-security-policy", "referrer-policy", "x-content-type-options"];
    for (index, content_type) in types.iter().enumerate() {
        assert_eq!(security_headers(&app.get(&path(index)).await), helmet, "{content_type}");
    }
    let paths = (types.len()..types.len() + others.len()).map(path);
    for path in paths.chain(["/text/1".to_owned(), "/nowhere".to_owned()]) {
        let response = app.get(&path).await;
        assert_eq!(security_headers(&response), owasp, "{path}");
        assert_eq!(response.header("content-security-policy"), Some("frame-ancestors 'none'"));
    }
}

#[tokio::test]
async fn a_security_header_can_be_changed_added_and_left_out() {
    let headers = "{x-frame-options: DENY, referrer-policy: \"\", permissions-policy: camera=()}";
    for (section, path) in [("API", "/text/1"), ("SECURITY", "/page")] {
        let name = format!("SERVER__HTTP__{section}_HEADERS");
        let routes = routes().route(Route::at("/page").get(async || axum::response::Html("")));
        let app = TestApp::with_routes(routes, &[(name.as_str(), headers)]).await;
        let response = app.get(path).await;
        assert_eq!(response.header("x-frame-options"), Some("DENY"), "{section}");
        assert_eq!(response.header("referrer-policy"), None);
        assert_eq!(response.header("permissions-policy"), Some("camera=()"));
        assert_eq!(response.header("x-content-type-options"), Some("nosniff"));
    }
}

#[tokio::test]
async fn a_header_that_the_handler_sets_is_not_added_again() {
    let response = app().await.get("/unframed").await;
    let all: Vec<_> = response.headers.get_all(X_FRAME_OPTIONS).iter().collect();
    assert_eq!(all, ["DENY"]);
}

#[tokio::test]
async fn a_well_formed_request_id_is_kept_and_another_is_replaced() {
    let app = app().await;
    let response = get(&app, "/text/1", "x-request-id", "trace-1.2").await;
    assert_eq!(response.header("x-request-id"), Some("trace-1.2"));
    for bad in ["a b", "a=b", "\"", &"x".repeat(129)] {
        let response = get(&app, "/text/1", "x-request-id", bad).await;
        let generated = response.header("x-request-id").unwrap();
        assert!(
            generated.len() == 32 && generated.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "{generated}"
        );
    }
}

/// The files of a folder under `/static`.
async fn static_files(folder: &std::path::Path) -> TestApp {
    let settings = [("SERVER__VIEWS__STATIC_DIR", folder.to_str().unwrap())];
    TestApp::with_routes(platform::http::assets(), &settings).await
}

#[tokio::test]
async fn a_static_file_may_be_cached_for_ever_under_its_version_only() {
    let folder = tempfile::tempdir().unwrap();
    let files = folder.path().join("static");
    std::fs::create_dir(&files).unwrap();
    std::fs::write(files.join("site.css"), "body { color: green }").unwrap();
    std::fs::write(folder.path().join("outside.txt"), "secret").unwrap();
    let app = static_files(&files).await;
    let assets = platform::views::Assets::open(&platform::views::Settings { static_dir: files });
    let current = app.get(&assets.unwrap().url("site.css")).await;
    assert_eq!(current.header("cache-control"), Some("public, max-age=31536000, immutable"));
    let plain = app.get("/static/site.css").await;
    assert_eq!(plain.status, 200);
    assert_eq!(plain.header("content-type"), Some("text/css; charset=utf-8"));
    assert_eq!(plain.header("cache-control"), Some("no-cache"));
    for other in ["v=0000000000000000", "v=a&v=b", "%", "x"] {
        let stale = app.get(&format!("/static/site.css?{other}")).await;
        assert_eq!(
            (stale.status.as_u16(), stale.header("cache-control")),
            (200, Some("no-cache")),
            "{other}"
        );
    }
    let tag = plain.header("etag").unwrap();
    let not_modified = get(&app, "/static/site.css", "if-none-match", tag).await;
    assert_eq!((not_modified.status.as_u16(), not_modified.header("vary")), (304, Some("accept-encoding")));
    for escape in
        ["/static/../outside.txt", "/static/%2e%2e/outside.txt", "/static/..%2foutside.txt", "/static/none"]
    {
        let response = app.get(escape).await;
        assert_eq!(response.status_line(), "404 Unknown Endpoint", "{escape}");
    }
}

#[tokio::test]
async fn a_response_that_is_not_the_wanted_one_is_412() {
    let app = TestApp::with_routes(routes(), &[]).await;
    for method in [Method::GET, Method::HEAD] {
        let ask = async |pairs: &[(&str, &str)]| app.call(method.clone(), "/text/100", pairs, "").await;
        let tag = ask(&[]).await.header("etag").unwrap().to_owned();
        for (if_match, status) in [(&*tag, 200), ("*", 200), (&format!("\"x\", {tag}"), 200), ("\"x\"", 412)]
        {
            assert_eq!(ask(&[("if-match", if_match)]).await.status, status, "{method} {if_match}");
        }
        // It goes before If-None-Match.
        let both = ask(&[("if-match", "\"x\""), ("if-none-match", &tag)]).await;
        assert_eq!(both.status_line(), "412 Precondition Failed");
        assert_eq!(ask(&[("if-match", &tag), ("if-none-match", &tag)]).await.status, 304);
    }
}

#[tokio::test]
async fn a_range_or_a_condition_that_a_static_file_does_not_meet_is_416_or_412() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("site.css"), "body { color: green }").unwrap();
    let app = static_files(dir.path()).await;
    let beyond = get(&app, "/static/site.css", "range", "bytes=1000-").await;
    assert_eq!(beyond.status_line(), "416 Range Not Satisfiable");
    assert_eq!((beyond.header("content-range"), &beyond.json()["code"]), (Some("bytes */21"), &416.into()));
    let changed = get(&app, "/static/site.css", "if-match", "\"another\"").await;
    assert_eq!(changed.status_line(), "412 Precondition Failed");
}

#[tokio::test]
async fn a_range_that_is_none_is_ignored_and_a_part_of_another_version_is_never_sent() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.bin"), "0123456789").unwrap();
    let app = static_files(dir.path()).await;
    let tag = app.get("/static/a.bin").await.header("etag").unwrap().to_owned();
    let date = app.get("/static/a.bin").await.header("last-modified").unwrap().to_owned();
    for (range, condition, status, body) in [
        ("bytes=0-3", None, 206, "0123"),
        ("bytes=0-3", Some(tag.as_str()), 206, "0123"),
        ("bytes=0-3", Some(date.as_str()), 206, "0123"),
        ("bytes=0-3", Some("\"stale\""), 200, "0123456789"),
        ("bytes=0-3", Some("Thu, 01 Jan 1970 00:00:00 GMT"), 200, "0123456789"),
        ("bytes=-4", None, 206, "6789"),
        ("bytes=-5000", None, 206, "0123456789"),
        ("bytes=8-5000", None, 206, "89"),
        ("items=0-5", None, 200, "0123456789"),
        ("nonsense", None, 200, "0123456789"),
        ("bytes=5-2", None, 200, "0123456789"),
        ("bytes=0-1,4-5", None, 200, "0123456789"),
    ] {
        let mut headers = vec![("range", range)];
        headers.extend(condition.map(|condition| ("if-range", condition)));
        let response = app.call(Method::GET, "/static/a.bin", &headers, Body::empty()).await;
        assert_eq!(
            (response.status.as_u16(), &response.body[..]),
            (status, body.as_bytes()),
            "{range} {condition:?}"
        );
    }
    // Only GET knows ranges.
    for range in ["bytes=0-3", "bytes=5000-"] {
        let head = app.call(Method::HEAD, "/static/a.bin", &[("range", range)], Body::empty()).await;
        assert_eq!((head.status.as_u16(), head.header("content-length")), (200, Some("10")), "{range}");
    }
}

#[tokio::test]
async fn what_is_no_public_file_of_the_folder_is_404() {
    let dir = tempfile::tempdir().unwrap();
    let files = dir.path().join("static");
    std::fs::create_dir_all(files.join(".well-known")).unwrap();
    std::fs::create_dir_all(files.join(".git")).unwrap();
    std::fs::write(files.join(".well-known/security.txt"), "Contact: a").unwrap();
    for file in [".env", ".git/config", "page.html"] {
        std::fs::write(files.join(file), "x").unwrap();
    }
    std::fs::write(dir.path().join("secret.txt"), "secret").unwrap();
    std::os::unix::fs::symlink(dir.path().join("secret.txt"), files.join("out.txt")).unwrap();
    std::os::unix::fs::symlink("page.html", files.join("in.html")).unwrap();
    std::fs::write(files.join("site.js"), "1").unwrap();
    assert!(std::process::Command::new("mkfifo").arg(files.join("pipe")).status().unwrap().success());
    let app = static_files(&files).await;
    let long = "n".repeat(400);
    for path in [".env", ".git/config", "%2eenv", "out.txt", "pipe", ".well-known", "a%00b", &long] {
        let response = app.get(&format!("/static/{path}")).await;
        assert_eq!(response.status_line(), "404 Unknown Endpoint", "{path}");
    }
    // The controls. A text of a byte is not made longer by a compression.
    for path in [".well-known/security.txt", "page.html", "in.html", "site.js"] {
        let response = get(&app, &format!("/static/{path}"), "accept-encoding", "gzip").await;
        assert_eq!((response.status.as_u16(), response.header("content-encoding")), (200, None), "{path}");
        assert!(response.header("content-type").unwrap().ends_with("; charset=utf-8"), "{path}");
    }
}

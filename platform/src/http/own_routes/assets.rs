//! `GET /static/…`: the files of `views/static`, with range requests, conditional requests and `Cache-Control`.

use axum::body::Body;
use axum::extract::{FromRef, Path, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, VARY};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::response::Response;
use tower::ServiceExt as _;
use tower_http::services::ServeDir;

use super::range;
use crate::error::{Error, Result};
use crate::http::routing::route::Route;
use crate::http::routing::routes::Routes;
use crate::services::Services;
use crate::views::Assets;

/// The routes of the static files.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Routes<S>
where
    Services: FromRef<S>,
{
    Routes::new().route(Route::at("/static/{*file}").get(file))
}

/// Cached for a year, without revalidation: the URL contains the version, so it changes with the file.
const IMMUTABLE: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

/// Cached, but revalidated before each use: the URL does not contain the version.
const REVALIDATE: HeaderValue = HeaderValue::from_static("no-cache");

async fn file(
    State(services): State<Services>,
    Path(file): Path<String>,
    request: Request,
) -> Result<Response> {
    let assets: &Assets = services.assets();
    let unknown = || Error::not_found("Unknown Endpoint");
    if !is_public(&file) || !is_file_below(assets.dir(), &file).await {
        return Err(unknown());
    }
    let path = request.uri().path().strip_prefix("/static").unwrap_or_default();
    let uri: Uri = path.parse().map_err(|_| unknown())?;
    let ask = async |method: Method, headers: HeaderMap| {
        let mut inner = Request::new(Body::empty());
        (*inner.method_mut(), *inner.headers_mut(), *inner.uri_mut()) = (method, headers, uri.clone());
        let service = ServeDir::new(assets.dir()).append_index_html_on_directories(false);
        let Ok(response) = service.oneshot(inner).await;
        response
    };
    let mut headers = request.headers().clone();
    if range::needs_file(&headers) {
        let whole = ask(Method::HEAD, HeaderMap::new()).await;
        let length =
            whole.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        range::settle(&mut headers, whole.headers(), length.unwrap_or_default());
    }
    let mut response = ask(Method::GET, headers).await;
    match response.status() {
        StatusCode::NOT_FOUND => return Err(unknown()),
        // The file is there, as was seen: out of descriptors, most often.
        StatusCode::INTERNAL_SERVER_ERROR => {
            return Err(Error::unavailable(format!("cannot read the static file {file:?}")));
        }
        _ => name_charset(response.headers_mut()),
    }
    let version = request.uri().query().and_then(|query| query.strip_prefix("v="));
    let current = version.is_some_and(|version| assets.is_current(&file, version));
    let immutable = current && !services.debug();
    response.headers_mut().insert(CACHE_CONTROL, if immutable { IMMUTABLE } else { REVALIDATE });
    if response.status() == StatusCode::NOT_MODIFIED {
        // The middleware adds `Vary` only to a response with a body. RFC 9110, section 15.4.5 requires it here too.
        response.headers_mut().insert(VARY, HeaderValue::from_static("accept-encoding"));
    }
    Ok(response.map(Body::new))
}

/// No part of the path begins with a dot, as that of a file that no visitor should get (`.env`, `.git`); but
/// `.well-known` (RFC 8615).
fn is_public(file: &str) -> bool {
    file.split('/').all(|part| !part.starts_with('.') || part == ".well-known")
}

/// Whether this is a file in the folder, and neither a pipe, whose opening would wait for a writer, nor reached by a link that
/// leaves the folder. No error of a path that a client has chosen is the server's.
async fn is_file_below(folder: &std::path::Path, file: &str) -> bool {
    let (folder, path) = (folder.to_owned(), folder.join(file));
    let check = tokio::task::spawn_blocking(move || {
        let inside = path.canonicalize().ok()?.starts_with(folder.canonicalize().ok()?);
        (inside && path.is_file()).then_some(())
    });
    check.await.is_ok_and(|found| found.is_some())
}

/// Text has a charset: without it, a browser guesses.
fn name_charset(headers: &mut HeaderMap) {
    let Some(media) = headers.get(CONTENT_TYPE).and_then(|media| media.to_str().ok()) else { return };
    if (media.starts_with("text/") || media == "application/javascript")
        && !media.contains("charset")
        && let Ok(named) = HeaderValue::try_from(format!("{media}; charset=utf-8"))
    {
        headers.insert(CONTENT_TYPE, named);
    }
}

//! `GET /static/…`: the files of `views/static`, with range requests, conditional requests and `Cache-Control`.

use axum::body::Body;
use axum::extract::{FromRef, Path, Request, State};
use axum::http::header::{CACHE_CONTROL, VARY};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use tower::ServiceExt as _;
use tower_http::services::ServeDir;

use super::route::Route;
use super::routes::Routes;
use crate::error::{Error, Result};
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
    let path = request.uri().path().strip_prefix("/static").unwrap_or_default();
    let uri = path.parse().map_err(|_| Error::not_found("Unknown Endpoint"))?;
    let mut inner = Request::new(Body::empty());
    *inner.headers_mut() = request.headers().clone();
    *inner.uri_mut() = uri;
    let service = ServeDir::new(assets.dir()).append_index_html_on_directories(false);
    let Ok(mut response) = service.oneshot(inner).await;
    if response.status() == StatusCode::NOT_FOUND {
        return Err(Error::not_found("Unknown Endpoint"));
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

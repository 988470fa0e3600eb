//! Lists in pages: `?limit=…&after=…` of a request, and the `Link` to the next page of a response.
//!
//! A list without a bound grows with its collection: 170,000 small documents are 15 MB of response and 260 MB of
//! memory. The body of a page is what the handler makes of its items; where there are more, the response says so as
//! RFC 8288 does: `Link: </tasks?limit=100&after=ID>; rel="next"`.

use axum::extract::{FromRequestParts, OriginalUri};
use axum::http::header::LINK;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Uri};
use axum::response::{IntoResponse, Response};
use form_urlencoded::Serializer;
use serde::Serialize;

use super::Json;
use super::parameters::{TWICE, invalid_query};
use crate::error::{Error, Result};
use crate::http::request::context;

const LIMIT: &str = "limit";
const AFTER: &str = "after";

/// The page of a list that a request asks for, from its query: `limit`, 1 to `http.list_limit`, which is the default
/// too, and `after`, the end of the page before: an id, or a cursor of [`Dao::page_after`](crate::store::Dao::page_after).
///
/// # Errors
///
/// 400 `Invalid Query String` that names the parameter.
#[derive(Clone, Debug)]
pub struct PageRequest {
    /// How many items at most.
    pub limit: u64,
    /// The end of the page before; the first page has none.
    pub after: Option<String>,
    uri: Uri,
}

impl<S: Sync> FromRequestParts<S> for PageRequest {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        let most = context::of(parts)?.list_limit();
        // A mounted router sees the path without its prefix.
        let uri = parts.extensions.get::<OriginalUri>().map_or(&parts.uri, |original| &original.0).clone();
        let mut page = Self { limit: most, after: None, uri };
        let mut given = Vec::new();
        for (name, value) in pairs(&parts.uri) {
            if matches!(&*name, LIMIT | AFTER) {
                if given.contains(&name) {
                    return Err(refused(&name, TWICE.to_owned()));
                }
                given.push(name.clone());
            }
            match &*name {
                LIMIT => {
                    page.limit =
                        value.parse().ok().filter(|limit| (1..=most).contains(limit)).ok_or_else(|| {
                            refused(LIMIT, format!("is not a whole number from 1 to {most}"))
                        })?;
                }
                AFTER => page.after = Some(value.into_owned()).filter(|after| !after.is_empty()),
                _ => {}
            }
        }
        Ok(page)
    }
}

fn refused(parameter: &str, message: String) -> Error {
    invalid_query(format!("/{parameter}"), message)
}

fn pairs(uri: &Uri) -> form_urlencoded::Parse<'_> {
    form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes())
}

impl PageRequest {
    /// The response with this page: `body` as JSON, and a link to the page after `next`, the end of this one, when
    /// there is one.
    pub fn respond<T: Serialize>(&self, next: Option<String>, body: T) -> Paged<T> {
        let link = next.map(|next| {
            let mut query = Serializer::new(String::new());
            // What else the request asks for holds for the next page too.
            query.extend_pairs(pairs(&self.uri).filter(|(name, _)| *name != *LIMIT && *name != *AFTER));
            query.append_pair(LIMIT, &self.limit.to_string()).append_pair(AFTER, &next);
            format!("<{}?{}>; rel=\"next\"", self.uri.path(), query.finish())
        });
        Paged { body, link }
    }
}

/// One page of a list as JSON, see [`PageRequest::respond`].
#[derive(Clone, Debug)]
pub struct Paged<T> {
    body: T,
    link: Option<String>,
}

impl<T: Serialize> IntoResponse for Paged<T> {
    fn into_response(self) -> Response {
        let mut response = Json(self.body).into_response();
        // Percent-encoded, it is always the value of a header.
        if let Some(link) = self.link.and_then(|link| HeaderValue::try_from(link).ok()) {
            response.headers_mut().insert(LINK, link);
        }
        response
    }
}

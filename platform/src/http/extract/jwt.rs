//! `Jwt<C>`: a program with a token of a provider (`auth.providers`).

use axum::extract::{FromRef, FromRequestParts};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use crate::auth::Provider;
use crate::error::{Error, Result};
use crate::services::Services;

/// The claims of the token that a program has sent (`Authorization: Bearer`), as a type that has those that are of interest.
/// Signature, issuer, audience and times are checked.
///
/// # Errors
///
/// 401 for a request without a good token, 503 where the keys of the provider cannot be had.
#[derive(Clone, Copy, Debug)]
pub struct Jwt<C>(pub C);

impl<C: DeserializeOwned, S: Sync> FromRequestParts<S> for Jwt<C>
where
    Services: FromRef<S>,
{
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let sent = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        // The name of the scheme has no case (RFC 9110, section 11.1).
        let token = sent.and_then(|sent| sent.split_once(' '));
        let token = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token);
        let token = token.ok_or_else(|| Error::unauthorized("Bearer"))?.trim();
        let services = Services::from_ref(state);
        Provider::of_token(services.providers(), token)?.claims(token).await.map(Self)
    }
}

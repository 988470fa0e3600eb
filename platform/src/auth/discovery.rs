//! What a provider of OpenID Connect says of itself: its endpoints (OpenID Connect Discovery 1.0) and its keys (RFC 7517).

use jsonwebtoken::jwk::{Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::connector::Connector;
use crate::error::{Error, Result};

/// The document at `/.well-known/openid-configuration`.
#[derive(Debug, Deserialize)]
pub(super) struct Discovery {
    issuer: String,
    pub(super) authorization_endpoint: String,
    pub(super) token_endpoint: String,
    pub(super) userinfo_endpoint: Option<String>,
    jwks_uri: String,
    #[serde(default)]
    token_endpoint_auth_methods_supported: Vec<String>,
    /// Whether it says who it is where it sends the browser back (RFC 9207).
    #[serde(default)]
    pub(super) authorization_response_iss_parameter_supported: bool,
}

impl Discovery {
    /// Fetches that of this issuer. Its name may end with a slash, which the URL of the document does not double.
    pub(super) async fn fetch(connector: &Connector, issuer: &str) -> Result<Self> {
        let document = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let found: Self = fetch(connector, &document, None).await?;
        if found.issuer != issuer {
            let found = found.issuer;
            return Err(Error::internal(format!("{document} is of {found}, and not of {issuer}")));
        }
        Ok(found)
    }

    /// Whether the secret goes into the form of a request. Else it goes into a header, which is what a provider can that
    /// says nothing.
    pub(super) fn wants_secret_in_form(&self) -> bool {
        let takes = |method: &str| self.token_endpoint_auth_methods_supported.iter().any(|it| it == method);
        takes("client_secret_post") && !takes("client_secret_basic")
    }
}

/// The keys of a provider.
#[derive(Debug)]
pub(super) struct Keys(Vec<Jwk>);

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Value>,
}

impl Keys {
    pub(super) async fn fetch(connector: &Connector, discovery: &Discovery) -> Result<Self> {
        let KeySet { keys } = fetch(connector, &discovery.jwks_uri, None).await?;
        // One that is not understood is left out (RFC 7517, section 5): it may be of a kind that is new.
        Ok(Self(keys.into_iter().filter_map(|key| serde_json::from_value(key).ok()).collect()))
    }

    /// The key with which a signature is checked: the one of this name; where the token names none, the only one that fits
    /// (OpenID Connect Core 1.0, section 10.1).
    pub(super) fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Option<DecodingKey> {
        let fits = |jwk: &&Jwk| {
            let common = &jwk.common;
            kid.is_none_or(|kid| common.key_id.as_deref() == Some(kid))
                && common.public_key_use.as_ref().is_none_or(|it| *it == PublicKeyUse::Signature)
                && common.key_algorithm.is_none_or(|it| it == KeyAlgorithm::from(algorithm))
        };
        let keys = self.0.iter().filter(fits).filter_map(|jwk| DecodingKey::from_jwk(jwk).ok());
        let mut keys = keys.filter(|key| key.family() == algorithm.family());
        let found = keys.next()?;
        (kid.is_some() || keys.next().is_none()).then_some(found)
    }
}

/// Fetches JSON of a provider, with this header `Authorization`.
///
/// # Errors
///
/// 503 where it does not respond with that.
pub(super) async fn fetch<T: DeserializeOwned>(
    connector: &Connector,
    url: &str,
    authorization: Option<&str>,
) -> Result<T> {
    let mut call = connector.get(url).header("accept", "application/json");
    if let Some(value) = authorization {
        call = call.header("authorization", value);
    }
    // Whatever is wrong with its response: it cannot be used now.
    call.send().await.map_err(Error::unavailable)?.json().map_err(Error::unavailable)
}

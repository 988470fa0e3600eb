//! Providers of OpenID Connect: log-in by others (OpenID Connect Core 1.0, the code flow with PKCE), and the tokens that they
//! give to programs (RFC 9068).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, dangerous, decode, decode_header};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::discovery::{Discovery, Keys, fetch};
use super::settings::{Provider as Settings, Signature};
use super::{jwt, random};
use crate::clock::Clock;
use crate::connector::Connector;
use crate::error::{Error, Result};

/// How often the keys of a provider are fetched at most, where a token names one that is not known: whoever sends tokens with
/// invented names makes us fetch no more than that.
const FETCH_AGAIN: SignedDuration = SignedDuration::from_mins(1);

/// How long the keys and the addresses of a provider are used. A key that is taken back is none after this.
const FRESH: SignedDuration = SignedDuration::from_hours(1);

/// The providers of the configuration, by name.
pub(crate) type Providers = BTreeMap<String, Arc<Provider>>;

/// A provider.
pub struct Provider {
    name: String,
    settings: Settings,
    connector: Connector,
    clock: Clock,
    known: Mutex<Option<Known>>,
}

/// What it has said of itself.
#[derive(Clone)]
struct Known {
    discovery: Arc<Discovery>,
    keys: Arc<Keys>,
    fetched: Timestamp,
}

/// A log-in that is under way. It is kept by the browser, encrypted, while its user is at the provider.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct LogInState {
    /// The name of the provider.
    pub provider: String,
    /// Where to go after it.
    pub next: String,
    state: String,
    nonce: String,
    verifier: String,
}

/// What the provider sends back by the browser (RFC 6749, sections 4.1.2 and 4.1.2.1).
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct LogInAnswer {
    state: String,
    code: String,
    error: Option<String>,
    iss: Option<String>,
}

/// Who has logged in, as the provider says.
#[derive(Clone, Debug, Deserialize)]
pub struct Identity {
    /// The provider.
    #[serde(rename = "iss")]
    pub issuer: String,
    /// Who it is there. Issuer and subject together never mean somebody else; an address may.
    #[serde(rename = "sub")]
    pub subject: String,
    /// Their address, where the provider has it.
    pub email: Option<String>,
    /// Whether the provider has proved it.
    #[serde(default, deserialize_with = "truth")]
    pub email_verified: bool,
    /// Their name.
    pub name: Option<String>,
    nonce: Option<String>,
}

/// What a code is changed for.
#[derive(Deserialize)]
struct Tokens {
    id_token: String,
    access_token: Option<String>,
}

/// Why a code is not taken (RFC 6749, section 5.2).
#[derive(Deserialize)]
struct NoTokens {
    error: String,
}

/// What the endpoint of user information says.
#[derive(Deserialize)]
struct UserInformation {
    sub: String,
    email: Option<String>,
    #[serde(default, deserialize_with = "truth")]
    email_verified: bool,
    name: Option<String>,
}

#[derive(Deserialize)]
struct Issued {
    iss: String,
}

impl Provider {
    /// The providers of the configuration. Nothing is fetched before it is needed.
    pub(crate) fn open(
        settings: &BTreeMap<String, Settings>,
        connector: &Connector,
        clock: &Clock,
    ) -> Providers {
        jwt::install();
        let open = |(name, settings): (&String, &Settings)| {
            let (settings, connector, clock) = (settings.clone(), connector.clone(), clock.clone());
            let known = Mutex::default();
            (name.clone(), Arc::new(Self { name: name.clone(), settings, connector, clock, known }))
        };
        settings.iter().map(open).collect()
    }

    /// Begins a log-in: the URL to which the browser goes, and what it has to keep. `redirect_uri` is the URL to which the
    /// provider sends it back; the provider has to know exactly this one.
    pub async fn begin(&self, redirect_uri: &str, next: &str) -> Result<(String, LogInState)> {
        let known = self.known(false).await?;
        let word = || random::secret().map(|secret| secret.expose().to_owned());
        let state = LogInState {
            provider: self.name.clone(),
            next: next.to_owned(),
            state: word()?,
            nonce: word()?,
            verifier: word()?,
        };
        let challenge = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(state.verifier.as_bytes()));
        let endpoint = &known.discovery.authorization_endpoint;
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair("response_type", "code")
            .append_pair("client_id", &self.settings.client_id)
            .append_pair("redirect_uri", redirect_uri)
            .append_pair("scope", "openid email profile")
            .append_pair("state", &state.state)
            .append_pair("nonce", &state.nonce)
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256")
            .finish();
        let joint = if endpoint.contains('?') { '&' } else { '?' };
        Ok((format!("{endpoint}{joint}{query}"), state))
    }

    /// Ends a log-in with what the provider has sent by the browser, and what that has kept.
    ///
    /// # Errors
    ///
    /// 403 where the two do not belong together, the provider has logged nobody in, or its token is not good; 503 where it
    /// does not respond.
    pub async fn finish(
        &self,
        kept: &LogInState,
        answer: &LogInAnswer,
        redirect_uri: &str,
    ) -> Result<Identity> {
        // Hashes are compared: how long that takes tells nothing of the values.
        let same = |one: &str, other: &str| random::hidden_id(&[one]) == random::hidden_id(&[other]);
        if kept.provider != self.name || !same(&answer.state, &kept.state) {
            return Err(refused("the state is another one"));
        }
        if let Some(error) = &answer.error {
            return Err(denied(error));
        }
        let known = self.known(false).await?;
        // Where it says who it is, an answer to another provider is not taken for one to this (RFC 9207, section 2.4).
        let says = known.discovery.authorization_response_iss_parameter_supported;
        if answer.iss.as_ref().map_or(says, |iss| *iss != self.settings.issuer) {
            return Err(refused("the answer is of another provider"));
        }
        let tokens = self.tokens(&known.discovery, answer, &kept.verifier, redirect_uri).await?;
        let mut identity: Identity = self.verify(&tokens.id_token, &self.settings.client_id, refused).await?;
        if !identity.nonce.as_deref().is_some_and(|nonce| same(nonce, &kept.nonce)) {
            return Err(refused("the nonce is another one"));
        }
        // Who holds to the standard has it not in the token (OpenID Connect Core 1.0, section 5.4).
        if identity.email.is_none()
            && let (Some(url), Some(token)) = (&known.discovery.userinfo_endpoint, &tokens.access_token)
        {
            let bearer = format!("Bearer {token}");
            let found: UserInformation = fetch(&self.connector, url, Some(&bearer)).await?;
            // Section 5.3.2: a token of somebody else could have been put in.
            if found.sub != identity.subject {
                return Err(refused("the user information is of somebody else"));
            }
            (identity.email, identity.email_verified) = (found.email, found.email_verified);
            identity.name = identity.name.or(found.name);
        }
        Ok(identity)
    }

    /// Changes a code for tokens. This is sent once: a code that comes twice is a stolen one, and the provider takes back
    /// what it has given for it (RFC 6749, section 4.1.2).
    async fn tokens(
        &self,
        discovery: &Discovery,
        answer: &LogInAnswer,
        verifier: &str,
        redirect_uri: &str,
    ) -> Result<Tokens> {
        let mut form = vec![
            ("grant_type", "authorization_code"),
            ("code", &answer.code),
            ("redirect_uri", redirect_uri),
            ("code_verifier", verifier),
        ];
        let mut call = self.connector.post(&discovery.token_endpoint).header("accept", "application/json");
        if discovery.wants_secret_in_form() {
            form.push(("client_id", &self.settings.client_id));
            form.push(("client_secret", self.settings.client_secret.expose()));
        } else {
            call = call.header("authorization", &self.basic());
        }
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let call = call.header("content-type", "application/x-www-form-urlencoded").body(body);
        let sent = call.any_status().send().await.map_err(Error::unavailable)?;
        let status = sent.status();
        if status.is_success() {
            return sent.json().map_err(Error::unavailable);
        }
        if status.is_server_error() || status.as_u16() == 429 {
            return Err(Error::unavailable(format!("the provider {} responds {status}", self.name)));
        }
        let error = sent.json::<NoTokens>().map_or_else(|_| status.to_string(), |body| body.error);
        // Nobody who logs in can mend this.
        if matches!(error.as_str(), "invalid_client" | "unauthorized_client") {
            let name = &self.name;
            return Err(Error::internal(format!("auth.providers.{name}: the provider says {error}")));
        }
        Err(refused(format!("the provider takes no code: {error}")))
    }

    /// The claims of a token that a program has sent, if it is one of this provider for this API (`audience`).
    ///
    /// # Errors
    ///
    /// 401 where it is not; 503 where the keys of the provider cannot be had.
    pub async fn claims<C: DeserializeOwned>(&self, token: &str) -> Result<C> {
        self.verify(token, &self.settings.audience, invalid).await
    }

    /// The claims of a token, with its signature, issuer, audience and times checked. The algorithm is one of the
    /// configuration, whatever the token says.
    async fn verify<C: DeserializeOwned>(
        &self,
        token: &str,
        audience: &str,
        bad: fn(String) -> Error,
    ) -> Result<C> {
        let wrong = |error: jsonwebtoken::errors::Error| bad(error.to_string());
        let header = decode_header(token).map_err(wrong)?;
        let Some(algorithm) =
            self.settings.algorithms.iter().copied().map(algorithm).find(|it| *it == header.alg)
        else {
            return Err(bad("an algorithm that is not allowed".to_owned()));
        };
        let key = self.key(header.kid.as_deref(), algorithm).await?;
        let key = key.ok_or_else(|| bad("a key that the provider does not have".to_owned()))?;
        let mut validation = Validation::new(algorithm);
        validation.set_audience(&[audience]);
        validation.set_issuer(&[&self.settings.issuer]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.validate_nbf = true;
        decode::<C>(token, &key, &validation).map(|decoded| decoded.claims).map_err(wrong)
    }

    /// The key of a token. One that is not known may be new.
    async fn key(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<Option<DecodingKey>> {
        if let Some(key) = self.known(false).await?.keys.find(kid, algorithm) {
            return Ok(Some(key));
        }
        Ok(self.known(true).await?.keys.find(kid, algorithm))
    }

    /// What is known of the provider, fetched where that is old, or where it is asked for again.
    async fn known(&self, again: bool) -> Result<Known> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let time = if again { FETCH_AGAIN } else { FRESH };
        if let Some(known) = known.filter(|known| self.clock.now().duration_since(known.fetched) < time) {
            return Ok(known);
        }
        let discovery = Discovery::fetch(&self.connector, &self.settings.issuer).await?;
        let keys = Keys::fetch(&self.connector, &discovery).await?;
        let (discovery, keys) = (Arc::new(discovery), Arc::new(keys));
        let known = Known { discovery, keys, fetched: self.clock.now() };
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(known.clone());
        Ok(known)
    }

    /// RFC 6749, section 2.3.1: both parts are encoded as in a form first.
    fn basic(&self) -> String {
        let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let pair =
            format!("{}:{}", encode(&self.settings.client_id), encode(self.settings.client_secret.expose()));
        format!("Basic {}", BASE64_STANDARD.encode(pair))
    }

    /// The provider that has given a token, if it gives tokens for this API.
    pub(crate) fn of_token<'a>(providers: &'a Providers, token: &str) -> Result<&'a Arc<Self>> {
        let Issued { iss } =
            dangerous::insecure_decode_claims(token).map_err(|error| invalid(error.to_string()))?;
        let mut providers = providers.values();
        let found = providers.find(|it| it.settings.issuer == iss && !it.settings.audience.is_empty());
        found.ok_or_else(|| invalid("an issuer that is not known here".to_owned()))
    }
}

/// 403: the log-in has not come to a good end.
fn refused(why: impl Into<String>) -> Error {
    Error::forbidden("Log-In Refused")
        .with_message("The log-in did not come to its end. Begin it again.")
        .with_source(why.into())
}

/// 403: the provider has logged nobody in. What it says comes by the browser, and can be anything.
fn denied(error: &str) -> Error {
    let message = match error {
        "access_denied" => "You were not logged in: the log-in was refused, or you did not agree to it.",
        "server_error" | "temporarily_unavailable" => {
            "You cannot be logged in there now. Try it again later."
        }
        _ => "You were not logged in. Begin it again.",
    };
    let error: String = error.chars().take(100).collect();
    Error::forbidden("Log-In Refused").with_message(message).with_source(format!("the provider says {error}"))
}

/// 401, as RFC 6750 (section 3.1) has it.
fn invalid(why: String) -> Error {
    Error::unauthorized("Bearer error=\"invalid_token\"").with_source(why)
}

/// `email_verified`, which some providers have as a text.
fn truth<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<bool, D::Error> {
    Value::deserialize(deserializer).map(|value| value == true || value == "true")
}

fn algorithm(named: Signature) -> Algorithm {
    match named {
        Signature::RS256 => Algorithm::RS256,
        Signature::RS384 => Algorithm::RS384,
        Signature::RS512 => Algorithm::RS512,
        Signature::PS256 => Algorithm::PS256,
        Signature::PS384 => Algorithm::PS384,
        Signature::PS512 => Algorithm::PS512,
        Signature::ES256 => Algorithm::ES256,
        Signature::ES384 => Algorithm::ES384,
        Signature::EdDSA => Algorithm::EdDSA,
    }
}

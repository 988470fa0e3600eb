//! A small provider of OpenID Connect, which can also lie.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::http::{HeaderMap, StatusCode};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jiff::Timestamp;
use platform::error::Result;
use platform::http::server::Drain;
use platform::http::{Json, RawBody, Route, Routes};
use platform::testing::TestApp;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

pub(super) const AUDIENCE: &str = "https://api.shop.example";

/// A key of a provider.
pub(super) struct Key {
    id: &'static str,
    pub(super) pair: EcdsaKeyPair,
}

impl Key {
    pub(super) fn new(id: &'static str) -> Self {
        let (random, algorithm) = (SystemRandom::new(), &ECDSA_P256_SHA256_FIXED_SIGNING);
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        Self { id, pair: EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).unwrap() }
    }

    pub(super) fn jwk(&self) -> Value {
        let point = self.pair.public_key().as_ref();
        json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": self.id,
            "x": base64(&point[1..33]), "y": base64(&point[33..])})
    }

    pub(super) fn sign(&self, claims: &Value) -> String {
        self.sign_with(&json!({"alg": "ES256", "kid": self.id, "typ": "JWT"}), claims)
    }

    pub(super) fn sign_with(&self, header: &Value, claims: &Value) -> String {
        let message = message(header, claims);
        let signature = self.pair.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", base64(signature.as_ref()))
    }
}

pub(super) fn base64(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

pub(super) fn message(header: &Value, claims: &Value) -> String {
    format!("{}.{}", base64(header.to_string()), base64(claims.to_string()))
}

/// A provider that listens, and how often its keys were fetched and a code was sent.
pub(super) struct Issuer {
    pub(super) url: String,
    pub(super) fetched: Arc<AtomicUsize>,
    pub(super) asked: Arc<AtomicUsize>,
    pub(super) keys: Arc<Mutex<Vec<Arc<Key>>>>,
    /// The header `Authorization` and the form of the last code.
    pub(super) last: Arc<Mutex<(Option<String>, String)>>,
    saying: Arc<Mutex<Value>>,
    _app: TestApp,
    _drain: Drain,
}

#[derive(Deserialize)]
struct TokenRequest {
    code: String,
    code_verifier: String,
    redirect_uri: String,
}

impl Issuer {
    pub(super) async fn start(key: Arc<Key>) -> Self {
        Self::start_with(key, "").await
    }

    /// One whose name has this behind its address.
    pub(super) async fn start_with(key: Arc<Key>, end: &'static str) -> Self {
        let (fetched, asked) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (keys, saying) = (Arc::new(Mutex::new(vec![key])), Arc::new(Mutex::new(json!({}))));
        let last = Arc::new(Mutex::new((None, String::new())));
        let url = Arc::new(std::sync::OnceLock::<String>::new());
        let (of_discovery, says) = (Arc::clone(&url), Arc::clone(&saying));
        let discovery = async move || {
            let url = of_discovery.get().unwrap();
            let mut said = json!({"issuer": format!("{url}{end}"),
                "authorization_endpoint": format!("{url}/authorize"),
                "token_endpoint": format!("{url}/token"), "jwks_uri": format!("{url}/keys")});
            change(&mut said, &says.lock().unwrap()["discovery"]);
            Json(said)
        };
        let (counter, of_keys, says) = (Arc::clone(&fetched), Arc::clone(&keys), Arc::clone(&saying));
        let jwks = async move || {
            counter.fetch_add(1, Ordering::SeqCst);
            let mut said = says.lock().unwrap()["keys"].as_array().cloned().unwrap_or_default();
            said.extend(of_keys.lock().unwrap().iter().map(|key| key.jwk()));
            (status(&says, "keys_status"), Json(json!({ "keys": said })))
        };
        // The code says what the provider has been asked for: the nonce and the challenge.
        let (counter, signing, says) = (Arc::clone(&asked), Arc::clone(&keys), Arc::clone(&saying));
        let (of_token, of_last) = (Arc::clone(&url), Arc::clone(&last));
        let token = async move |headers: HeaderMap, RawBody(body): RawBody| -> Result<_> {
            counter.fetch_add(1, Ordering::SeqCst);
            let header = headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
            *of_last.lock().unwrap() = (header, String::from_utf8(body.to_vec()).unwrap());
            let status = status(&says, "token_status");
            if !status.is_success() {
                return Ok((status, Json(json!({"error": says.lock().unwrap()["token_error"]}))));
            }
            let sent: TokenRequest = serde_html_form::from_bytes(&body).unwrap();
            let (nonce, challenge) = sent.code.split_once('.').unwrap();
            let proved = base64(Sha256::digest(sent.code_verifier.as_bytes())) == challenge;
            if !proved || sent.redirect_uri != "https://shop.example/back" {
                return Err(platform::error::Error::bad_request("invalid_grant"));
            }
            let issuer = format!("{}{end}", of_token.get().unwrap());
            let mut claims = json!({"iss": issuer, "sub": "42", "aud": "shop", "exp": later(),
                "nonce": nonce, "email": "ada@shop.example", "email_verified": true, "name": "Ada"});
            change(&mut claims, &says.lock().unwrap()["claims"]);
            let key = Arc::clone(signing.lock().unwrap().last().unwrap());
            let tokens = json!({"id_token": key.sign(&claims), "access_token": "x", "token_type": "Bearer"});
            Ok((status, Json(tokens)))
        };
        let says = Arc::clone(&saying);
        let user = async move |headers: HeaderMap| {
            assert_eq!(headers["authorization"], "Bearer x");
            Json(says.lock().unwrap()["user"].clone())
        };
        let routes = Routes::new()
            .route(Route::at("/.well-known/openid-configuration").get(discovery))
            .route(Route::at("/keys").get(jwks))
            .route(Route::at("/me").get(user))
            .route(Route::at("/token").post(token));
        let app = TestApp::with_routes(routes, &[]).await;
        let (address, drain, _) = app.listen().await;
        url.set(format!("http://{address}")).unwrap();
        let url = format!("http://{address}{end}");
        Self { url, fetched, asked, keys, last, saying, _app: app, _drain: drain }
    }

    /// Changes what it says: `discovery` and `claims` in parts, `keys` beside its own, `user`, `token_status` with
    /// `token_error`, and `keys_status`.
    pub(super) fn say(&self, what: Value) {
        *self.saying.lock().unwrap() = what;
    }
}

fn change(value: &mut Value, by: &Value) {
    if let Some(by) = by.as_object() {
        value.as_object_mut().unwrap().extend(by.clone());
    }
}

fn status(says: &Mutex<Value>, name: &str) -> StatusCode {
    let status = says.lock().unwrap()[name].as_u64().unwrap_or(200);
    StatusCode::from_u16(u16::try_from(status).unwrap()).unwrap()
}

/// An hour from now: jsonwebtoken asks the system for the time.
pub(super) fn later() -> i64 {
    Timestamp::now().as_second() + 3_600
}

//! Providers of OpenID Connect: log-in by them and the tokens of programs, with a small one in the test, which can also lie.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::State;
use jiff::{SignedDuration, Timestamp};
use platform::App;
use platform::auth::{LogInAnswer, LogInState};
use platform::clock::Clock;
use platform::error::Result;
use platform::http::{Json, Jwt, Route, Routes};
use platform::services::Services;
use platform::testing::{NoSettings, SERVICE, TestApp, TestResponse};
use ring::signature::KeyPair as _;
use serde::Deserialize;
use serde_json::{Value, json};

use super::issuer::{AUDIENCE, Issuer, Key, base64, later, message};
use crate::tcp_proxy::TcpProxy;

#[derive(Deserialize)]
struct Claims {
    sub: String,
}

#[derive(Deserialize)]
struct Back {
    kept: LogInState,
    #[serde(flatten)]
    answer: LogInAnswer,
}

async fn begin_by(State(services): State<Services>) -> Result<Json<(String, LogInState)>> {
    let provider = services.provider("company").unwrap();
    Ok(Json(provider.begin("https://shop.example/back", "/next").await?))
}

async fn back_by(State(services): State<Services>, Json(back): Json<Back>) -> Result<Json<Value>> {
    let provider = services.provider("company").unwrap();
    let identity = provider.finish(&back.kept, &back.answer, "https://shop.example/back").await?;
    Ok(Json(json!([identity.subject, identity.email, identity.email_verified, identity.name])))
}

/// An app that trusts a provider, and its clock.
async fn app(issuer: &str) -> (TestApp, Clock) {
    app_with(issuer, "client_secret: 's', algorithms: [ES256]").await
}

/// The same with these settings of the provider.
pub(super) async fn app_with(issuer: &str, settings: &str) -> (TestApp, Clock) {
    let routes = |_: &NoSettings| {
        Routes::new()
            .route(Route::at("/api").get(async |Jwt(claims): Jwt<Claims>| claims.sub))
            .route(Route::at("/begin").get(begin_by))
            .route(Route::at("/back").post(back_by))
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.yaml");
    let text = format!(
        "auth: {{providers: {{company: {{issuer: '{issuer}', client_id: shop, audience: '{AUDIENCE}', {settings}}}}}}}"
    );
    std::fs::write(&file, text).unwrap();
    let clock = Clock::starting_at(Timestamp::from_second(1_790_000_000).unwrap());
    let app = App::new(async |services, _| Ok(services), routes).clock(clock.clone());
    (TestApp::start_with_file(&SERVICE, app, &file, &[]).await, clock)
}

pub(super) async fn call(app: &TestApp, token: &str) -> (u16, String) {
    let bearer = format!("Bearer {token}");
    let response = app.call(axum::http::Method::GET, "/api", &[("authorization", &bearer)], "").await;
    (response.status.as_u16(), response.header("www-authenticate").unwrap_or_default().to_owned())
}

/// Begins a log-in: what the browser keeps, the state, and the code that the provider in the test gives.
async fn begin(app: &TestApp) -> (Value, String, String) {
    let (url, kept): (String, Value) = serde_json::from_value(app.get("/begin").await.json()).unwrap();
    let (endpoint, query) = url.split_once('?').unwrap();
    let asked: std::collections::BTreeMap<String, String> = serde_html_form::from_str(query).unwrap();
    assert!(endpoint.ends_with("/authorize"), "{url}");
    let is = |name: &str| asked[name].as_str();
    assert_eq!([is("response_type"), is("client_id"), is("code_challenge_method")], ["code", "shop", "S256"]);
    let code = format!("{}.{}", asked["nonce"], asked["code_challenge"]);
    (kept, asked["state"].clone(), code)
}

pub(super) async fn back(app: &TestApp, kept: &Value, state: &str, code: &str) -> TestResponse {
    app.post("/back", json!({"kept": kept, "state": state, "code": code})).await
}

/// A whole log-in at the provider in the test.
async fn log_in(app: &TestApp) -> TestResponse {
    let (kept, state, code) = begin(app).await;
    back(app, &kept, &state, &code).await
}

#[tokio::test]
async fn a_token_is_refused_unless_all_of_it_is_right() {
    let key = Arc::new(Key::new("a"));
    let issuer = Issuer::start(Arc::clone(&key)).await;
    let (app, _) = app(&issuer.url).await;
    let good = json!({"iss": issuer.url, "sub": "42", "aud": AUDIENCE, "exp": later()});
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        key.sign(&claims)
    };
    assert_eq!(call(&app, &key.sign(&good)).await.0, 200);
    assert_eq!(call(&app, &with("aud", json!(["other", AUDIENCE]))).await.0, 200);
    let hmac = {
        // The public key taken for the secret of an HMAC.
        let message = message(&json!({"alg": "HS256", "kid": "a"}), &good);
        let secret = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key.pair.public_key().as_ref());
        format!("{message}.{}", base64(ring::hmac::sign(&secret, message.as_bytes())))
    };
    let signed = key.sign(&good);
    let stranger = Key::new("a").sign(&good);
    for (token, what) in [
        (format!("{}.", message(&json!({"alg": "none"}), &good)), "none"),
        (hmac, "HS256"),
        (stranger, "the key of somebody else"),
        (key.sign_with(&json!({"alg": "ES256", "kid": "b"}), &good), "an unknown key"),
        (key.sign_with(&json!({"alg": "ES384", "kid": "a"}), &good), "another algorithm"),
        (with("aud", json!("https://other.example")), "aud"),
        (with("iss", json!("https://evil.example")), "iss"),
        (with("exp", json!(Timestamp::now().as_second() - 120)), "expired"),
        (with("exp", json!("9999999999")), "a text as exp"),
        (with("exp", Value::Null), "no exp"),
        (with("nbf", json!(later())), "not yet"),
        (signed[..signed.len() - 4].to_owned(), "a shorter signature"),
        ("a.b.c".to_owned(), "no token"),
        (String::new(), "nothing"),
    ] {
        let (status, challenge) = call(&app, &token).await;
        assert_eq!((status, challenge.starts_with("Bearer")), (401, true), "{what}");
    }
}

#[tokio::test]
async fn a_new_key_is_fetched_once_a_minute_at_most() {
    let key = Arc::new(Key::new("a"));
    let issuer = Issuer::start(Arc::clone(&key)).await;
    let (app, clock) = app(&issuer.url).await;
    let claims = json!({"iss": issuer.url, "sub": "42", "aud": AUDIENCE, "exp": later()});
    let new = Arc::new(Key::new("b"));
    assert_eq!(call(&app, &key.sign(&claims)).await.0, 200);
    issuer.keys.lock().unwrap().push(Arc::clone(&new));
    for _ in 0..5 {
        assert_eq!(call(&app, &new.sign(&claims)).await.0, 401);
    }
    assert_eq!(issuer.fetched.load(Ordering::SeqCst), 1);
    clock.move_by(SignedDuration::from_secs(61));
    assert_eq!(call(&app, &new.sign(&claims)).await.0, 200);
    assert_eq!(call(&app, &key.sign(&claims)).await.0, 200);
    assert_eq!(issuer.fetched.load(Ordering::SeqCst), 2);
    // One that was taken back is none when what is known is old.
    issuer.keys.lock().unwrap().remove(0);
    clock.move_by(SignedDuration::from_hours(1));
    assert_eq!(call(&app, &key.sign(&claims)).await.0, 401);
}

#[tokio::test]
async fn a_log_in_needs_the_state_the_nonce_and_the_verifier_of_this_browser() {
    let issuer = Issuer::start(Arc::new(Key::new("a"))).await;
    let (app, _) = app(&issuer.url).await;
    let (kept, state, code) = begin(&app).await;
    let (others_kept, others_state, others_code) = begin(&app).await;
    let done = back(&app, &kept, &state, &code).await;
    assert_eq!(done.json(), json!(["42", "ada@shop.example", true, "Ada"]));
    assert_eq!(kept["next"], "/next");
    // A link of an attacker, who wants somebody to be logged in as him; and a code that was stolen.
    assert_eq!(back(&app, &kept, &others_state, &others_code).await.status, 403);
    assert_eq!(back(&app, &kept, &state, &others_code).await.status, 403);
    assert_eq!(back(&app, &others_kept, &others_state, &code).await.status, 403);
    let nonce_of_another = format!("x.{}", code.split_once('.').unwrap().1);
    assert_eq!(back(&app, &kept, &state, &nonce_of_another).await.status, 403);
}

#[tokio::test]
async fn an_answer_that_is_an_error_or_of_another_provider_logs_nobody_in() {
    let issuer = Issuer::start(Arc::new(Key::new("a"))).await;
    let (app, _) = app(&issuer.url).await;
    let (kept, state, code) = begin(&app).await;
    let send = async |rest: Value| {
        let mut body = json!({"kept": kept, "state": state});
        body.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        app.post("/back", body).await
    };
    let denied = send(json!({"error": "access_denied", "error_description": "<b>no</b>"})).await;
    assert!(denied.status == 403 && denied.text().contains("did not agree"), "{denied:?}");
    let later = send(json!({"error": "temporarily_unavailable"})).await;
    assert!(later.status == 403 && later.text().contains("later"), "{later:?}");
    let forged = send(json!({"error": "access_denied", "state": "x"})).await;
    assert!(forged.status == 403 && !forged.text().contains("agree"), "{forged:?}");
    assert_eq!(send(json!({"code": code, "iss": "https://evil.example"})).await.status, 403);
    assert_eq!(issuer.asked.load(Ordering::SeqCst), 0);
    assert_eq!(send(json!({"code": code, "iss": issuer.url})).await.status, 200);
    // One that says that it says who it is.
    issuer.say(json!({"discovery": {"authorization_response_iss_parameter_supported": true}}));
    let (app, _) = self::app(&issuer.url).await;
    let (kept, state, code) = begin(&app).await;
    assert_eq!(back(&app, &kept, &state, &code).await.status, 403);
    let body = json!({"kept": kept, "state": state, "code": code, "iss": issuer.url});
    assert_eq!(app.post("/back", body).await.status, 200);
}

#[tokio::test]
async fn who_it_is_is_asked_for_where_the_token_does_not_say() {
    let issuer = Issuer::start(Arc::new(Key::new("a"))).await;
    let endpoint = json!({"userinfo_endpoint": format!("{}/me", issuer.url)});
    let user = json!({"sub": "42", "email": "ada@shop.example", "email_verified": "true", "name": "Ada L."});
    issuer
        .say(json!({"discovery": endpoint, "claims": {"email": null, "email_verified": null}, "user": user}));
    let (app, _) = app(&issuer.url).await;
    assert_eq!(log_in(&app).await.json(), json!(["42", "ada@shop.example", true, "Ada"]));
    // Of somebody else, it is not taken.
    issuer.say(
        json!({"discovery": endpoint, "claims": {"email": null}, "user": {"sub": "43", "email": "a@b"}}),
    );
    assert_eq!(log_in(&app).await.status, 403);
    // Nobody is asked for what the token says; a truth can be a text.
    for (said, is) in
        [(json!("true"), true), (json!("false"), false), (Value::Null, false), (json!(1), false)]
    {
        issuer.say(json!({"discovery": endpoint, "claims": {"email_verified": said}}));
        assert_eq!(log_in(&app).await.json(), json!(["42", "ada@shop.example", is, "Ada"]), "{said}");
    }
}

#[tokio::test]
async fn an_issuer_may_end_with_a_slash_and_is_compared_with_it() {
    let key = Arc::new(Key::new("a"));
    let issuer = Issuer::start_with(Arc::clone(&key), "/").await;
    let (app, _) = app(&issuer.url).await;
    assert!(issuer.url.ends_with('/'));
    assert_eq!(log_in(&app).await.status, 200);
    let claims = json!({"iss": issuer.url, "sub": "42", "aud": AUDIENCE, "exp": later()});
    assert_eq!(call(&app, &key.sign(&claims)).await.0, 200);
    let mut other = claims.clone();
    other["iss"] = json!(issuer.url.trim_end_matches('/'));
    assert_eq!(call(&app, &key.sign(&other)).await.0, 401);
    let (app, _) = self::app(issuer.url.trim_end_matches('/')).await;
    assert_eq!(app.get("/begin").await.status, 500);
}

#[tokio::test]
async fn keys_of_other_kinds_do_not_hide_the_one_that_fits() {
    let key = Arc::new(Key::new("a"));
    let issuer = Issuer::start(Arc::clone(&key)).await;
    let mut enc = Key::new("a").jwk();
    enc["use"] = json!("enc");
    let other_algorithm = json!({"kty": "RSA", "kid": "a", "alg": "RS256", "n": "AQAB", "e": "AQAB"});
    let without_use = json!({"kty": "RSA", "n": "AQAB", "e": "AQAB"});
    let strange = [
        json!({"kty": "AKP", "kid": "a", "alg": "ML-DSA-65", "pub": "AA"}),
        json!({"kty": "EC", "crv": "secp256k1", "kid": "a", "x": "AA", "y": "AA"}),
        json!({"kty": "OKP", "crv": "X448", "kid": 5, "x": "AA"}),
        json!("nothing"),
    ];
    let more = [vec![enc, other_algorithm, without_use], strange.to_vec()].concat();
    issuer.say(json!({ "keys": more }));
    let (app, _) = app(&issuer.url).await;
    let claims = json!({"iss": issuer.url, "sub": "42", "aud": AUDIENCE, "exp": later()});
    assert_eq!(call(&app, &key.sign(&claims)).await.0, 200);
    let without_name = json!({"alg": "ES256"});
    assert_eq!(call(&app, &key.sign_with(&without_name, &claims)).await.0, 200);
    // With two that fit, a token has to say which it is.
    issuer.keys.lock().unwrap().push(Arc::new(Key::new("b")));
    let (app, _) = self::app(&issuer.url).await;
    assert_eq!(call(&app, &key.sign_with(&without_name, &claims)).await.0, 401);
    assert_eq!(call(&app, &key.sign(&claims)).await.0, 200);
}

#[tokio::test]
async fn a_provider_that_is_down_at_the_start_is_503_until_it_is_there() {
    let key = Arc::new(Key::new("a"));
    let issuer = Issuer::start(Arc::clone(&key)).await;
    let mut proxy = TcpProxy::stopped(issuer.url.trim_start_matches("http://")).await;
    let url = format!("http://{}", proxy.address);
    issuer.say(json!({"discovery": {"issuer": url}, "claims": {"iss": url}}));
    let (app, _) = app(&url).await;
    let token = key.sign(&json!({"iss": url, "sub": "42", "aud": AUDIENCE, "exp": later()}));
    let begun = app.get("/begin").await;
    assert!(begun.status == 503 && begun.header("retry-after").is_some(), "{begun:?}");
    assert_eq!(call(&app, &token).await.0, 503);
    proxy.start().await;
    assert_eq!(call(&app, &token).await.0, 200);
    assert_eq!(log_in(&app).await.status, 200);
}

#[tokio::test]
async fn a_code_is_sent_once_whatever_the_provider_responds() {
    let issuer = Issuer::start(Arc::new(Key::new("a"))).await;
    let (app, _) = app(&issuer.url).await;
    for (status, error, expected) in [
        (503, "temporarily_unavailable", 503),
        (500, "server_error", 503),
        (400, "invalid_grant", 403),
        // The configuration is wrong.
        (401, "invalid_client", 500),
    ] {
        issuer.say(json!({"token_status": status, "token_error": error}));
        let before = issuer.asked.load(Ordering::SeqCst);
        assert_eq!(log_in(&app).await.status, expected, "{error}");
        assert_eq!(issuer.asked.load(Ordering::SeqCst), before + 1, "{error}");
    }
    // The control: its keys are asked for again.
    issuer.say(json!({"keys_status": 503}));
    let (app, _) = self::app(&issuer.url).await;
    let before = issuer.fetched.load(Ordering::SeqCst);
    assert_eq!(app.get("/begin").await.status, 503);
    assert!(issuer.fetched.load(Ordering::SeqCst) > before + 1);
}

#[tokio::test]
async fn a_provider_that_takes_no_header_gets_the_secret_in_the_form() {
    let issuer = Issuer::start(Arc::new(Key::new("a"))).await;
    for (methods, in_form) in [
        (json!(["client_secret_post"]), true),
        (json!(["client_secret_post", "client_secret_basic"]), false),
        (json!([]), false),
    ] {
        issuer.say(json!({"discovery": {"token_endpoint_auth_methods_supported": methods}}));
        let (app, _) = app(&issuer.url).await;
        assert_eq!(log_in(&app).await.status, 200);
        let (header, form) = issuer.last.lock().unwrap().clone();
        assert_eq!((header.is_none(), form.contains("client_secret=s")), (in_form, in_form), "{methods}");
    }
}

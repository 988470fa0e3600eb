//! Providers of OpenID Connect: a real one (`make test-all`), whose signatures are RS256.

use platform::testing::TestApp;
use reqwest::{Client, redirect};
use serde_json::{Value, json};

use super::issuer::AUDIENCE;
use super::providers::{app_with, back, call};

const SECRET: &str = "client_secret: 'a secret:100% & more+'";

fn issuer() -> String {
    std::env::var("TEST_OIDC_ISSUER").expect("TEST_OIDC_ISSUER names no server; `make test-all` starts one")
}

/// A browser that is a client without cookies of its own: they are kept by the test.
struct Browser {
    client: Client,
    cookies: Vec<(String, String)>,
}

impl Browser {
    fn new() -> Self {
        let client = Client::builder().redirect(redirect::Policy::none()).build().unwrap();
        Self { client, cookies: Vec::new() }
    }

    /// Goes to a URL and on until the shop's, and returns that. `at_log_in` is added to the URL of the log-in.
    async fn log_in(&mut self, url: &str, at_log_in: &str) -> String {
        let origin = issuer().split("/realms").next().unwrap().to_owned();
        let mut url = url.to_owned();
        while !url.starts_with("https://shop.example/") {
            if url.contains("/log-in/") {
                url.push_str(at_log_in);
            }
            let pairs: Vec<_> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let response = self.client.get(&url).header("cookie", pairs.join("; ")).send().await.unwrap();
            for cookie in response.headers().get_all("set-cookie") {
                let (name, value) =
                    cookie.to_str().unwrap().split(';').next().unwrap().split_once('=').unwrap();
                self.cookies.retain(|(kept, _)| kept != name);
                self.cookies.push((name.to_owned(), value.to_owned()));
            }
            let next = response.headers().get("location").map(|url| url.to_str().unwrap().to_owned());
            url = next.unwrap_or_else(|| panic!("{url} leads nowhere: {}", response.status()));
            if url.starts_with('/') {
                url.insert_str(0, &origin);
            }
        }
        url
    }
}

/// Begins a log-in and goes to the provider: what the browser keeps, and the answer.
async fn go(app: &TestApp, browser: &mut Browser, at_log_in: &str) -> (Value, Value) {
    let (url, kept): (String, Value) = serde_json::from_value(app.get("/begin").await.json()).unwrap();
    let url = browser.log_in(&url, at_log_in).await;
    let query = url.split_once('?').unwrap().1;
    let answer: std::collections::BTreeMap<String, String> = serde_html_form::from_str(query).unwrap();
    (kept, json!(answer))
}

async fn finish(app: &TestApp, kept: &Value, answer: &Value) -> platform::testing::TestResponse {
    let mut body = answer.clone();
    body["kept"] = kept.clone();
    app.post("/back", body).await
}

#[tokio::test]
#[ignore = "needs oidc-provider: make test-all"]
async fn a_log_in_tells_who_it_is_and_its_code_is_good_once_and_with_its_verifier() {
    let (app, _) = app_with(&issuer(), SECRET).await;
    let mut browser = Browser::new();
    let (kept, answer) = go(&app, &mut browser, "").await;
    let done = finish(&app, &kept, &answer).await;
    assert_eq!(done.json(), json!(["ada@shop.example", "ada@shop.example", true, "ada"]), "{done:?}");
    assert_eq!(finish(&app, &kept, &answer).await.status, 403);
    // Who is logged in there is not asked again.
    let (kept, answer) = go(&app, &mut browser, "?as=eve@shop.example").await;
    let (others, others_answer) = go(&app, &mut Browser::new(), "?as=unproved@shop.example").await;
    // A code that was stolen, and put into the log-in of the thief.
    let state = others_answer["state"].as_str().unwrap();
    let (code, iss) = (&answer["code"], &answer["iss"]);
    let stolen = json!({"state": state, "code": code, "iss": iss});
    assert_eq!(finish(&app, &others, &stolen).await.status, 403);
    let not_verified = finish(&app, &others, &others_answer).await;
    assert_eq!(not_verified.json()[2], false, "{not_verified:?}");
    let (kept_again, answer_again) = go(&app, &mut browser, "").await;
    assert_eq!(finish(&app, &kept_again, &answer_again).await.json()[0], "ada@shop.example");
    assert_eq!(finish(&app, &kept, &answer_again).await.status, 403);
    // It says who it is where it sends the browser back.
    assert_eq!(answer["iss"], issuer());
    let (kept, answer) = go(&app, &mut browser, "").await;
    let without = back(&app, &kept, answer["state"].as_str().unwrap(), answer["code"].as_str().unwrap());
    assert_eq!(without.await.status, 403);
    assert_eq!(finish(&app, &kept, &answer).await.status, 200);
}

#[tokio::test]
#[ignore = "needs oidc-provider: make test-all"]
async fn a_signature_of_rsa_is_taken_only_where_it_is_allowed_and_a_refusal_is_none() {
    let (app, _) = app_with(&issuer(), &format!("{SECRET}, algorithms: [ES256]")).await;
    let (kept, answer) = go(&app, &mut Browser::new(), "").await;
    assert_eq!(finish(&app, &kept, &answer).await.status, 403);
    let (app, _) = app_with(&issuer(), &format!("{SECRET}, algorithms: [ES256, RS256]")).await;
    let (kept, answer) = go(&app, &mut Browser::new(), "").await;
    assert_eq!(finish(&app, &kept, &answer).await.status, 200);
    let (kept, answer) = go(&app, &mut Browser::new(), "?refuse").await;
    assert_eq!(answer["error"], "access_denied");
    let refused = finish(&app, &kept, &answer).await;
    assert!(refused.status == 403 && refused.text().contains("did not agree"), "{refused:?}");
    // A secret that is wrong is a fault of the configuration.
    let (app, _) = app_with(&issuer(), "client_secret: wrong").await;
    let (kept, answer) = go(&app, &mut Browser::new(), "").await;
    assert_eq!(finish(&app, &kept, &answer).await.status, 500);
}

#[tokio::test]
#[ignore = "needs oidc-provider: make test-all"]
async fn the_token_of_a_program_is_taken_if_it_is_for_this_api() {
    let (app, _) = app_with(&issuer(), SECRET).await;
    let token = async |resource: &str| {
        let form = format!("grant_type=client_credentials&resource={resource}");
        let request = Client::new().post(format!("{}/token", issuer())).body(form);
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let request = request.basic_auth("shop", Some("a+secret%3A100%25+%26+more%2B"));
        let body = request.send().await.unwrap().bytes().await.unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        body["access_token"].as_str().unwrap_or_else(|| panic!("{body}")).to_owned()
    };
    let good = token(AUDIENCE).await;
    assert_eq!(call(&app, &good).await.0, 200);
    let (status, challenge) = call(&app, &token("https://other.example").await).await;
    assert_eq!((status, challenge.contains("invalid_token")), (401, true));
    let middle = good.len() - 20;
    let changed = format!(
        "{}{}{}",
        &good[..middle],
        if good[middle..].starts_with('A') { 'B' } else { 'A' },
        &good[middle + 1..]
    );
    assert_eq!(call(&app, &changed).await.0, 401);
    // The name of the scheme has no case.
    let bearer = format!("bearer {good}");
    let response = app.call(axum::http::Method::GET, "/api", &[("authorization", &bearer)], "").await;
    assert_eq!(response.text(), "shop");
}

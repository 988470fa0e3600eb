//! Log-in by a provider of OpenID Connect, a real one (`make test-all`).

use axum::http::Method;
use platform::testing::TestResponse;
use reqwest::{Client, redirect};
use serde_json::Value;

use super::{Site, cookies_of};

const SHOP: &str = "https://shop.example";

fn issuer() -> String {
    std::env::var("TEST_OIDC_ISSUER").expect("TEST_OIDC_ISSUER names no server; `make test-all` starts one")
}

async fn site() -> Site {
    let company = "SERVER__AUTH__PROVIDERS__COMPANY__";
    let [issuer_of, id, secret] =
        ["ISSUER", "CLIENT_ID", "CLIENT_SECRET"].map(|name| format!("{company}{name}"));
    let (issuer, public) = (issuer(), ("SERVER__SERVER__PUBLIC_URL", SHOP));
    let settings = [(issuer_of.as_str(), issuer.as_str()), (&id, "shop"), (&secret, "a secret:100% & more+")];
    Site::with(&[&settings[..], &[public]].concat()).await
}

/// Goes to the provider as a browser does that has no cookies yet, and back: the URL of the shop. `at_log_in` is added to
/// the URL of the log-in there.
async fn go(url: &str, at_log_in: &str) -> String {
    let client = Client::builder().redirect(redirect::Policy::none()).build().unwrap();
    let origin = issuer().split("/realms").next().unwrap().to_owned();
    let (mut url, mut cookies) = (url.to_owned(), String::new());
    while !url.starts_with(SHOP) {
        if url.contains("/log-in/") {
            url.push_str(at_log_in);
        }
        let response = client.get(&url).header("cookie", &cookies).send().await.unwrap();
        for cookie in response.headers().get_all("set-cookie") {
            cookies.push_str(cookie.to_str().unwrap().split(';').next().unwrap());
            cookies.push_str("; ");
        }
        let next = response.headers().get("location").map(|url| url.to_str().unwrap().to_owned());
        url = next.unwrap_or_else(|| panic!("{url} leads nowhere: {}", response.status()));
        if url.starts_with('/') {
            url.insert_str(0, &origin);
        }
    }
    url
}

/// A whole log-in: what the shop responds to the browser that comes back.
async fn log_in(site: &Site, at_log_in: &str) -> TestResponse {
    let begun = site.page("/log-in/with/company?next=/account", "").await;
    assert_eq!(begun.status, 303, "{begun:?}");
    let url = go(begun.header("location").unwrap(), at_log_in).await;
    site.page(url.strip_prefix(SHOP).unwrap(), &cookies_of(&begun)).await
}

/// The account that a response has logged in.
async fn account(site: &Site, response: &TestResponse) -> Value {
    assert_eq!(
        (response.status.as_u16(), response.header("location")),
        (303, Some("/account")),
        "{response:?}"
    );
    site.app.call(Method::GET, "/account", &[("cookie", &cookies_of(response))], "").await.json()
}

#[tokio::test]
#[ignore = "needs oidc-provider: make test-all"]
async fn somebody_new_has_one_account_however_often_they_log_in() {
    let site = site().await;
    for sessions in 1..=2 {
        let account = account(&site, &log_in(&site, "?as=eve@shop.example").await).await;
        assert_eq!(account["email"], "eve@shop.example", "{account}");
        assert_eq!(account["sessions"].as_array().unwrap().len(), sessions);
    }
    // The control: somebody else has another one.
    let other = account(&site, &log_in(&site, "").await).await;
    assert_eq!(
        (&other["email"], other["sessions"].as_array().unwrap().len()),
        (&"ada@shop.example".into(), 1)
    );
}

#[tokio::test]
#[ignore = "needs oidc-provider: make test-all"]
async fn an_account_with_the_address_is_taken_where_the_provider_has_proved_it() {
    let site = site().await;
    let session = site.register("ada@shop.example").await;
    site.register("unproved@shop.example").await;
    let account = account(&site, &log_in(&site, "").await).await;
    assert_eq!(
        (&account["email"], account["sessions"].as_array().unwrap().len()),
        (&"ada@shop.example".into(), 2)
    );
    assert_eq!(site.account(&session).await, 200);
    let page = log_in(&site, "?as=unproved@shop.example").await;
    assert!(page.status == 403 && page.text().contains("has not proved your address"), "{}", page.text());
}

#[tokio::test]
#[ignore = "needs oidc-provider: make test-all"]
async fn who_is_refused_there_sees_the_form_and_why() {
    let site = site().await;
    let page = log_in(&site, "?refuse").await;
    assert!(page.status == 403 && page.text().contains("did not agree"), "{}", page.text());
    assert!(
        page.text().contains("action=\"/log-in\"")
            && page.text().contains("/log-in/with/company?next=/account")
    );
    // Without the cookie of a log-in that was begun here.
    let begun = site.page("/log-in/with/company", "").await;
    let url = go(begun.header("location").unwrap(), "").await;
    let path = url.strip_prefix(SHOP).unwrap();
    let page = site.page(path, "").await;
    assert!(page.status == 403 && page.text().contains("was not begun here"), "{}", page.text());
    // A program gets no page.
    let response = site.app.call(Method::GET, path, &[], "").await;
    assert_eq!((response.status.as_u16(), response.json()["status"].as_u64()), (403, Some(403)));
    assert_eq!(site.page(path, &cookies_of(&begun)).await.status, 303);
}

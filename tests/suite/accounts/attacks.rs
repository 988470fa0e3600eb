//! What an attacker tries, and what must not come of it.

use axum::http::Method;
use jiff::SignedDuration;
use platform::auth::Passwords;
use platform::secret::Secret;
use platform::store::{Dao, field};
use serde_json::json;
use server::app::accounts::User;

use super::{PASSWORD, Site, cookies_of};

const OTHER: &str = "nine badgers on a raft";

#[tokio::test]
async fn a_link_to_an_address_that_has_an_account_meanwhile_costs_no_hash() {
    let site = Site::new().await;
    assert_eq!(site.send("/register", "", json!({"email": "ada@shop.example"})).await.status, 202);
    let spare = site.token().await;
    site.register("ada@shop.example").await;
    // The link cannot be spent any more: whoever has it could have passwords hashed for an hour, without a throttle.
    let form = json!({"token": spare, "name": "Ada", "password": "short"});
    let refused = site.send("/confirm", "", form).await;
    let message = refused.json()["message"].to_string();
    assert!(refused.status == 422 && message.contains("This link does not hold"), "{refused:?}");
}

#[tokio::test]
async fn mails_that_others_ask_for_by_registering_keep_nobody_from_a_reset() {
    let site = Site::new().await;
    site.register("ada@shop.example").await;
    for _ in 0..4 {
        site.send("/register", "", json!({"email": "ada@shop.example"})).await;
    }
    site.mails().await;
    assert_eq!(site.send("/forgot", "", json!({"email": "ada@shop.example"})).await.status, 202);
}

#[tokio::test]
async fn the_device_of_a_registration_is_one_of_its_owner() {
    let site = Site::with(&[("SERVER__AUTH__THROTTLES__ACCOUNT__BURST", "2")]).await;
    let cookies = site.register("ada@shop.example").await;
    for _ in 0..3 {
        site.log_in("ada@shop.example", "wrong", "").await;
    }
    assert_eq!(site.log_in("ada@shop.example", PASSWORD, "").await.status, 429);
    let change = json!({"current": PASSWORD, "password": OTHER});
    assert_eq!(site.send("/account/password", &cookies, change).await.status, 204);
}

#[tokio::test]
async fn a_password_whose_hash_is_weak_by_now_can_be_changed_at_once() {
    let site = Site::new().await;
    let session = site.register("ada@shop.example").await;
    let settings = json!({"min_length": 15, "memory": "7MiB", "passes": 1, "at_once": 1});
    let weak = Passwords::new(&serde_json::from_value(settings).unwrap(), "shop").unwrap();
    let weak = weak.hash(&Secret::new(PASSWORD)).await.unwrap();
    let users: Dao<User> = site.app.services().dao();
    let user = users.get_first(field("email").eq("ada@shop.example")).await.unwrap().unwrap();
    let weaken = |user: &mut User| {
        user.password = Some(weak.clone());
        Ok(())
    };
    users.modify(&user.id, weaken).await.unwrap();
    let change = json!({"current": PASSWORD, "password": OTHER});
    let changed = site.send("/account/password", &session, change).await;
    assert_eq!(changed.status, 204, "{changed:?}");
}

#[tokio::test]
async fn many_devices_of_one_account_have_no_more_attempts_than_all_networks() {
    let site = Site::with(&[("SERVER__AUTH__THROTTLES__ACCOUNT__BURST", "5")]).await;
    let session = site.register("ada@shop.example").await;
    // Somebody who knew the password has collected devices.
    let mut devices = Vec::new();
    for _ in 0..3 {
        devices.push(cookies_of(&site.log_in("ada@shop.example", PASSWORD, "").await));
    }
    let change = json!({"current": PASSWORD, "password": OTHER});
    assert_eq!(site.send("/account/password", &session, change).await.status, 204);
    let mut guesses = 0;
    for device in &devices {
        for _ in 0..10 {
            guesses += u32::from(site.log_in("ada@shop.example", "wrong", device).await.status == 422);
        }
    }
    assert!((1..=5).contains(&guesses), "{guesses}");
}

#[tokio::test]
async fn a_token_has_each_scope_once() {
    let site = Site::new().await;
    let session = site.register("ada@shop.example").await;
    let new = json!({"name": "script", "scopes": vec!["read"; 5_000], "days": 1});
    assert_eq!(site.send("/account/tokens", &session, new).await.status, 422);
    // No days is for ever; none left is not.
    let new = json!({"name": "script", "scopes": ["read"], "days": 0});
    assert_eq!(site.send("/account/tokens", &session, new).await.status, 422);
}

#[tokio::test]
async fn requests_under_way_do_not_outlive_the_end_of_an_account() {
    let site = Site::new().await;
    for round in 0..10 {
        let email = format!("ada{round}@shop.example");
        site.pass(SignedDuration::from_hours(1));
        site.mails().await;
        let session = site.register(&email).await;
        let change = json!({"current": PASSWORD, "password": OTHER});
        let deletion = json!({"password": PASSWORD});
        let log_in = json!({"email": email, "password": PASSWORD});
        let (log_in, change, deletion) = tokio::join!(
            site.send("/log-in", "", log_in),
            site.send("/account/password", &session, change),
            site.send("/account/delete", &session, deletion),
        );
        for response in [&log_in, &change, &deletion] {
            assert!(response.status.as_u16() < 500, "{response:?}");
        }
        if deletion.status == 204 {
            for response in [&log_in, &change] {
                assert_eq!(site.account(&cookies_of(response)).await, 401);
            }
        } else if change.status == 204 {
            assert_eq!(site.account(&cookies_of(&log_in)).await, 401);
        }
    }
}

#[tokio::test]
async fn of_many_who_are_first_one_is() {
    let site = Site::new().await;
    let mut tokens = Vec::new();
    for n in 0..4 {
        assert_eq!(
            site.send("/register", "", json!({"email": format!("a{n}@shop.example")})).await.status,
            202
        );
        tokens.push(site.token().await);
    }
    let confirm = async |token: &str| {
        let form = json!({"token": token, "name": "Ada", "password": PASSWORD});
        site.send("/confirm", "", form).await
    };
    let made = futures_util::future::join_all(tokens.iter().map(|token| confirm(token))).await;
    let mut writers = 0;
    for response in &made {
        assert_eq!(response.status, 201, "{response:?}");
        let cookie = cookies_of(response);
        let page = site.app.call(Method::GET, "/probe", &[("cookie", &cookie)], "").await;
        writers += u32::from(page.status == 200);
    }
    assert_eq!(writers, 1);
}

#[tokio::test]
async fn the_first_account_stays_so_that_nobody_becomes_the_first() {
    let site = Site::new().await;
    let first = site.register("ada@shop.example").await;
    assert_eq!(site.send("/account/delete", &first, json!({"password": PASSWORD})).await.status, 409);
    let eve = site.register("eve@shop.example").await;
    let page = site.app.call(Method::GET, "/probe", &[("cookie", &eve)], "").await;
    assert_eq!(page.status, 403);
}

#[tokio::test]
async fn a_token_that_may_read_opens_no_web_socket() {
    let site = Site::new().await;
    let session = site.register("ada@shop.example").await;
    let new = json!({"name": "script", "scopes": ["read"], "days": 1});
    let token = site.send("/account/tokens", &session, new).await.json();
    let bearer = format!("Bearer {}", token.as_str().unwrap());
    for (upgrade, status) in [("websocket", 403), ("h2c", 200)] {
        let headers = [("authorization", bearer.as_str()), ("connection", "upgrade"), ("upgrade", upgrade)];
        let response = site.app.call(Method::GET, "/probe", &headers, "").await;
        assert_eq!(response.status, status, "{upgrade}: {response:?}");
    }
    for method in [Method::PUT, Method::PATCH, Method::DELETE, Method::POST] {
        for path in ["/account", "/probe", "/account/tokens", "/account/delete"] {
            let headers = [("authorization", bearer.as_str())];
            let status = site.app.call(method.clone(), path, &headers, "{}").await.status.as_u16();
            assert!([403, 405].contains(&status), "{method} {path}: {status}");
        }
    }
}

#[cfg(feature = "oidc")]
#[tokio::test]
async fn a_long_way_back_is_no_error_of_the_server() {
    use platform::http::{Json, Route, Routes};
    use platform::testing::TestApp;

    let url = std::sync::Arc::new(std::sync::OnceLock::<String>::new());
    let of_discovery = std::sync::Arc::clone(&url);
    let discovery = async move || {
        let url = of_discovery.get().unwrap();
        Json(json!({"issuer": url, "authorization_endpoint": "https://company.example/authorize",
            "token_endpoint": format!("{url}/token"), "jwks_uri": format!("{url}/keys")}))
    };
    let routes = Routes::new()
        .route(Route::at("/.well-known/openid-configuration").get(discovery))
        .route(Route::at("/keys").get(async || Json(json!({"keys": []}))));
    let issuer = TestApp::with_routes(routes, &[]).await;
    let (address, _drain, _) = issuer.listen().await;
    url.set(format!("http://{address}")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.yaml");
    let provider = format!("{{issuer: 'http://{address}', client_id: shop, client_secret: s}}");
    std::fs::write(&file, format!("auth: {{providers: {{company: {provider}}}}}")).unwrap();
    let mails = format!("file:{}", folder.path().display());
    let environment = [("SERVER__MAIL__URL", mails.as_str())];
    let app = TestApp::start_with_file(&server::SERVICE, server::app::app(), &file, &environment).await;
    for next in ["/a".to_owned(), format!("/{}", "a".repeat(5_000)), format!("/{}", "%22".repeat(1_900))] {
        let path = format!("/log-in/with/company?next={next}");
        let response = app.call(Method::GET, &path, &[], "").await;
        assert_eq!(response.status, 303, "{response:?}");
    }
}

#[tokio::test]
async fn an_address_to_which_no_mail_can_go_is_an_error_of_the_form() {
    let site = Site::new().await;
    let long = format!("{}@b.example", "ü".repeat(200));
    for email in
        ["a@b@c", "a@b.example,c@d.example", "<a@b.example>", "a@b.example>", "\"a\"@b.example", &long]
    {
        for path in ["/register", "/forgot"] {
            let page = site.submit(path, "", &[("email", email)]).await;
            assert!(
                page.status == 422 && page.text().contains("is not an address"),
                "{path} {email}: {page:?}"
            );
        }
    }
    assert_eq!(site.mails().await.len(), 0);
}

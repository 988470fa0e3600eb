//! Passwords that are forgotten, changed and guessed.

use axum::http::Method;
use jiff::SignedDuration;
use serde_json::json;

use super::{PASSWORD, Site, cookies_of};

const OTHER: &str = "nine badgers on a raft";

#[tokio::test]
async fn a_reset_ends_all_sessions_when_it_is_done_and_not_when_it_is_asked_for() {
    let site = Site::new().await;
    let first = site.register("ada@shop.example").await;
    let second = cookies_of(&site.log_in("ada@shop.example", PASSWORD, "").await);
    assert_eq!(site.send("/forgot", "", json!({"email": "ada@shop.example"})).await.status, 202);
    let token = site.token().await;
    assert_eq!([site.account(&first).await, site.account(&second).await], [200, 200]);
    let done = site.send("/reset", "", json!({"token": token, "password": OTHER})).await;
    assert_eq!(done.status, 204, "{done:?}");
    assert_eq!([site.account(&first).await, site.account(&second).await], [401, 401]);
    // Nobody is logged in by it, and a mail says that it has happened.
    assert!(done.headers.get("set-cookie").is_none());
    let mails = site.mails().await;
    assert!(mails.len() == 1 && mails[0].contains("password has changed"), "{mails:?}");
    assert_eq!(site.log_in("ada@shop.example", PASSWORD, "").await.status, 422);
    assert_eq!(site.log_in("ada@shop.example", OTHER, "").await.status, 204);
    let again = site.send("/reset", "", json!({"token": token, "password": PASSWORD})).await;
    assert_eq!(again.status, 422);
}

#[tokio::test]
async fn a_link_is_for_one_purpose_for_a_time_and_for_the_password_that_was_forgotten() {
    let site = Site::new().await;
    let session = site.register("ada@shop.example").await;
    let ask = async || {
        assert_eq!(site.send("/forgot", "", json!({"email": "ada@shop.example"})).await.status, 202);
        site.token().await
    };
    let reset = async |token: &str| {
        let body = json!({"token": token, "password": OTHER});
        site.send("/reset", "", body).await.status.as_u16()
    };
    let token = ask().await;
    let body = json!({"token": token, "name": "Eve", "password": OTHER});
    assert_eq!(site.send("/confirm", "", body).await.status, 422);
    site.pass(SignedDuration::from_mins(61));
    assert_eq!(reset(&token).await, 422);
    let token = ask().await;
    // Changed since: a mailbox that others read later gets nobody in.
    let change = json!({"current": PASSWORD, "password": "a third one for today"});
    let changed = site.send("/account/password", &session, change).await;
    assert_eq!(changed.status, 204, "{changed:?}");
    site.mails().await;
    assert_eq!(reset(&token).await, 422);
    // The control.
    site.pass(SignedDuration::from_hours(1));
    let token = ask().await;
    assert_eq!(reset(&token).await, 204);
}

#[tokio::test]
async fn of_two_who_use_a_link_at_the_same_time_one_does() {
    let site = Site::new().await;
    site.register("ada@shop.example").await;
    site.send("/forgot", "", json!({"email": "ada@shop.example"})).await;
    let token = site.token().await;
    let reset = async |password: &str| {
        site.send("/reset", "", json!({"token": token, "password": password})).await.status.as_u16()
    };
    let mut statuses = [0; 2];
    (statuses[0], statuses[1]) = tokio::join!(reset(OTHER), reset("a third one for today"));
    statuses.sort_unstable();
    assert!(statuses[0] == 204 && statuses[1] >= 400 && statuses[1] < 500, "{statuses:?}");
}

#[tokio::test]
async fn a_change_needs_the_present_password_and_keeps_this_device_alone() {
    let site = Site::new().await;
    let first = site.register("ada@shop.example").await;
    let second = cookies_of(&site.log_in("ada@shop.example", PASSWORD, "").await);
    let change = async |current: &str| {
        site.send("/account/password", &first, json!({"current": current, "password": OTHER})).await
    };
    assert_eq!(change(OTHER).await.status, 422);
    assert_eq!([site.account(&first).await, site.account(&second).await], [200, 200]);
    let changed = change(PASSWORD).await;
    assert_eq!(changed.status, 204);
    let new = cookies_of(&changed);
    assert_eq!(
        [site.account(&first).await, site.account(&second).await, site.account(&new).await],
        [401, 401, 200]
    );
}

#[tokio::test]
async fn register_and_forgot_reveal_nobody() {
    let site = Site::new().await;
    site.register("ada@shop.example").await;
    for path in ["/register", "/forgot"] {
        site.pass(SignedDuration::from_hours(1));
        let mut seen = Vec::new();
        for email in ["ada@shop.example", "bob@shop.example"] {
            let response = site.send(path, "", json!({"email": email})).await;
            let mut headers: Vec<String> = response
                .headers
                .iter()
                .filter(|(name, _)| *name != "x-request-id")
                .map(|(name, value)| format!("{name}: {value:?}"))
                .collect();
            headers.sort();
            seen.push((response.status, headers, response.body));
            let form = site.submit(path, "", &[("email", email)]).await;
            assert_eq!((form.status.as_u16(), form.header("location")), (303, Some("/mail-sent")));
        }
        assert_eq!(seen[0], seen[1], "{path}");
        site.mails().await;
    }
    // Log-in too: an address that nobody has is a wrong password.
    let known = site.log_in("ada@shop.example", "wrong", "").await;
    let unknown = site.log_in("bob@shop.example", "wrong", "").await;
    assert_eq!((known.status, &known.json()["message"]), (unknown.status, &unknown.json()["message"]));
}

#[tokio::test]
async fn guesses_are_throttled_and_the_owner_gets_in_on_their_device() {
    let site = Site::new().await;
    let device = site.register("ada@shop.example").await;
    // A log-in makes the device known.
    let device =
        format!("{device}; {}", cookies_of(&site.log_in("ada@shop.example", PASSWORD, &device).await));
    let mut statuses = Vec::new();
    for _ in 0..12 {
        statuses.push(site.log_in("ada@shop.example", "wrong", "").await.status.as_u16());
    }
    assert_eq!(statuses, [vec![422; 10], vec![429; 2]].concat());
    let refused = site.log_in("ada@shop.example", PASSWORD, "").await;
    assert!(refused.status == 429 && refused.header("retry-after").is_some(), "{refused:?}");
    let page = site.submit("/log-in", "", &[("email", "ada@shop.example"), ("password", PASSWORD)]).await;
    assert!(page.status == 429 && page.text().contains("Too many attempts"), "{}", page.text());
    assert_eq!(site.log_in("ada@shop.example", PASSWORD, &device).await.status, 204);
    // Elsewhere, later.
    site.pass(SignedDuration::from_mins(2));
    assert_eq!(site.log_in("ada@shop.example", PASSWORD, "").await.status, 204);
}

#[tokio::test]
async fn an_account_that_is_deleted_lets_nobody_in() {
    let site = Site::new().await;
    site.register("first@shop.example").await;
    let session = site.register("ada@shop.example").await;
    let delete = async |password: &str| {
        site.send("/account/delete", &session, json!({"password": password})).await.status.as_u16()
    };
    assert_eq!(delete("wrong").await, 422);
    assert_eq!(site.account(&session).await, 200);
    assert_eq!(delete(PASSWORD).await, 204);
    assert_eq!(site.account(&session).await, 401);
    assert_eq!(site.log_in("ada@shop.example", PASSWORD, "").await.status, 422);
    // The address is free again.
    site.register("ada@shop.example").await;
    let page = site.app.call(Method::GET, "/account", &[], "").await;
    assert_eq!(page.status, 401);
}

//! Programs: JSON, tokens, sessions of other devices.

use axum::http::Method;
use jiff::SignedDuration;
use platform::testing::TestServer;
use serde_json::json;

use super::{PASSWORD, Site, cookies_of};
use crate::support::PROGRAM;

#[tokio::test]
async fn a_user_sees_their_devices_and_ends_one() {
    let site = Site::new().await;
    let first = site.register("ada@shop.example").await;
    let second = cookies_of(&site.log_in("ada@shop.example", PASSWORD, "").await);
    let account = site.app.call(Method::GET, "/account", &[("cookie", &first)], "").await.json();
    let sessions = account["sessions"].as_array().unwrap();
    assert_eq!((sessions.len(), &account["email"]), (2, &json!("ada@shop.example")), "{account}");
    assert!(account.get("password").is_none());
    site.pass(SignedDuration::from_mins(6));
    assert_eq!(site.account(&first).await, 200);
    let account = site.app.call(Method::GET, "/account", &[("cookie", &first)], "").await.json();
    // The one that was used last is the first.
    let other = &account["sessions"][1]["id"];
    assert_eq!(site.send("/account/sessions/end", &first, json!({"id": other})).await.status, 204);
    assert_eq!([site.account(&first).await, site.account(&second).await], [200, 401]);
    assert_eq!(site.send("/account/sessions/end", &first, json!({"id": other})).await.status, 404);
}

#[tokio::test]
async fn a_token_is_shown_once_and_may_do_what_it_may() {
    let site = Site::new().await;
    let session = site.register("ada@shop.example").await;
    let new = json!({"name": "script", "scopes": ["read"], "days": 30});
    let made = site.send("/account/tokens", &session, new.clone()).await;
    assert_eq!(made.status, 201, "{made:?}");
    let token = made.json().as_str().unwrap().to_owned();
    let bearer = format!("Bearer {token}");
    let call = async |method: Method, path: &str, bearer: &str| {
        site.app.call(method, path, &[("authorization", bearer)], "{}").await.status.as_u16()
    };
    // What is in person is not for programs; the rest is, as its scopes say.
    assert_eq!(call(Method::GET, "/account", &bearer).await, 403);
    assert_eq!(call(Method::GET, "/probe", &bearer).await, 200);
    assert_eq!(call(Method::POST, "/probe", &bearer).await, 403);
    assert_eq!(call(Method::GET, "/probe", "Bearer app_wrong").await, 401);
    let account = site.app.call(Method::GET, "/account", &[("cookie", &session)], "").await.json();
    assert_eq!(
        (&account["tokens"][0]["name"], account["tokens"][0]["scopes"][0].as_str()),
        (&json!("script"), Some("read"))
    );
    assert!(!account.to_string().contains(&token));
    let id = &account["tokens"][0]["id"];
    assert_eq!(site.send("/account/tokens/revoke", &session, json!({"id": id})).await.status, 204);
    assert_eq!(call(Method::GET, "/probe", &bearer).await, 401);
    // A new one needs a log-in that is recent, and a new password is the end of all.
    let token = site.send("/account/tokens", &session, new.clone()).await.json();
    let bearer = format!("Bearer {}", token.as_str().unwrap());
    assert_eq!(call(Method::GET, "/probe", &bearer).await, 200);
    site.pass(SignedDuration::from_mins(16));
    assert_eq!(site.send("/account/tokens", &session, new).await.status, 403);
    let change = json!({"current": PASSWORD, "password": "nine badgers on a raft"});
    assert_eq!(site.send("/account/password", &session, change).await.status, 204);
    assert_eq!(call(Method::GET, "/probe", &bearer).await, 401);
}

#[test]
fn the_program_says_who_may_call_what_and_makes_keys() {
    let folder = tempfile::tempdir().unwrap();
    let printed = |words: &[&str]| {
        let output = PROGRAM.run(folder.path(), words, &[]);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let routes = printed(&["routes"]);
    let callers = |path: &str| {
        let line = routes.lines().find(|line| line.split(' ').next() == Some(path)).unwrap();
        line.split("callers: ").nth(1).unwrap_or_default().to_owned()
    };
    assert_eq!(callers("/account/password"), "GET User: InPerson; POST User: InPerson");
    assert_eq!(callers("/account/tokens"), "GET User: Recent; POST User: Recent");
    assert_eq!(callers("/log-in"), "GET anyone, or User");
    assert_eq!(callers("/register"), "");
    let (one, other) = (printed(&["secrets"]), printed(&["secrets"]));
    assert!(one.trim().len() == 43 && other.trim().len() == 43 && one != other, "{one} {other}");
    // Without one the server does not start, and says what makes one.
    let refused = PROGRAM.run(folder.path(), &["--port", "0"], &[("SERVER__AUTH__KEYS", "")]);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(refused.status.code() == Some(2) && said.contains("`server secrets`"), "{said}");
    let mut server = PROGRAM.command(folder.path());
    server
        .args(["--host", "127.0.0.1", "--port", "0", "--db_url", "memory:"])
        .env("SERVER__AUTH__KEYS", one.trim());
    drop(TestServer::spawn(&mut server, folder.path()));
}

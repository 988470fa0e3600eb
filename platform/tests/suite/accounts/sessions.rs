//! Sessions and callers, on each kind of store that several processes share.

use axum::http::Method;
use futures_util::{SinkExt as _, StreamExt as _};
use jiff::SignedDuration;
use platform::testing::PATIENCE;
use serde_json::json;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::{Note, Site, cookie_of};
use platform::store::{Expected, Patch, field};

/// The tests of one store. The attribute is `ignore` for one with a server.
macro_rules! cases {
    ($module:ident, $attribute:meta, $with:path: $($case:ident)*) => {
        mod $module {
            $(
                #[tokio::test]
                #[$attribute]
                async fn $case() {
                    $with(async |url| super::$case(&Site::at(&url, &[]).await).await).await;
                }
            )*
            use super::Site;
        }
    };
}

macro_rules! stores {
    ($($case:ident)*) => {
        cases!(in_memory, cfg(all()), super::in_memory_store: $($case)*);
        #[cfg(feature = "sqlite")]
        cases!(on_sqlite, cfg(all()), super::sqlite_store: $($case)*);
        #[cfg(feature = "postgres")]
        cases!(on_postgres, ignore = "needs a server: make test-all", super::postgres_store: $($case)*);
    };
}

stores! {
    every_log_in_has_a_new_id_and_one_that_was_planted_is_nobodys
    a_session_that_has_ended_is_not_brought_back_by_a_request_that_was_under_way
    a_session_ends_when_it_is_not_used_and_at_last
    what_is_in_the_store_gets_nobody_in
    a_user_who_may_not_log_in_is_out_with_the_next_request
    a_new_auth_version_ends_all_sessions_at_once
    a_user_sees_and_ends_their_sessions_and_no_others
    documents_of_others_are_not_there
    a_user_has_so_many_requests_on_all_devices_together
    a_link_is_spent_by_one_commit_with_what_it_is_for
}

async fn in_memory_store(test: impl AsyncFnOnce(String)) {
    test("memory:".to_owned()).await;
}

#[cfg(feature = "sqlite")]
async fn sqlite_store(test: impl AsyncFnOnce(String)) {
    let folder = tempfile::tempdir().unwrap();
    test(format!("sqlite:{}", folder.path().join("store.sqlite").display())).await;
}

#[cfg(feature = "postgres")]
async fn postgres_store(test: impl AsyncFnOnce(String)) {
    use crate::store_contract::postgres;
    let folder = tempfile::tempdir().unwrap();
    let url = postgres::url(&postgres::server(), &postgres::schema(&folder));
    postgres::create(&url).await;
    test(url.clone()).await;
    postgres::remove(&url).await;
}

async fn every_log_in_has_a_new_id_and_one_that_was_planted_is_nobodys(site: &Site) {
    site.add("ada", false).await;
    // What an attacker has put into the browser of somebody else, before the log-in.
    let planted = format!("session={}", "A".repeat(43));
    assert_eq!(site.user(&planted).await, "nobody");
    let first = site.log_in("ada", &planted).await;
    assert_ne!(first, planted);
    assert_eq!((site.user(&first).await, site.user(&planted).await), ("ada".to_owned(), "nobody".to_owned()));
    let second = site.log_in("ada", &first).await;
    assert_ne!(second, first);
    // The former one has ended: whoever knew it is not in.
    assert_eq!((site.user(&second).await, site.user(&first).await), ("ada".to_owned(), "nobody".to_owned()));
}

async fn a_session_that_has_ended_is_not_brought_back_by_a_request_that_was_under_way(site: &Site) {
    site.add("ada", false).await;
    let cookie = site.log_in("ada", "").await;
    // The next use is written down.
    site.pass(SignedDuration::from_mins(6));
    let uses = (0..20).map(|_| site.get("/me", &cookie));
    let (_, ended) =
        tokio::join!(futures_util::future::join_all(uses), site.call(Method::POST, "/log-out", &cookie));
    assert_eq!(ended.status, 204);
    assert_eq!(ended.header("set-cookie"), Some("session=; HttpOnly; SameSite=Lax; Path=/; Max-Age=0"));
    assert_eq!(site.user(&cookie).await, "nobody");
    // The control: a use that stores the whole session, as tower-sessions has it, brings it back.
    let dao = site.people();
    let kept = dao.get("ada").await.unwrap().unwrap();
    dao.delete("ada", Expected::Any).await.unwrap();
    dao.upsert(platform::store::Filter::id("ada"), &kept.value).await.unwrap();
    assert!(dao.get("ada").await.unwrap().is_some());
    dao.delete("ada", Expected::Any).await.unwrap();
    let touched = dao.update("ada", Expected::Any, Patch::new().set("active", true)).await.unwrap();
    assert!(touched.is_none() && dao.get("ada").await.unwrap().is_none());
}

async fn a_session_ends_when_it_is_not_used_and_at_last(site: &Site) {
    site.add("ada", false).await;
    let unused = site.log_in("ada", "").await;
    site.pass(SignedDuration::from_hours(7 * 24 - 1));
    assert_eq!(site.user(&unused).await, "ada");
    // That use counts.
    site.pass(SignedDuration::from_hours(7 * 24 - 1));
    assert_eq!(site.user(&unused).await, "ada");
    site.pass(SignedDuration::from_hours(7 * 24 + 1));
    assert_eq!(site.user(&unused).await, "nobody");
    let used = site.log_in("ada", "").await;
    for _ in 0..29 {
        site.pass(SignedDuration::from_hours(24));
        assert_eq!(site.user(&used).await, "ada");
    }
    site.pass(SignedDuration::from_hours(24));
    assert_eq!(site.user(&used).await, "nobody");
}

async fn what_is_in_the_store_gets_nobody_in(site: &Site) {
    #[derive(serde::Deserialize, serde::Serialize)]
    struct Anything(serde_json::Map<String, serde_json::Value>);
    impl platform::store::Entity for Anything {
        const COLLECTION: &'static str = "platform_sessions";
    }
    site.add("ada", false).await;
    let cookie = site.log_in("ada", "").await;
    let kept = site.app.services().dao::<Anything>().get_all(platform::store::Filter::All).await.unwrap();
    let texts: Vec<String> = kept.iter().map(|kept| format!("{} {}", kept.id, json!(kept.value.0))).collect();
    let dump = texts.join(" ");
    assert_eq!(kept.len(), 1);
    let secret = cookie.strip_prefix("session=").unwrap();
    assert!(dump.contains("ada") && !dump.contains(secret), "{dump}");
    for word in dump.split(|c: char| !c.is_alphanumeric()) {
        assert_eq!(site.user(&format!("session={word}")).await, "nobody", "{word}");
    }
    // The control: the secret does.
    assert_eq!(site.user(&cookie).await, "ada");
}

async fn a_user_who_may_not_log_in_is_out_with_the_next_request(site: &Site) {
    site.add("ada", false).await;
    let cookie = site.log_in("ada", "").await;
    let shut = |open: bool| {
        let people = site.people();
        async move { people.update("ada", Expected::Any, Patch::new().set("active", open)).await.unwrap() }
    };
    shut(false).await;
    assert_eq!(site.get("/me", &cookie).await.status, 401);
    shut(true).await;
    assert_eq!(site.get("/me", &cookie).await.status, 200);
    site.people().delete("ada", Expected::Any).await.unwrap();
    assert_eq!(site.get("/me", &cookie).await.status, 401);
}

async fn a_new_auth_version_ends_all_sessions_at_once(site: &Site) {
    site.add("ada", false).await;
    let cookies = [site.log_in("ada", "").await, site.log_in("ada", "").await];
    site.people().update("ada", Expected::Any, Patch::new().add("auth_version", 1)).await.unwrap();
    for cookie in &cookies {
        assert_eq!(site.user(cookie).await, "nobody");
    }
    let new = site.log_in("ada", "").await;
    let listed = site.get("/sessions", &new).await.json();
    assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");
}

async fn a_user_sees_and_ends_their_sessions_and_no_others(site: &Site) {
    site.add("ada", false).await;
    site.add("bob", false).await;
    let (first, second, third) =
        (site.log_in("ada", "").await, site.log_in("ada", "").await, site.log_in("ada", "").await);
    let of_bob = site.log_in("bob", "").await;
    let listed = site.get("/sessions", &first).await.json();
    let ids: Vec<&str> = listed.as_array().unwrap().iter().map(|it| it["id"].as_str().unwrap()).collect();
    assert_eq!((ids.len(), &listed[0]["device"]), (3, &json!("Tests/1")), "{listed}");
    let id_of_bob = site.get("/sessions", &of_bob).await.json()[0]["id"].as_str().unwrap().to_owned();
    let end = async |id: &str| {
        let path = format!("/sessions/{id}/end");
        site.call(Method::POST, &path, &first).await.json()
    };
    assert_eq!(end(&id_of_bob).await, json!(false));
    assert_eq!(site.user(&of_bob).await, "bob");
    // The other two, one by one: the own one is told by what is left.
    let others = site.call(Method::POST, "/sessions/end-others", &first).await;
    assert_eq!(others.json(), json!(2));
    assert_eq!([site.user(&first).await, site.user(&second).await], ["ada", "nobody"]);
    assert_eq!([site.user(&third).await, site.user(&of_bob).await], ["nobody", "bob"]);
    let own = site.get("/sessions", &first).await.json()[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(end(&own).await, json!(true));
    assert_eq!(site.user(&first).await, "nobody");
}

async fn documents_of_others_are_not_there(site: &Site) {
    site.add("ada", false).await;
    site.add("bob", false).await;
    let (ada, bob) = (site.log_in("ada", "").await, site.log_in("bob", "").await);
    let notes = site.app.services().dao::<Note>();
    let note = |owner: &str| Note { owner: owner.to_owned(), text: "secret".to_owned() };
    let id = notes.insert(&note("ada")).await.unwrap();
    notes.insert(&note("bob")).await.unwrap();
    let path = format!("/notes/{id}");
    assert_eq!(site.get(&path, "").await.status, 401);
    assert_eq!(site.get(&path, &ada).await.json()["text"], "secret");
    assert_eq!(site.get(&path, &bob).await.json(), json!(null));
    assert_eq!(site.get("/notes", &bob).await.json(), json!([1, 1]));
    assert_eq!(site.call(Method::DELETE, &path, &bob).await.json(), json!(false));
    assert_eq!(site.call(Method::POST, &path, &bob).await.status, 204);
    // Nobody gives one away by mistake.
    assert_eq!(site.call(Method::POST, &path, &ada).await.status, 500);
    let owned = notes.count(field("owner").eq("ada")).await.unwrap();
    assert_eq!(owned, 1);
    assert_eq!(site.call(Method::DELETE, &path, &ada).await.json(), json!(true));
}

async fn a_user_has_so_many_requests_on_all_devices_together(site: &Site) {
    site.add("ada", false).await;
    site.add("bob", false).await;
    let devices = [site.log_in("ada", "").await, site.log_in("ada", "").await];
    let bob = site.log_in("bob", "").await;
    let mut statuses = Vec::new();
    // Nobody counts by the address, which all of them share.
    for cookie in [&devices[0], &devices[1], &devices[0], &bob, "", "", ""] {
        statuses.push(site.get("/limited", cookie).await.status.as_u16());
    }
    assert_eq!(statuses, [200, 200, 429, 200, 200, 200, 429]);
    site.pass(SignedDuration::from_mins(1));
    assert_eq!(site.get("/limited", &devices[1]).await.status, 200);
}

async fn a_link_is_spent_by_one_commit_with_what_it_is_for(site: &Site) {
    let link = site.call(Method::POST, "/link", "").await.text().to_owned();
    let path = format!("/link/{link}");
    let uses = (0..8).map(|_| site.call(Method::POST, &path, ""));
    let uses = futures_util::future::join_all(uses).await;
    let mut statuses: Vec<u16> = uses.iter().map(|response| response.status.as_u16()).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [&[204][..], &[404; 7]].concat());
    let notes = site.app.services().dao::<Note>();
    assert_eq!(notes.count(field("owner").eq("ada")).await.unwrap(), 1);
    let old = site.call(Method::POST, "/link", "").await.text().to_owned();
    site.pass(SignedDuration::from_mins(61));
    assert_eq!(site.call(Method::POST, &format!("/link/{old}"), "").await.status, 404);
}

#[tokio::test]
async fn a_caller_is_asked_for_by_type() {
    let site = Site::at("memory:", &[]).await;
    site.add("ada", true).await;
    site.add("bob", false).await;
    let (ada, bob) = (site.log_in("ada", "").await, site.log_in("bob", "").await);
    let statuses = async |path: &str| {
        let mut statuses = Vec::new();
        for cookie in ["", &bob, &ada] {
            statuses.push(site.get(path, cookie).await.status.as_u16());
        }
        statuses
    };
    for path in ["/me", "/recent", "/guarded", "/guarded/7", "/sessions"] {
        assert_eq!(statuses(path).await, [401, 200, 200], "{path}");
    }
    assert_eq!(statuses("/admin").await, [401, 403, 200]);
    assert_eq!(statuses("/both").await, [401, 403, 200]);
    assert_eq!(statuses("/maybe").await, [200, 200, 200]);
    assert_eq!(statuses("/open").await, [200, 200, 200]);
    let refused = site.get("/me", "").await;
    assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
    assert_eq!(site.get("/guarded/7", &bob).await.text(), "7");
    // Later, the log-in is not recent any more.
    site.pass(SignedDuration::from_mins(16));
    assert_eq!(statuses("/recent").await, [401, 403, 403]);
    assert_eq!(statuses("/me").await, [401, 200, 200]);
    let line = site.app.log().into_iter().rfind(|line| line.contains("/me") && line.contains("200")).unwrap();
    assert!(line.contains("user=ada") || line.contains("\"user\":\"ada\""), "{line}");
}

#[tokio::test]
async fn a_browser_is_sent_to_the_log_in_and_a_program_is_not() {
    let site = Site::at("memory:", &[]).await;
    site.add("ada", false).await;
    let html = [("accept", "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8")];
    let page = site.app.call(Method::GET, "/me?a=b%20c", &html, "").await;
    assert_eq!(
        (page.status.as_u16(), page.header("location")),
        (303, Some("/log-in?next=%2Fme%3Fa%3Db%2520c"))
    );
    assert_eq!(site.app.call(Method::POST, "/me", &html, "").await.status, 401);
    assert_eq!(site.app.call(Method::GET, "/me", &[("accept", "*/*")], "").await.status, 401);
    let cookie = site.log_in("ada", "").await;
    site.pass(SignedDuration::from_mins(16));
    let headers = [html[0], ("cookie", cookie.as_str())];
    let page = site.app.call(Method::GET, "/recent", &headers, "").await;
    assert_eq!((page.status.as_u16(), page.header("location")), (303, Some("/log-in?next=%2Frecent")));
}

#[tokio::test]
async fn the_cookie_is_exact_and_over_https_only_its_own_name_counts() {
    let plain = Site::at("memory:", &[]).await;
    let secure = Site::at("memory:", &[("SERVER__SERVER__PUBLIC_URL", "https://shop.example")]).await;
    for (site, prefix, flag) in [(&plain, "", ""), (&secure, "__Host-", "; Secure")] {
        site.add("ada", false).await;
        let response = site.call(Method::POST, "/log-in/ada", "").await;
        let cookie = cookie_of(&response);
        let secret = cookie.strip_prefix(&format!("{prefix}session=")).unwrap();
        assert_eq!(secret.len(), 43);
        let expected = format!("{cookie}; HttpOnly; SameSite=Lax{flag}; Path=/; Max-Age=2592000");
        assert_eq!(response.header("set-cookie"), Some(expected.as_str()));
        assert_eq!(site.user(&cookie).await, "ada");
        // What a sibling domain can set has no such prefix.
        let other = if prefix.is_empty() { "__Host-session=" } else { "session=" };
        assert_eq!(site.user(&format!("{other}{secret}")).await, "nobody");
    }
}

#[tokio::test]
async fn a_store_that_is_down_makes_nobody_of_no_user() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("store.sqlite").display());
    let site = Site::at(&url, &[]).await;
    site.add("ada", false).await;
    let cookie = site.log_in("ada", "").await;
    site.app.services().close().await;
    for path in ["/me", "/maybe", "/guarded"] {
        let response = site.get(path, &cookie).await;
        assert_eq!((response.status.as_u16(), response.header("set-cookie")), (503, None), "{path}");
    }
    // The control: what needs no caller.
    assert_eq!(site.get("/open", &cookie).await.status, 200);
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn a_web_socket_is_closed_when_its_session_ends_in_another_process() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("store.sqlite").display());
    let watch = [("SERVER__AUTH__SESSIONS__WATCH", "100ms")];
    let (one, other) = (Site::at(&url, &watch).await, Site::at(&url, &watch).await);
    one.add("ada", false).await;
    let (ended, control) = (one.log_in("ada", "").await, one.log_in("ada", "").await);
    let (address, _drain, _serving) = one.app.listen().await;
    let open = async |cookie: &str, origin: &str| {
        let mut request = format!("ws://{address}/talk").into_client_request().unwrap();
        request.headers_mut().insert("cookie", cookie.parse().unwrap());
        request.headers_mut().insert("origin", origin.parse().unwrap());
        connect_async(request).await
    };
    let own = format!("http://{address}");
    // A page of another site has the cookie sent too.
    let Err(Error::Http(refused)) = open(&ended, "http://evil.example").await else { panic!("it is open") };
    assert_eq!(refused.status(), 403);
    let Err(Error::Http(refused)) = open("session=x", &own).await else { panic!("it is open") };
    assert_eq!(refused.status(), 401);
    let (mut socket, mut stays) =
        (open(&ended, &own).await.unwrap().0, open(&control, &own).await.unwrap().0);
    socket.send(Message::text("hello")).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("hello"));
    assert_eq!(other.call(Method::POST, "/log-out", &ended).await.status, 204);
    let closed = tokio::time::timeout(PATIENCE, socket.next()).await.unwrap();
    let Some(Ok(Message::Close(Some(frame)))) = closed else { panic!("{closed:?}") };
    assert_eq!(frame.code, CloseCode::Policy);
    stays.send(Message::text("still here")).await.unwrap();
    assert_eq!(stays.next().await.unwrap().unwrap(), Message::text("still here"));
}

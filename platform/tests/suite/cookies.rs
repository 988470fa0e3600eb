//! Signed and encrypted cookies, and the keys that they need.

use std::ffi::OsString;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use platform::App;
use platform::clock::Clock;
use platform::error::{Result, StartError};
use platform::http::{EncryptedCookies, NoContent, Query, Route, Routes, SignedCookies};
use platform::services::Services;
use platform::testing::{NoSettings, SERVICE, TestApp};

const KEY: &str = "AbCdEfGhIjKlMnOpQrStUvWxYz0123456789-_AbCdE";
const NEW_KEY: &str = "0123456789-_AbCdEAbCdEfGhIjKlMnOpQrStUvWxYz";
const HOUR: Duration = Duration::from_hours(1);
const HTTPS: (&str, &str) = ("SERVER__SERVER__PUBLIC_URL", "https://shop.example");

#[derive(serde::Deserialize)]
struct Named {
    name: String,
    #[serde(default)]
    value: String,
}

async fn set(mut cookies: SignedCookies, Query(q): Query<Named>) -> Result<(SignedCookies, NoContent)> {
    cookies.set(&q.name, "first", HOUR)?;
    cookies.set(&q.name, &q.value, HOUR)?;
    Ok((cookies, NoContent))
}

async fn get(cookies: SignedCookies, Query(q): Query<Named>) -> String {
    cookies.get(&q.name, HOUR).unwrap_or_else(|| "none".to_owned())
}

async fn remove(mut cookies: SignedCookies, Query(q): Query<Named>) -> Result<(SignedCookies, NoContent)> {
    cookies.remove(&q.name)?;
    Ok((cookies, NoContent))
}

async fn hide(
    mut cookies: EncryptedCookies,
    Query(q): Query<Named>,
) -> Result<(EncryptedCookies, NoContent)> {
    cookies.set(&q.name, &q.value, HOUR)?;
    Ok((cookies, NoContent))
}

async fn reveal(cookies: EncryptedCookies, Query(q): Query<Named>) -> String {
    cookies.get(&q.name, HOUR).unwrap_or_else(|| "none".to_owned())
}

/// The same page always, and a new cookie with it.
async fn page(mut cookies: SignedCookies) -> Result<(SignedCookies, &'static str)> {
    cookies.set("seen", "yes", HOUR)?;
    Ok((cookies, "page"))
}

fn routes() -> Routes<Services> {
    Routes::new()
        .route(Route::at("/set").get(set))
        .route(Route::at("/get").get(get))
        .route(Route::at("/remove").get(remove))
        .route(Route::at("/hide").get(hide))
        .route(Route::at("/reveal").get(reveal))
        .route(Route::at("/page").get(page))
}

fn app(routes: Routes<Services>) -> App<NoSettings, Services> {
    App::new(async |services, _| Ok(services), move |_: &NoSettings| routes)
}

async fn started(clock: &Clock, environment: &[(&str, &str)]) -> TestApp {
    TestApp::start(&SERVICE, app(routes()).clock(clock.clone()), environment).await
}

fn clock() -> Clock {
    Clock::starting_at(Timestamp::from_second(1_800_000_000).unwrap())
}

/// The cookie that the path sets, as `NAME=VALUE`.
async fn cookie(app: &TestApp, path: &str) -> String {
    let response = app.get(path).await;
    response
        .header("set-cookie")
        .unwrap_or_else(|| panic!("{response:?}"))
        .split(';')
        .next()
        .unwrap()
        .to_owned()
}

async fn read(app: &TestApp, path: &str, cookie: &str) -> String {
    let response = app.call("GET".parse().unwrap(), path, &[("cookie", cookie)], "").await;
    response.text().to_owned()
}

#[tokio::test]
async fn a_cookie_has_the_attributes_of_its_scheme() {
    let (clock, key) = (clock(), ("SERVER__AUTH__KEYS", KEY));
    let plain = started(&clock, &[key]).await;
    let secure = started(&clock, &[key, HTTPS]).await;
    let value = cookie(&plain, "/set?name=theme&value=dark").await;
    let value = value.strip_prefix("theme=").unwrap();
    assert!(value.starts_with("1.1800000000.ZGFya"), "{value}");
    for (app, expected) in [
        (&plain, format!("theme={value}; HttpOnly; SameSite=Lax; Path=/; Max-Age=3600")),
        (&secure, format!("__Host-theme={value}; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=3600")),
    ] {
        let response = app.get("/set?name=theme&value=dark").await;
        assert_eq!(response.status, 204);
        assert_eq!(response.headers.get_all("set-cookie").iter().count(), 1, "the last change of a name");
        assert_eq!(response.header("set-cookie"), Some(expected.as_str()));
    }
    let removed = secure.get("/remove?name=theme").await;
    let expected = "__Host-theme=; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=0";
    assert_eq!(removed.header("set-cookie"), Some(expected));
}

#[tokio::test]
async fn over_https_only_a_cookie_with_the_prefix_is_read() {
    let (clock, key) = (clock(), ("SERVER__AUTH__KEYS", KEY));
    let secure = started(&clock, &[key, HTTPS]).await;
    let own = cookie(&secure, "/set?name=theme&value=dark").await;
    assert!(own.starts_with("__Host-theme="));
    assert_eq!(read(&secure, "/get?name=theme", &own).await, "dark");
    let planted = own.strip_prefix("__Host-").unwrap();
    assert_eq!(read(&secure, "/get?name=theme", planted).await, "none");
    // Among others, some of which are none, and after one that was planted.
    assert_eq!(read(&secure, "/get?name=theme", &format!("a; =;b=c; {planted}; {own}")).await, "dark");
    // The control: over plain HTTP the same value is read without it.
    let plain = started(&clock, &[key]).await;
    assert_eq!(read(&plain, "/get?name=theme", planted).await, "dark");
}

#[tokio::test]
async fn a_value_that_was_moved_altered_or_is_too_old_is_none() {
    let (clock, key) = (clock(), ("SERVER__AUTH__KEYS", KEY));
    let app = started(&clock, &[key]).await;
    for (set, get) in [("set", "get"), ("hide", "reveal")] {
        let own = cookie(&app, &format!("/{set}?name=theme&value=dark")).await;
        let path = format!("/{get}?name=theme");
        assert_eq!(read(&app, &path, &own).await, "dark");
        let moved = own.replacen("theme", "user", 1);
        assert_eq!(read(&app, &format!("/{get}?name=user"), &moved).await, "none");
        let mut altered = own.clone();
        let at = altered.rfind('.').unwrap() + 3;
        altered.replace_range(at..=at, if &own[at..=at] == "A" { "B" } else { "A" });
        assert_eq!(read(&app, &path, &altered).await, "none", "{altered}");
        let seconds = own.split('.').nth(1).unwrap();
        let later = (seconds.parse::<i64>().unwrap() + 1).to_string();
        assert_eq!(read(&app, &path, &own.replace(seconds, &later)).await, "none", "another time");
        clock.move_by(SignedDuration::from_secs(3_590));
        assert_eq!(read(&app, &path, &own).await, "dark");
        clock.move_by(SignedDuration::from_secs(20));
        assert_eq!(read(&app, &path, &own).await, "none", "after an hour");
        // A clock that is behind by less than a minute, and by more.
        clock.move_by(SignedDuration::from_secs(-3_610 - 50));
        assert_eq!(read(&app, &path, &own).await, "dark");
        clock.move_by(SignedDuration::from_secs(-20));
        assert_eq!(read(&app, &path, &own).await, "none", "from the future");
    }
    let own = cookie(&app, "/hide?name=theme&value=dark").await;
    let other = cookie(&app, "/hide?name=theme&value=dark").await;
    assert_ne!(own, other, "a nonce of its own");
    assert_eq!(read(&app, "/get?name=theme", &own).await, "none", "an encrypted one is no signed one");
}

#[tokio::test]
async fn a_former_key_is_accepted_as_long_as_it_is_listed() {
    let (clock, both) = (clock(), format!("{NEW_KEY} {KEY}"));
    let before = started(&clock, &[("SERVER__AUTH__KEYS", KEY)]).await;
    let during = started(&clock, &[("SERVER__AUTH__KEYS", &both)]).await;
    let after = started(&clock, &[("SERVER__AUTH__KEYS", NEW_KEY)]).await;
    let (old, path) = (cookie(&before, "/set?name=theme&value=dark").await, "/get?name=theme");
    assert_eq!(read(&during, path, &old).await, "dark");
    assert_eq!(read(&after, path, &old).await, "none");
    let new = cookie(&during, "/set?name=theme&value=dark").await;
    assert_eq!(read(&after, path, &new).await, "dark");
}

#[tokio::test]
async fn a_name_that_is_no_token_and_a_cookie_that_is_too_large_are_errors_of_the_server() {
    let app = started(&clock(), &[]).await;
    for name in ["a%20b", "a%3Bb", "a%3Db", ""] {
        assert_eq!(app.get(&format!("/set?name={name}&value=a")).await.status, 500, "{name}");
    }
    let large = |length| format!("/set?name=a&value={}", "x".repeat(length));
    assert_eq!(app.get(&large(2_900)).await.status, 204);
    assert_eq!(app.get(&large(3_100)).await.status, 500);
}

#[tokio::test]
async fn a_page_that_has_not_changed_still_sets_its_cookie() {
    let app = started(&clock(), &[]).await;
    let first = app.get("/page").await;
    let tag = first.header("etag").unwrap();
    let again = app.call("GET".parse().unwrap(), "/page", &[("if-none-match", tag)], "").await;
    assert_eq!(again.status, 304);
    assert!(again.header("set-cookie").is_some(), "{again:?}");
}

async fn start(routes: Routes<Services>, environment: &[(&str, &str)]) -> Result<(), StartError> {
    let store = [("SERVER__STORE__URL", "memory:")];
    let pairs = store.iter().chain(environment);
    let pairs: Vec<_> = pairs.map(|(name, value)| (OsString::from(name), OsString::from(value))).collect();
    app(routes).into_router(&SERVICE, pairs).await.map(drop)
}

#[tokio::test]
async fn routes_that_need_keys_do_not_start_without_but_in_development() {
    let needing = || Routes::new().merge(routes().needs_keys());
    let nested = Routes::new().nest("/v1", needing());
    for routes in [needing(), nested] {
        let error = start(routes, &[]).await.unwrap_err();
        assert_eq!(error.exit_code, 2);
        assert!(error.to_string().contains("`server secrets`"), "{error}");
    }
    start(needing(), &[("SERVER__AUTH__KEYS", KEY)]).await.unwrap();
    let debug = |mode| [("SERVER__SERVER__DEBUG", mode), ("SERVER__SERVER__HOST", "127.0.0.1")];
    start(needing(), &debug("on")).await.unwrap();
    assert_eq!(start(needing(), &debug("exposed")).await.unwrap_err().exit_code, 2);
    // Nothing needs one: it starts. One that is given is checked all the same.
    start(routes(), &[]).await.unwrap();
    assert_eq!(start(routes(), &[("SERVER__AUTH__KEYS", "short")]).await.unwrap_err().exit_code, 2);
}

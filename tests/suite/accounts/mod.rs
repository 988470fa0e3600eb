//! Accounts, by the pages that people see and by the JSON that programs send.

mod attacks;
pub mod on_chromium;
#[cfg(feature = "oidc")]
mod on_oidc;
mod pages;
mod passwords;
mod programs;

use axum::http::Method;
use jiff::{SignedDuration, Timestamp};
use platform::App;
use platform::clock::Clock;
use platform::http::{Caller, Route};
use platform::testing::{TestApp, TestResponse};
use serde_json::{Value, json};
use server::app::AppState;
use server::app::accounts::{self, Admin, User};
use server::app::settings::Settings;
use tempfile::TempDir;

/// A password that nobody refuses.
pub const PASSWORD: &str = "seven otters in a bath";

/// What a browser says of what it reads.
const HTML: (&str, &str) = ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8");
const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

/// The app with a folder for its mails, and a clock that tests move.
pub struct Site {
    pub app: TestApp,
    pub clock: Clock,
    mails: TempDir,
}

impl Site {
    pub async fn new() -> Self {
        Self::with(&[]).await
    }

    /// With settings of its own.
    pub async fn with(environment: &[(&str, &str)]) -> Self {
        Self::of(probed(), environment).await
    }

    /// Another app that has accounts.
    pub async fn of(app: App<Settings, AppState>, environment: &[(&str, &str)]) -> Self {
        let clock = Clock::starting_at(Timestamp::from_second(1_790_000_000).unwrap());
        let mails = tempfile::tempdir().unwrap();
        let url = format!("file:{}", mails.path().display());
        // Hashes that cost less: what they cost is tested where they are made.
        let of_tests = [("SERVER__MAIL__URL", url.as_str()), ("SERVER__AUTH__PASSWORDS__MEMORY", "7MiB")];
        let environment = [&of_tests, environment].concat();
        let app = app.clock(clock.clone());
        Self { app: TestApp::start(&server::SERVICE, app, &environment).await, clock, mails }
    }

    pub fn pass(&self, time: SignedDuration) {
        self.clock.move_by(time);
    }

    /// Sends the form of a page, as a browser does.
    pub async fn submit(&self, path: &str, cookie: &str, fields: &[(&str, &str)]) -> TestResponse {
        let mut body = String::new();
        for (name, value) in fields {
            let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
            body.push_str(&format!("{}={}&", encode(name), encode(value)));
        }
        self.app.call(Method::POST, path, &[HTML, FORM, ("cookie", cookie)], body).await
    }

    /// A page, as a browser asks for it.
    pub async fn page(&self, path: &str, cookie: &str) -> TestResponse {
        self.app.call(Method::GET, path, &[HTML, ("cookie", cookie)], "").await
    }

    /// Sends JSON, as a program does.
    pub async fn send(&self, path: &str, cookie: &str, body: Value) -> TestResponse {
        let headers = [("content-type", "application/json"), ("cookie", cookie)];
        self.app.call(Method::POST, path, &headers, body.to_string()).await
    }

    /// Delivers the mails that wait, and takes them out of the folder, the oldest first.
    pub async fn mails(&self) -> Vec<String> {
        self.app.services().mailer().deliver_due(None).await.unwrap();
        let mut files: Vec<_> =
            std::fs::read_dir(self.mails.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        let take = |path: std::path::PathBuf| {
            let text = std::fs::read_to_string(&path).unwrap();
            std::fs::remove_file(path).unwrap();
            text
        };
        files.into_iter().map(take).collect()
    }

    /// The token of the link in the one mail that waits.
    pub async fn token(&self) -> String {
        let mails = self.mails().await;
        assert_eq!(mails.len(), 1, "{mails:?}");
        token_of(&mails[0])
    }

    /// Makes an account, and returns the cookies of its session and its device.
    pub async fn register(&self, email: &str) -> String {
        assert_eq!(self.send("/register", "", json!({"email": email})).await.status, 202);
        let form = json!({"token": self.token().await, "name": "Ada", "password": PASSWORD});
        let made = self.send("/confirm", "", form).await;
        assert_eq!(made.status, 201, "{made:?}");
        cookies_of(&made)
    }

    pub async fn log_in(&self, email: &str, password: &str, cookie: &str) -> TestResponse {
        self.send("/log-in", cookie, json!({"email": email, "password": password})).await
    }

    /// The status of the account with these cookies: 200 where they are of somebody.
    pub async fn account(&self, cookie: &str) -> u16 {
        self.app.call(Method::GET, "/account", &[("cookie", cookie)], "").await.status.as_u16()
    }
}

/// Accounts alone, and a route that only the first account may call, with a session or a token.
fn probed() -> App<Settings, AppState> {
    let probe = async |_: Caller<User, Admin>| "in";
    let routes = move |_: &Settings| accounts::routes().route(Route::at("/probe").get(probe).post(probe));
    App::new(async |services, settings| Ok(AppState { services, settings }), routes)
}

/// The cookies that a response sets.
pub fn cookies_of(response: &TestResponse) -> String {
    let set = response.headers.get_all("set-cookie").iter();
    let pairs = set.map(|cookie| cookie.to_str().unwrap().split(';').next().unwrap());
    pairs.collect::<Vec<_>>().join("; ")
}

/// The token of the link in a mail.
pub fn token_of(mail: &str) -> String {
    let at = mail.find("?token=").unwrap_or_else(|| panic!("no link in {mail}")) + "?token=".len();
    mail[at..].chars().take_while(|c| c.is_ascii_alphanumeric() || "-_".contains(*c)).collect()
}

//! People who log in: an app with a user of its own, whose sessions are in the store.

#[cfg(feature = "oidc")]
mod issuer;
#[cfg(feature = "oidc")]
mod on_oidc;
#[cfg(feature = "oidc")]
mod providers;
mod sessions;

use std::time::Duration;

use axum::http::Method;
use axum::response::Response;
use jiff::{SignedDuration, Timestamp};
use platform::App;
use platform::auth::{Account, Limit, Link, Links};
use platform::clock::Clock;
use platform::error::{Error, Result};
use platform::http::{
    Caller, Context, InPerson, Json, Known, Mine, NoContent, Owned, Path, Recent, Route, Routes, Rule,
    Sessions, WebSocketUpgrade,
};
use platform::services::Services;
use platform::store::{Batch, Dao, Entity, Expected, Filter, Stored};
use platform::testing::{NoSettings, SERVICE, TestApp, TestResponse};
use serde::{Deserialize, Serialize};

/// A user who has no password: the tests log them in by their id.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Person {
    pub(super) admin: bool,
    pub(super) active: bool,
    pub(super) auth_version: u64,
}

impl Entity for Person {
    const COLLECTION: &'static str = "people";
}

impl Account for Person {
    const LOG_IN: &'static str = "/log-in";

    fn auth_version(&self) -> u64 {
        self.auth_version
    }

    fn is_active(&self) -> bool {
        self.active
    }
}

struct Admin;

impl Rule<Person> for Admin {
    fn allows(caller: &Known<Person>) -> bool {
        caller.user.value.admin
    }
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Note {
    owner: String,
    text: String,
}

impl Entity for Note {
    const COLLECTION: &'static str = "notes";
    const INDEXES: &'static [&'static str] = &["owner"];
}

impl Owned for Note {
    const OWNER: &'static str = "owner";

    fn owner(&self) -> &str {
        &self.owner
    }
}

async fn log_in(
    people: Dao<Person>,
    sessions: Sessions,
    Path(id): Path<String>,
) -> Result<impl axum::response::IntoResponse> {
    let person = people.get(&id).await?.unwrap();
    Ok((sessions.begin(&person).await?, NoContent))
}

async fn log_out(sessions: Sessions) -> Result<impl axum::response::IntoResponse> {
    Ok((sessions.end().await?, NoContent))
}

async fn me(caller: Caller<Person>) -> String {
    caller.id().to_owned()
}

async fn maybe(caller: Option<Caller<Person>>) -> String {
    caller.map_or_else(|| "nobody".to_owned(), |caller| caller.id().to_owned())
}

async fn list(
    caller: Caller<Person, InPerson>,
    sessions: Sessions,
) -> Result<Json<Vec<platform::auth::Session>>> {
    Ok(Json(sessions.list(&caller.user).await?))
}

async fn end_others(caller: Caller<Person>, sessions: Sessions) -> Result<Json<u64>> {
    let this = caller.session().map(|session| session.id.as_str());
    Ok(Json(sessions.end_all(&caller.user, this).await?))
}

async fn end_one(caller: Caller<Person>, sessions: Sessions, Path(id): Path<String>) -> Result<Json<bool>> {
    Ok(Json(sessions.end_one(&caller.user, &id).await?))
}

async fn note(notes: Mine<Note, Person>, Path(id): Path<String>) -> Result<Json<Option<Stored<Note>>>> {
    Ok(Json(notes.get(&id).await?))
}

async fn give_away(notes: Mine<Note, Person>, Path(id): Path<String>) -> Result<NoContent> {
    let given = notes.modify_if(&id, Expected::Any, |note| {
        "somebody".clone_into(&mut note.owner);
        Ok(())
    });
    given.await?;
    Ok(NoContent)
}

async fn delete_note(notes: Mine<Note, Person>, Path(id): Path<String>) -> Result<Json<bool>> {
    Ok(Json(notes.delete(&id, Expected::Any).await?))
}

/// Says what it hears, to a user.
async fn talk(caller: Caller<Person>, upgrade: WebSocketUpgrade) -> Response {
    upgrade.until_revoked(&caller).on_upgrade(async |mut socket| {
        while let Some(Ok(message)) = socket.recv().await {
            if socket.send(message).await.is_err() {
                break;
            }
        }
    })
}

async fn issue(links: Links, mut batch: Batch) -> Result<String> {
    let link = Link { subject: "ada".to_owned(), bound_to: 1 };
    let secret = links.issue(&mut batch, "reset", &link)?;
    batch.commit().await?;
    Ok(secret.expose().to_owned())
}

/// Spends a link with a note that it is for, in one commit.
async fn redeem(
    links: Links,
    notes: Dao<Note>,
    mut batch: Batch,
    Path(secret): Path<String>,
) -> Result<NoContent> {
    let link = links.redeem(&mut batch, "reset", &secret).await?;
    let owner = link.ok_or_else(|| Error::not_found("No Such Link"))?.subject;
    batch.insert(&notes, &Note { owner, text: "spent".to_owned() })?;
    batch.commit().await?;
    Ok(NoContent)
}

async fn count_notes(notes: Mine<Note, Person>) -> Result<Json<(u64, usize)>> {
    let page = notes.page_after(Filter::All, None, 10).await?;
    Ok(Json((notes.count(Filter::All).await?, page.items.len())))
}

fn routes() -> Routes<Services> {
    let guarded = Routes::new()
        .route(Route::at("/guarded").get(async || "in"))
        .route(Route::at("/guarded/{id}").get(async |Path(id): Path<String>| id))
        .guard::<Caller<Person>>();
    Routes::new()
        .entity::<Person>()
        .route(Route::at("/log-in/{id}").post(log_in))
        .route(Route::at("/log-out").post(log_out))
        .route(Route::at("/me").get(me).post(me))
        .route(Route::at("/maybe").get(maybe))
        .route(Route::at("/admin").get(async |_: Caller<Person, Admin>| "in"))
        .route(Route::at("/recent").get(async |_: Caller<Person, Recent>| "in"))
        .route(Route::at("/both").get(async |_: Caller<Person, (Admin, Recent)>| "in"))
        .route(
            Route::at("/limited")
                .get(async || "in")
                .throttle_callers::<Person>(Limit::new(2, Duration::from_mins(1))),
        )
        .route(Route::at("/talk").get(talk))
        .route(Route::at("/link").post(issue))
        .route(Route::at("/link/{secret}").post(redeem))
        .route(Route::at("/open").get(async || "in"))
        .route(Route::at("/sessions").get(list))
        .route(Route::at("/sessions/end-others").post(end_others))
        .route(Route::at("/sessions/{id}/end").post(end_one))
        .route(Route::at("/notes").get(count_notes))
        .route(Route::at("/notes/{id}").get(note).delete(delete_note).post(give_away))
        .route(Route::at("/secure").get(async |context: Context| context.is_secure().to_string()))
        .merge(guarded)
}

/// The app, its clock, and a user for each test.
pub(super) struct Site {
    pub(super) app: TestApp,
    clock: Clock,
}

impl Site {
    pub(super) async fn at(url: &str, environment: &[(&str, &str)]) -> Self {
        let clock = Clock::starting_at(Timestamp::from_second(1_790_000_000).unwrap());
        let app = App::new(async |services, _| Ok(services), |_: &NoSettings| routes()).clock(clock.clone());
        let environment = [&[("SERVER__STORE__URL", url)], environment].concat();
        Self { app: TestApp::start(&SERVICE, app, &environment).await, clock }
    }

    async fn add(&self, id: &str, admin: bool) {
        let person = Person { admin, active: true, auth_version: 1 };
        self.people().insert_with_id(id, &person).await.unwrap();
    }

    fn people(&self) -> Dao<Person> {
        self.app.services().dao()
    }

    fn pass(&self, time: SignedDuration) {
        self.clock.move_by(time);
    }

    /// Logs a user in; the cookie.
    async fn log_in(&self, id: &str, cookie: &str) -> String {
        let response = self.call(Method::POST, &format!("/log-in/{id}"), cookie).await;
        assert_eq!(response.status, 204, "{response:?}");
        cookie_of(&response)
    }

    async fn call(&self, method: Method, path: &str, cookie: &str) -> TestResponse {
        self.app.call(method, path, &[("cookie", cookie), ("user-agent", "Tests/1")], "").await
    }

    async fn get(&self, path: &str, cookie: &str) -> TestResponse {
        self.call(Method::GET, path, cookie).await
    }

    /// The user that a cookie is for.
    async fn user(&self, cookie: &str) -> String {
        self.get("/maybe", cookie).await.text().to_owned()
    }
}

/// The pair of the `Set-Cookie` of a response.
fn cookie_of(response: &TestResponse) -> String {
    response.header("set-cookie").unwrap().split(';').next().unwrap().to_owned()
}

//! Lists in pages: `limit`, `after`, and the link to the next page.

use axum::Router;
use axum::http::Method;
use axum::routing::get;
use platform::error::Result;
use platform::http::{PageRequest, Paged, Route, Routes};
use platform::services::Services;
use platform::store::{Dao, Entity, Filter};
use serde::{Deserialize, Serialize};
use serde_json::json;

use platform::testing::{TestApp, TestResponse};

#[derive(Deserialize, Serialize)]
struct Note {
    text: String,
}

impl Entity for Note {
    const COLLECTION: &'static str = "notes";
}

async fn list(notes: Dao<Note>, page: PageRequest) -> Result<Paged<Vec<String>>> {
    let found = notes.get_page_after(Filter::all(), page.after.as_deref(), page.limit).await?;
    Ok(page.respond(found.next, found.items.into_iter().map(|note| note.id).collect()))
}

async fn fill(notes: Dao<Note>) -> Result<()> {
    for id in ["a", "b", "c&d", "e", "f"] {
        notes.insert_with_id(id, &Note { text: "x".to_owned() }).await?;
    }
    Ok(())
}

async fn app() -> TestApp {
    let routes: Routes<Services> = Routes::new().route(Route::at("/notes").get(list).post(fill));
    let app = TestApp::with_routes(routes, &[("SERVER__HTTP__LIST_LIMIT", "4")]).await;
    assert_eq!(app.call(Method::POST, "/notes", &[], "").await.status, 200);
    app
}

/// The path in `Link: <path>; rel="next"`.
fn next(page: &TestResponse) -> Option<String> {
    let (path, relation) = page.header("link")?.strip_prefix('<')?.split_once('>')?;
    assert_eq!(relation, "; rel=\"next\"");
    Some(path.to_owned())
}

#[tokio::test]
async fn the_links_lead_through_the_whole_list_and_keep_the_rest_of_the_query() {
    let app = app().await;
    let mut pages = Vec::new();
    let mut path = Some("/notes?limit=2&color=red%26blue".to_owned());
    while let Some(current) = path {
        assert!(current.contains("color=red%26blue"), "{current}");
        let page = app.get(&current).await;
        pages.push(page.json());
        path = next(&page);
    }
    assert_eq!(pages, [json!(["a", "b"]), json!(["c&d", "e"]), json!(["f"])]);
}

#[tokio::test]
async fn a_list_is_limited_when_the_request_names_no_limit() {
    let app = app().await;
    let page = app.get("/notes").await;
    assert_eq!(page.json(), json!(["a", "b", "c&d", "e"]));
    assert_eq!(next(&page).as_deref(), Some("/notes?limit=4&after=e"));
    // The control: the last page has no link.
    let page = app.get("/notes?after=a&limit=4").await;
    assert_eq!((page.json(), next(&page)), (json!(["b", "c&d", "e", "f"]), None));
}

#[tokio::test]
async fn an_invalid_limit_is_400_and_its_pointer_is_named() {
    let app = app().await;
    for limit in ["0", "5", "-1", "two", ""] {
        let response = app.get(&format!("/notes?limit={limit}")).await;
        assert_eq!(response.status_line(), "400 Invalid Query String", "{limit}");
        let errors = &response.json()["errors"];
        assert_eq!(errors, &json!([{"pointer": "/limit", "message": "is not a whole number from 1 to 4"}]));
    }
}

#[tokio::test]
async fn a_parameter_that_is_given_twice_is_400() {
    let app = app().await;
    for (query, pointer) in [("limit=1&limit=2", "/limit"), ("after=a&after=", "/after")] {
        let response = app.get(&format!("/notes?{query}")).await;
        assert_eq!(response.status, 400, "{query}");
        let errors = &response.json()["errors"];
        assert_eq!(errors, &json!([{"pointer": pointer, "message": "is given more than once"}]));
    }
    // The control: a parameter of the handler may be.
    assert_eq!(app.get("/notes?tag=a&tag=b").await.status, 200);
}

#[tokio::test]
async fn the_link_of_a_mounted_router_has_its_prefix() {
    let page = async |page: PageRequest| page.respond(Some("b".to_owned()), ());
    let routes: Routes<Services> = Routes::new().mount("/m", Router::new().route("/notes", get(page)));
    let response = TestApp::with_routes(routes, &[]).await.get("/m/notes?limit=1").await;
    assert_eq!(next(&response).as_deref(), Some("/m/notes?limit=1&after=b"));
}

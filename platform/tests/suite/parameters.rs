//! `Path` and `Query`: their errors have the shape of those of a body. And what a response shows of what is stored.

use platform::error::Result;
use platform::http::{Created, Json, Path, Query, Route, Routes};
use platform::services::Services;
use platform::store::{Dao, Entity, Expected, Filter, Stored};
use platform::testing::TestApp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Search {
    limit: Option<u8>,
    order: Order,
    #[serde(default)]
    label: Vec<String>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum Order {
    Up,
    Down,
}

#[derive(Deserialize, Serialize)]
struct Place {
    floor: u8,
    room: Order,
}

#[derive(Deserialize, Serialize)]
struct Thing(Value);

impl Entity for Thing {
    const COLLECTION: &'static str = "things";
}

fn routes() -> Routes<Services> {
    Routes::new()
        .entity::<Thing>()
        .route(Route::at("/search").get(async |Query(search): Query<Search>| Json(search)))
        .route(Route::at("/one/{number}").get(async |Path(number): Path<u8>| Json(number)))
        .route(Route::at("/two/{a}/{b}").get(async |Path(both): Path<(u8, i8)>| Json(both)))
        .route(Route::at("/place/{floor}/{room}").get(async |Path(place): Path<Place>| Json(place)))
        .route(Route::at("/things").get(list).post(create))
}

async fn create(things: Dao<Thing>, Json(thing): Json<Thing>) -> Result<Created<Json<Stored<Thing>>>> {
    let id = things.insert(&thing).await?;
    Ok(Created::with(format!("/things/{id}"), Stored { id, version: 1, value: thing }))
}

async fn list(things: Dao<Thing>) -> Result<Json<Vec<Stored<Thing>>>> {
    Ok(Json(things.get_all(Filter::all()).await?))
}

async fn app() -> TestApp {
    TestApp::with_routes(routes(), &[]).await
}

#[tokio::test]
async fn a_query_string_is_read_by_name() {
    let app = app().await;
    for (query, read) in [
        ("order=up", json!({"limit": null, "order": "up", "label": []})),
        ("order=down&limit=7&label=a", json!({"limit": 7, "order": "down", "label": ["a"]})),
        (
            "label=a+b&order=up&label=%C3%A9&limit=",
            json!({"limit": null, "order": "up", "label": ["a b", "é"]}),
        ),
    ] {
        let response = app.get(&format!("/search?{query}")).await;
        assert_eq!(response.json(), read, "{query}");
    }
}

#[tokio::test]
async fn a_wrong_parameter_is_named_as_a_wrong_field_is() {
    let app = app().await;
    for (path, reason, pointer, message) in [
        ("/search?order=up&limit=many", "Invalid Query String", "/limit", "invalid digit found in string"),
        (
            "/search?order=up&limit=256",
            "Invalid Query String",
            "/limit",
            "number too large to fit in target type",
        ),
        (
            "/search?order=left",
            "Invalid Query String",
            "/order",
            "unknown variant `left`, expected `up` or `down`",
        ),
        (
            "/search?order=up&color=1",
            "Invalid Query String",
            "/color",
            "unknown field `color`, expected one of `limit`, `order`, `label`",
        ),
        ("/search?order=up&label=%FF&limit=x", "Invalid Query String", "/limit", "invalid digit"),
        ("/search?order=up&order=up", "Invalid Query String", "/order", ""),
        ("/search", "Invalid Query String", "", "missing field `order`"),
        ("/one/many", "Invalid Path", "/number", "'many' is not a value of type u8"),
        ("/one/256", "Invalid Path", "/number", "'256' is not a value of type u8"),
        ("/one/%FF", "Invalid Path", "/number", "is not UTF-8"),
        ("/two/1/many", "Invalid Path", "/b", "'many' is not a value of type i8"),
        ("/place/x/up", "Invalid Path", "/floor", "'x' is not a value of type u8"),
        // axum does not say which one.
        ("/place/1/left", "Invalid Path", "", "unknown variant `left`, expected `up` or `down`"),
    ] {
        let response = app.get(path).await;
        assert_eq!(response.status_line(), format!("400 {reason}"), "{path}");
        let error = &response.json()["errors"][0];
        assert_eq!(error["pointer"], pointer, "{path}: {error}");
        let found = error["message"].as_str().unwrap();
        assert!(found.starts_with(message) && !found.is_empty(), "{path}: {found}");
    }
}

#[tokio::test]
async fn a_created_resource_is_in_the_response_with_its_id_and_version() {
    let app = app().await;
    let created = app.post("/things", json!({"z": 1, "a": {"id": 2}})).await;
    assert_eq!(created.status, 201);
    let shown = created.json();
    let id = shown["id"].as_str().unwrap();
    assert_eq!(created.header("location").unwrap(), format!("/things/{id}"));
    assert_eq!(shown, json!({"id": id, "version": 1, "z": 1, "a": {"id": 2}}));
    // In this order: the id, the version, the fields as they are.
    let text = String::from_utf8(created.body.to_vec()).unwrap();
    assert!(text.starts_with("{\"id\":") && text.ends_with(r#""version":1,"z":1,"a":{"id":2}}"#), "{text}");
    let things = app.services().dao::<Thing>();
    things.replace(id, Expected::Any, &Thing(json!({"b": 2}))).await.unwrap();
    assert_eq!(app.get("/things").await.json(), json!([{"id": id, "version": 2, "b": 2}]));
}

#[test]
fn a_stored_value_that_has_an_id_itself_is_not_shown_with_two() {
    let stored = |value| Stored { id: "i".to_owned(), version: 1, value };
    for (value, why) in [
        (json!({"id": 1}), "has a field `id` of its own"),
        (json!({"version": 1}), "has a field `version` of its own"),
        (json!([1]), "has no place for its id"),
    ] {
        let error = serde_json::to_string(&stored(value)).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}

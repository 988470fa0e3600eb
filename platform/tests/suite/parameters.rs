//! `Path` and `Query`: their errors have the shape of those of a body. And what a response shows of what is stored.

use axum::http::Method;
use platform::error::Result;
use platform::http::{Created, Json, MergePatch, Path, Query, Route, Routes};
use platform::services::Services;
use platform::store::{Dao, Entity, Expected, Filter, Stored, dao::new_id};
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
        .route(Route::at("/fits").post(fits).patch(fits_changed).schema("fits", SCHEMA))
}

const SCHEMA: &str = r#"{"type": "object", "required": ["a"]}"#;

#[derive(Deserialize, Serialize)]
struct Fits {
    a: u8,
}

async fn fits(Json(_): Json<Fits>) {}

async fn fits_changed(patch: MergePatch<Fits>) -> Result<()> {
    patch.apply(&mut Fits { a: 1 })
}

async fn create(things: Dao<Thing>, Json(thing): Json<Thing>) -> Result<Created<Json<Stored<Thing>>>> {
    let id = new_id();
    let version = things.insert_with_id(&id, &thing).await?;
    Ok(Created::with(format!("/things/{id}"), Stored { id, version, value: thing }))
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
        ("/search?order=up&order=up", "Invalid Query String", "/order", "is given more than once"),
        ("/search", "Invalid Query String", "/order", "missing field `order`"),
        ("/one/many", "Invalid Path", "/number", "'many' is not a whole number from 0 to 255"),
        ("/one/256", "Invalid Path", "/number", "'256' is not a whole number from 0 to 255"),
        ("/one/%FF", "Invalid Path", "/number", "is not UTF-8"),
        ("/two/1/many", "Invalid Path", "/b", "'many' is not a whole number from -128 to 127"),
        ("/place/x/up", "Invalid Path", "/floor", "'x' is not a whole number from 0 to 255"),
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
async fn a_body_that_does_not_fit_is_422_where_the_settings_say_so() {
    let ask = async |setting: &str, method: Method, body: &str| {
        let app = TestApp::with_routes(routes(), &[("SERVER__HTTP__UNPROCESSABLE_CONTENT", setting)]).await;
        let response = app.call(method, "/fits", &[], body.to_owned()).await;
        (
            response.status_line(),
            response.json()["errors"][0]["pointer"].clone(),
            response.json()["code"].clone(),
        )
    };
    for (method, body, reason, pointer) in [
        (Method::POST, r#"{"a": "x"}"#, "Invalid JSON body", "/a"),
        (Method::POST, "[]", "JSON Schema validation failed", ""),
        (Method::POST, "{}", "JSON Schema validation failed", "/a"),
        (Method::PATCH, "[]", "Invalid JSON body", ""),
        (Method::PATCH, r#"{"a": null}"#, "JSON Schema validation failed", "/a"),
    ] {
        for (setting, status) in [("false", 400), ("true", 422)] {
            let found = ask(setting, method.clone(), body).await;
            assert_eq!(
                found,
                (format!("{status} {reason}"), json!(pointer), json!(status)),
                "{method} {body}"
            );
        }
    }
    // What is no JSON is malformed.
    assert_eq!(ask("true", Method::POST, "{").await.0, "400 Invalid JSON body");
}

#[tokio::test]
async fn a_created_resource_is_in_the_response_with_its_id_and_version() {
    let app = app().await;
    let created = app.post("/things", json!({"z": 1, "a": {"id": 2}})).await;
    assert_eq!(created.status, 201);
    let shown = created.json();
    let id = shown["id"].as_str().unwrap();
    assert_eq!(created.header("location").unwrap(), format!("/things/{id}"));
    let version = shown["version"].as_u64().unwrap();
    assert_eq!(shown, json!({"id": id, "version": version, "z": 1, "a": {"id": 2}}));
    // In this order: the id, the version, the fields as they are.
    let text = created.text();
    assert!(
        text.starts_with("{\"id\":")
            && text.ends_with(&format!(r#""version":{version},"z":1,"a":{{"id":2}}}}"#)),
        "{text}"
    );
    let things = app.services().dao::<Thing>();
    things.replace(id, Expected::Any, &Thing(json!({"b": 2}))).await.unwrap();
    assert_eq!(app.get("/things").await.json(), json!([{"id": id, "version": version + 1, "b": 2}]));
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

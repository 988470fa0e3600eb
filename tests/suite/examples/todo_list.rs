//! The to-do list: the integration test of the original tutorial against a running server, and its schema.

use axum::http::Method;
use serde_json::{Value, json};

use super::samples;
use crate::processes::{signal, until, workers};
use crate::support::{PROGRAM, app};

const SCHEMA: &str = include_str!("../../../schema/todo-list-v1.0.json");

fn samples() -> Vec<Value> {
    samples::samples("data/tasks")
}

#[test]
fn the_sample_data_meets_the_schema() {
    samples::assert_samples_meet(SCHEMA, &samples());
}

#[tokio::test]
async fn the_endpoints_work_as_in_the_tutorial() {
    let server = PROGRAM.start(&[]);
    let client = reqwest::Client::new();
    let all = server.url("/tasks");
    let read = async |url: &str| {
        let response = client.get(url).send().await.unwrap();
        (response.status().as_u16(), serde_json::from_str::<Value>(&response.text().await.unwrap()).unwrap())
    };
    let created = client.post(&all).body(r#"{"title": "Task1"}"#).send().await.unwrap();
    assert_eq!(created.status(), 201);
    let location = created.headers()["location"].to_str().unwrap().to_owned();
    let id = location.strip_prefix("/tasks/").unwrap();
    let one = server.url(&location);
    assert_eq!(read(&one).await, (200, json!({"title": "Task1"})));
    let changed = client.put(&one).body(r#"{"title": "Task2"}"#).send().await.unwrap();
    assert_eq!(changed.status(), 204);
    assert_eq!(read(&all).await, (200, json!({id: {"title": "Task2"}})));
    assert_eq!(client.delete(&one).send().await.unwrap().status(), 204);
    assert_eq!(read(&all).await, (200, json!({})));
    assert_eq!(read(&one).await.0, 404);
    assert_eq!(client.delete(&one).send().await.unwrap().status(), 404);
}

#[tokio::test]
async fn a_patch_changes_the_fields_that_are_sent() {
    let app = app().await;
    let created = app.post("/tasks", json!({"title": "t", "priority": "high"})).await;
    let task = created.header("location").unwrap();
    let former = app.get(task).await.header("etag").unwrap().to_owned();
    let changed = app.patch(task, json!({"completed": true, "priority": null})).await;
    let read = app.get(task).await;
    assert_eq!(
        (changed.status_line().as_str(), changed.header("etag")),
        ("204 No Content", read.header("etag"))
    );
    assert_eq!(read.json(), json!({"title": "t", "completed": true}));
    // The schema is that of the whole task.
    for wrong in [json!({"title": null}), json!({"title": ""}), json!({"colour": "red"}), json!([])] {
        assert_eq!(app.patch(task, &wrong).await.status, 400, "{wrong}");
    }
    let stale = app.call(Method::PATCH, task, &[("if-match", &former)], "{}").await;
    assert_eq!(stale.status, 412);
    assert_eq!(app.patch("/tasks/none", "{}").await.status, 404);
    assert_eq!(app.get(task).await.header("etag"), changed.header("etag"));
}

#[tokio::test]
async fn every_sample_comes_back_as_it_was_sent() {
    let app = app().await;
    for task in samples() {
        let created = app.post("/tasks", &task).await;
        assert_eq!(created.status, 201);
        assert_eq!(app.get(created.header("location").unwrap()).await.json(), task);
    }
}

#[tokio::test]
async fn a_task_that_breaks_the_schema_is_refused() {
    let app = app().await;
    for task in
        [json!({}), json!({"title": ""}), json!({"title": "t", "priority": "now"}), json!({"title": 1})]
    {
        let response = app.post("/tasks", &task).await;
        assert_eq!(response.status_line(), "400 JSON Schema validation failed", "{task}");
        assert!(!response.json()["errors"].as_array().unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_task_is_changed_in_the_version_that_was_seen_only() {
    let app = app().await;
    let location = app.post("/tasks", json!({"title": "one"})).await.header("location").unwrap().to_owned();
    let seen = app.get(&location).await.header("etag").unwrap().to_owned();
    let put = async |condition: (&str, &str), title: &str| {
        let body = json!({"title": title}).to_string();
        app.call(Method::PUT, &location, &[condition], body).await.status.as_u16()
    };
    assert_eq!(put(("if-match", &seen), "two").await, 204);
    assert_eq!(put(("if-match", &seen), "three").await, 412);
    assert_eq!(put(("if-none-match", "*"), "four").await, 412);
    assert_eq!(app.get(&location).await.json(), json!({"title": "two"}));
}

#[tokio::test]
async fn a_task_is_where_location_says_whatever_its_id_is() {
    let app = app().await;
    for id in ["a%0Ab", "a%2Fb", "a%3Fb", "%C3%A4", "a%20b", "%2525"] {
        let path = format!("/tasks/{id}");
        let body = json!({"title": "one"}).to_string();
        let created = app.call(Method::PUT, &path, &[("if-none-match", "*")], body).await;
        assert_eq!((created.status.as_u16(), created.header("location")), (201, Some(path.as_str())));
        assert_eq!(app.get(&path).await.json(), json!({"title": "one"}));
    }
}

/// Creates so many tasks at a time.
async fn create(all: &str, tasks: usize) {
    let writing = (0..tasks).map(|number| {
        // A client of its own has a connection of its own, which any worker takes.
        let request = reqwest::Client::new().post(all).body(format!(r#"{{"title": "Task{number}"}}"#));
        tokio::spawn(async move { request.send().await.unwrap().status().as_u16() })
    });
    for status in writing.collect::<Vec<_>>() {
        assert_eq!(status.await.unwrap(), 201);
    }
}

#[tokio::test]
async fn all_workers_write_into_one_store() {
    // A list has them all, also where a fork allows short lists only.
    const TASKS: usize = 50;
    for store in ["sqlite:var/tasks.sqlite", "file:var/tasks"] {
        let server = PROGRAM.start(&["--proc", "2", "--db_url", store]);
        until(|| workers(&server).len() == 2);
        let all = server.url("/tasks");
        let wrote = |worker: &u32| {
            let log = server.log_file();
            let mut lines = log.lines().filter(|line| line.contains("status=201"));
            lines.any(|line| line.contains(&format!(" worker={worker}")))
        };
        create(&all, TASKS / 2).await;
        until(|| server.log_file().matches("status=201").count() == TASKS / 2);
        // Which one takes a connection is chance: where one has taken all, the other one has to take the rest.
        let idle: Vec<u32> = [1, 2].into_iter().filter(|worker| !wrote(worker)).collect();
        if let [idle] = idle[..] {
            signal("STOP", workers(&server)[&(3 - idle)].into());
        }
        create(&all, TASKS - TASKS / 2).await;
        until(|| [1, 2].iter().all(wrote));
        if let [idle] = idle[..] {
            signal("CONT", workers(&server)[&(3 - idle)].into());
        }
        let read = reqwest::get(&all).await.unwrap().text().await.unwrap();
        let tasks: serde_json::Map<String, Value> = serde_json::from_str(&read).unwrap();
        assert_eq!(tasks.len(), TASKS, "{store}");
    }
}

//! The address book: the integration test of the original tutorial against a running server, and its rules.

use serde_json::{Value, json};

use super::samples;
use crate::support::{PROGRAM, app};

const SCHEMA: &str = include_str!("../../../schema/address-book-v1.0.json");

fn samples() -> Vec<Value> {
    samples::samples("data/addresses")
}

#[test]
fn the_sample_data_meets_the_schema() {
    samples::assert_samples_meet(SCHEMA, &samples());
}

#[tokio::test]
async fn the_endpoints_work_as_in_the_tutorial() {
    let server = PROGRAM.start(&[]);
    let client = reqwest::Client::new();
    let all = server.url("/addresses/");
    let (first, second) = (json!({"full_name": "Bill Gates"}), samples().remove(0));

    let list = client.get(&all).send().await.unwrap();
    assert_eq!((list.status().as_u16(), list.text().await.unwrap()), (200, "{}".to_owned()));

    let created = client.post(&all).body(first.to_string()).send().await.unwrap();
    assert_eq!(created.status(), 201);
    let location = created.headers()["location"].to_str().unwrap().to_owned();
    let id = location.strip_prefix("/addresses/").unwrap();
    assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{location}");
    let one = server.url(&location);

    let refused = client.post(&all).body("it is not json").send().await.unwrap();
    assert_eq!(refused.status(), 400);
    let raw = "POST /addresses HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\nnot json";
    let refused = server.connect().send(raw).read_response();
    assert!(refused.starts_with("HTTP/1.1 400 Invalid JSON body\r\n"), "{refused}");

    let read = async |url: &str| {
        let response = client.get(url).send().await.unwrap();
        (response.status().as_u16(), serde_json::from_str::<Value>(&response.text().await.unwrap()).unwrap())
    };
    assert_eq!(read(&one).await, (200, first.clone()));
    assert_eq!(read(&all).await, (200, json!({id: first})));
    assert_eq!(read(&server.url("/addresses/no-such-id")).await.0, 404);

    let put =
        async |url: &str, body: String| client.put(url).body(body).send().await.unwrap().status().as_u16();
    assert_eq!(put(&one, second.to_string()).await, 204);
    assert_eq!(read(&one).await, (200, second.clone()));
    assert_eq!(put(&one, "it is not json".to_owned()).await, 400);
    assert_eq!(put(&server.url("/addresses/1234"), second.to_string()).await, 404);

    let delete = async |url: &str| client.delete(url).send().await.unwrap().status().as_u16();
    assert_eq!(delete(&one).await, 204);
    assert_eq!(read(&one).await.0, 404);
    assert_eq!(delete(&one).await, 404);
    assert_eq!(read(&all).await, (200, json!({})));
}

#[tokio::test]
async fn an_entry_comes_back_exactly_as_it_was_sent() {
    let app = app().await;
    let mut entries = samples();
    for pincode in [json!(110_011), json!("SW1Y 4JH"), json!(1.5), json!(0)] {
        let address = json!({"kind": "work", "street_name": "s", "pincode": pincode, "country": "c"});
        entries.push(json!({"full_name": "Ada", "addresses": [address], "emails": [], "phone_numbers": []}));
    }
    for entry in entries {
        let created = app.post("/addresses", &entry).await;
        assert_eq!(created.status, 201, "{:?}", created.json());
        assert_eq!(app.get(created.header("location").unwrap()).await.json(), entry);
    }
}

#[tokio::test]
async fn every_field_that_breaks_the_schema_is_named() {
    let app = app().await;
    let address = json!({"kind": "castle", "street_name": 7, "pincode": 1, "country": "c"});
    let entry =
        json!({"full_name": "Ada", "addresses": [address], "emails": [{"kind": "home", "email": "nobody"}]});
    let response = app.post("/addresses", entry).await;
    assert_eq!(response.status_line(), "400 JSON Schema validation failed");
    let body = response.json();
    assert_eq!(body["message"], "JSON Schema validation failed");
    let errors = body["errors"].as_array().unwrap();
    let mut pointers: Vec<_> = errors.iter().map(|error| error["pointer"].as_str().unwrap()).collect();
    pointers.sort_unstable();
    assert_eq!(pointers, ["/addresses/0/kind", "/addresses/0/street_name", "/emails/0/email"]);
    for body in
        [json!({"name": "Bill"}), json!({}), json!([]), json!(null), json!({"full_name": "a", "x": 1})]
    {
        assert_eq!(
            app.post("/addresses", &body).await.status_line(),
            "400 JSON Schema validation failed",
            "{body}"
        );
    }
}

#[tokio::test]
async fn a_rule_outside_the_schema_names_its_field_too() {
    let app = app().await;
    let response = app.post("/addresses", json!({"full_name": "  "})).await;
    assert_eq!(response.status_line(), "400 Invalid address entry");
    assert_eq!(response.json()["errors"], json!([{"pointer": "/full_name", "message": "is blank"}]));
}

#[tokio::test]
async fn an_unknown_entry_is_404_for_every_method() {
    let app = app().await;
    for id in ["1234", "..%2f..%2fetc%2fpasswd", "%00", "a%20b", "%F0%9F%A6%80"] {
        let path = format!("/addresses/{id}");
        let responses = [
            app.get(&path).await,
            app.put(&path, json!({"full_name": "Ada"})).await,
            app.delete(&path).await,
        ];
        for response in responses {
            assert_eq!(response.status_line(), "404 No Such Address", "{id}");
        }
    }
}

#[tokio::test]
async fn stored_entries_survive_a_restart() {
    let sqlite: &[&str] = if cfg!(feature = "sqlite") { &["sqlite:var/server.sqlite"] } else { &[] };
    for url in [&["file:var/documents"], sqlite].concat() {
        let folder = tempfile::tempdir().unwrap();
        let mut server = PROGRAM.start_in(folder.path(), &["--db_url", url]);
        let client = reqwest::Client::new();
        let created =
            client.post(server.url("/addresses")).body(r#"{"full_name": "Ada"}"#).send().await.unwrap();
        let location = created.headers()["location"].to_str().unwrap().to_owned();
        server.signal("TERM");
        assert_eq!(server.wait(), Some(0));
        let server = PROGRAM.start_in(folder.path(), &["--db_url", url]);
        let found = client.get(server.url(&location)).send().await.unwrap();
        assert_eq!(found.status(), 200, "{url}");
        assert_eq!(found.text().await.unwrap(), r#"{"full_name":"Ada"}"#);
    }
}

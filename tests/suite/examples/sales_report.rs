//! A report by the query language of the engine.

use platform::testing::TestApp;
use serde_json::json;

use crate::support::{app, app_with};

async fn sums_up(app: &TestApp) {
    for (day, cents) in [("2026-10-31", 1), ("2026-11-01", 20), ("2026-11-30", 300), ("2027-01-01", 4000)] {
        let sale = json!({"product": "pen", "day": day, "cents": cents});
        let created = app.post("/sales", &sale).await;
        assert_eq!(created.status, 201);
        assert_eq!(app.get(created.header("location").unwrap()).await.json(), sale);
    }
    let report = app.get("/sales/report").await;
    let expected = json!([
        {"month": "2026-10", "count": 1, "cents": 1},
        {"month": "2026-11", "count": 2, "cents": 320},
        {"month": "2027-01", "count": 1, "cents": 4000},
    ]);
    assert_eq!((report.status.as_u16(), report.json()), (200, expected));
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn sqlite_sums_up_each_month_and_its_connections_cannot_write() {
    use platform::store::drivers::sqlx;
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("x.sqlite").display());
    let app = app_with(&[("SERVER__STORE__URL", &url)]).await;
    assert_eq!(app.get("/sales/report").await.json(), json!([]));
    sums_up(&app).await;
    let database = app.services().sqlite().unwrap();
    let error = sqlx::query("DELETE FROM sales").execute(&database).await.unwrap_err();
    assert!(error.to_string().contains("readonly"), "{error}");
    app.close().await;
}

#[tokio::test]
async fn a_store_without_a_query_language_says_so() {
    let app = app().await;
    let report = app.get("/sales/report").await;
    assert_eq!((report.status.as_u16(), report.reason.as_deref()), (501, Some("No Reports Here")));
    let message = report.json()["message"].as_str().unwrap().to_owned();
    assert!(message.contains("without a query language"), "{message}");
    let wrong = app.post("/sales", json!({"product": "pen", "day": "tomorrow", "cents": 1})).await;
    assert_eq!((wrong.status.as_u16(), &wrong.json()["errors"][0]["pointer"]), (400, &json!("/day")));
}

#[cfg(feature = "postgres")]
#[tokio::test]
#[ignore = "needs PostgreSQL: make test-all"]
async fn on_postgres_each_month_is_summed_up() {
    use platform::store::drivers::sqlx;
    let server = std::env::var("TEST_POSTGRES_URL").expect("TEST_POSTGRES_URL names no server");
    let database = sqlx::PgPool::connect(&server).await.unwrap();
    let execute = async |statement: &'static str| {
        sqlx::raw_sql(statement).execute(&database).await.unwrap();
    };
    execute("DROP SCHEMA IF EXISTS test_sales_report CASCADE; CREATE SCHEMA test_sales_report").await;
    let separator = if server.contains('?') { '&' } else { '?' };
    let url = format!("{server}{separator}options[search_path]=test_sales_report");
    let app = app_with(&[("SERVER__STORE__URL", &url)]).await;
    sums_up(&app).await;
    app.close().await;
    execute("DROP SCHEMA test_sales_report CASCADE").await;
}

#[cfg(feature = "mongodb")]
#[tokio::test]
#[ignore = "needs MongoDB: make test-all"]
async fn on_mongodb_each_month_is_summed_up() {
    use platform::store::drivers::mongodb::Client;
    let server = std::env::var("TEST_MONGODB_URI").expect("TEST_MONGODB_URI names no server");
    let database = Client::with_uri_str(&server).await.unwrap().database("test_sales_report");
    database.drop().await.unwrap();
    let (hosts, options) = server.split_once('?').unwrap_or((&server, ""));
    let url = format!("{}/test_sales_report?{options}", hosts.trim_end_matches('/'));
    let app = app_with(&[("SERVER__STORE__URL", &url)]).await;
    sums_up(&app).await;
    app.close().await;
    database.drop().await.unwrap();
}
